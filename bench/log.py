"""python -m bench.log [--seconds S] [--folder DIR]

One append a tick, by `os.write` (what the log does) and into a mapped segment, for ticks of 1, 8, 64 and 256 rows of 20
features, with our framing: alone, and with an fsync once a second in a thread. A tick a millisecond, as in a
busy worker: appending without a pause would only measure the disk. DIR: the disk in question (default: the system's
folder for temporary files).
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

from homeostat.domain.prediction import LogBatch
from homeostat.stores import frames, segments

SEGMENT = 64 << 20
SIZES = (1, 8, 64, 256)
PAUSE_NS = 1_000_000


class Written(segments.Writer):
    """The log's own writer, and a way to sync its open segment."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "written", SEGMENT)

    def sync(self) -> None:
        for path in self._folder.glob("written-*.open"):
            with path.open("rb") as file:
                os.fsync(file.fileno())


class Mapped:
    """The same frames copied into a mapped file of full size. Its blocks are allocated first: a full disk would
    otherwise kill the process (SIGBUS) at any append."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._number, self._at = folder, 0, SEGMENT
        self._map: mmap.mmap | None = None

    def append(self, payload: bytes) -> None:
        data = segments.frame(time.time_ns(), payload)
        if self._map is None or self._at + len(data) > SEGMENT:
            self._map = self._fresh()
        self._map[self._at : self._at + len(data)] = data
        self._at += len(data)

    def sync(self) -> None:
        """Not `flush` of the map: Python would hold every other thread meanwhile."""
        for path in self._folder.glob(f"mapped-{self._number}"):
            with path.open("rb") as file:
                os.fsync(file.fileno())

    def close(self) -> None:
        if self._map is not None:
            self._map.close()

    def _fresh(self) -> mmap.mmap:
        self.close()
        self._number, self._at = self._number + 1, 0
        with (self._folder / f"mapped-{self._number}").open("w+b") as file:
            os.posix_fallocate(file.fileno(), 0, SEGMENT)
            return mmap.mmap(file.fileno(), SEGMENT)


WAYS: dict[str, Callable[[Path], Written | Mapped]] = {"os.write": Written, "mmap": Mapped}


@dataclass
class Times:
    """Microseconds of single appends, and of packing the rows (the same for both ways)."""

    append: list[float] = field(default_factory=list)
    pack: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.log", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each of the 16 rows")
    parser.add_argument("--folder", type=Path, help="where to write")
    given = parser.parse_args()
    names = ("way", "fsync", "rows", "us a tick", "us a row", "p99 us", "max us", "pack us")
    sys.stdout.write("".join(f"{name:>10}" for name in names) + "\n")
    for synced in (False, True):
        for rows in SIZES:
            for way in WAYS:
                with tempfile.TemporaryDirectory(dir=given.folder) as folder:
                    times = _measured(way, rows, synced, given.seconds, Path(folder))
                sys.stdout.write(_line(way, synced, rows, times))


def _measured(way: str, rows: int, synced: bool, seconds: float, folder: Path) -> Times:
    log, times, batch = WAYS[way](folder), Times(), _batch(rows)
    with _synced_each_second(log) if synced else _as_it_is():
        log.append(b"the first one opens the file")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            due = time.perf_counter_ns() + PAUSE_NS
            begun = time.perf_counter_ns()
            payload = frames.pack(batch)
            packed = time.perf_counter_ns()
            log.append(payload)
            times.append.append((time.perf_counter_ns() - packed) / 1_000)
            times.pack.append((packed - begun) / 1_000)
            while time.perf_counter_ns() < due:  # a sleep would hand the core to others
                pass
    log.close()
    return times


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


@contextmanager
def _synced_each_second(log: Written | Mapped) -> Iterator[None]:
    done = threading.Event()

    def work() -> None:
        while not done.wait(1.0):
            log.sync()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _batch(rows: int) -> LogBatch:
    chance = random.Random(rows)
    inputs = {f"f{i}": [chance.gauss(0, 1) for _ in range(rows)] for i in range(20)}
    return LogBatch(
        "bench",
        1_700_000_000_000,
        "R1",
        0,
        inputs=inputs,
        id=[f"0123456789-{i:x}" for i in range(rows)],
        key=[None] * rows,
        version=[1] * rows,
        arm=["champion"] * rows,
        role=["answer"] * rows,
        status=["ok"] * rows,
        model_us=[80] * rows,
        score=[chance.random() for _ in range(rows)],
        label=["1"] * rows,
        scores=[None] * rows,
    )


def _line(way: str, synced: bool, rows: int, times: Times) -> str:
    cuts = quantiles(times.append, n=100)
    numbers = (cuts[49], cuts[49] / rows, cuts[98], max(times.append), quantiles(times.pack, n=2)[0])
    return f"{way:>10}{'each s' if synced else '-':>10}{rows:>10}" + "".join(f"{one:>10.2f}" for one in numbers) + "\n"


if __name__ == "__main__":
    main()
