"""How fast: a parquet file of 20 columns of numbers beside a stored reference, the limit, and what counting costs."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.prediction import LogBatch
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.domain.units import DAY_MS
from homeostat.engines.drift import drift
from homeostat.engines.drift.profile import Profile, Reference, profile, reference
from homeostat.stores import frames

COLUMNS, PART = 20, 1_000_000
NAMES = tuple(f"x{i:02}" for i in range(COLUMNS))
SCHEMA = Schema(tuple(Field(name, Kind.NUMBER, nullable=True) for name in NAMES), Task.REGRESSION, "y")
_REFERENCE_DAYS, _A_DAY = 60, 5_000


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds, by the clock and of the processor."""

    wall_s: float
    cpu_s: float


def timed(work: Callable[[], object]) -> Timed:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Timed(round(time.perf_counter() - wall, 3), round(time.process_time() - cpu, 3))


def rows(count: int, seed: int) -> pl.DataFrame:
    """Normal numbers, 2 % missing, of several spreads."""
    rng = np.random.default_rng(seed)
    made = {}
    for i, name in enumerate(NAMES):
        x = rng.standard_normal(count) * 10.0 ** (i % 5)
        x[rng.random(count) < 0.02] = np.nan
        made[name] = x
    return pl.DataFrame(made)


def stored() -> bytes:
    """A reference as a bundle keeps it."""
    learned = rows(_REFERENCE_DAYS * _A_DAY, 0)
    at = pl.Series(EVENT_MS, np.arange(len(learned)) // _A_DAY * DAY_MS)
    return reference(SCHEMA, learned.with_columns(at), _score(learned), (DAY_MS,)).to_bytes()


def file_of(folder: Path, count: int) -> Path:
    """Row groups of a million, as a log of that size has them."""
    path = folder / f"{count}.parquet"
    if not path.exists():
        parts = [rows(min(PART, count - start), 1 + start // PART) for start in range(0, count, PART)]
        pl.concat(parts).write_parquet(path, row_group_size=PART, compression="lz4")
    return path


def judged(known: bytes, path: Path) -> Profile:
    """Read, counted, judged; a part at a time."""
    found = Reference.from_bytes(known)
    parts = [profile(found, part, _score(part)) for part in _parts(path)]
    window = Profile.total(parts)
    drift(found, window, 0.01)
    return window


def scanned(path: Path) -> pl.DataFrame:
    """The limit: least and largest of every column."""
    return pl.scan_parquet(path).select(pl.all().min().name.suffix("<"), pl.all().max().name.suffix(">")).collect()


def _parts(path: Path) -> Iterator[pl.DataFrame]:
    """Row group by row group."""
    count = pl.scan_parquet(path).select(pl.len()).collect().item()
    return (pl.scan_parquet(path).slice(start, PART).collect() for start in range(0, count, PART))


def _score(frame: pl.DataFrame) -> NDArray[np.float64]:
    return np.nan_to_num(frame[NAMES[0]].to_numpy())[:, None]


def per_row(count: int = 200_000) -> dict[str, float]:
    """Microseconds a row of counting as rows pass into the table, beside packing and laying them out, and beside
    reading them back from it; of counting in the request path, as ticks of 32 rows come, and gathered until many."""
    known, frame = Reference.from_bytes(stored()), rows(count, 9).fill_nan(None)
    batches = list(_batches(frame))
    payloads = [frames.pack(batch) for batch in batches]
    made: dict[str, float] = {}

    def us(name: str, work: Callable[[], object]) -> None:
        made[name] = round(timed(work).cpu_s / count * 1e6, 3)

    us("unpack and lay out", lambda: frames.flat([(i, frames.unpack(one)) for i, one in enumerate(payloads)]))
    flat = frames.flat(list(enumerate(batches)))
    us("store as a table", lambda: frames.to_table(flat))
    inputs = flat.select(pl.col(frames.IN + name).alias(name) for name in NAMES)
    score = np.asarray(flat["score"].to_numpy())[:, None]
    us("count while compacting", lambda: profile(known, inputs, score).to_bytes())
    table = frames.to_table(flat)
    us("read back from the table", lambda: frames.from_table(table))
    some = batches[: max(1, len(batches) // 20)]
    ticks = [(pl.DataFrame(dict(one.inputs)), np.array(one.score)[:, None]) for one in some]
    few = timed(lambda: [profile(known, *tick) for tick in ticks]).cpu_s / (len(some) * 32) * 1e6
    made["count each tick"] = round(few, 3)
    us(
        "count ticks gathered to 65,536 rows",
        lambda: [profile(known, p, score[: len(p)]) for p in inputs.iter_slices(65_536)],
    )
    return made


def _batches(frame: pl.DataFrame) -> Iterator[LogBatch]:
    for start in range(0, len(frame), 32):
        part = frame.slice(start, 32)
        n, ids = len(part), [f"p{start + i}" for i in range(len(part))]
        alike = ([None] * n, [1] * n, ["champion"] * n, ["answer"] * n, ["ok"] * n, [9] * n)
        inputs = {name: part[name].to_list() for name in NAMES}
        yield LogBatch("m", start, "R1", 0, ids, *alike, [0.5] * n, [None] * n, [None] * n, inputs)


def ours(sizes: tuple[int, ...]) -> dict[str, dict[str, object]]:
    """By number of rows: the scan, and the judgement, each in a process of its own; the better of three."""
    with tempfile.TemporaryDirectory() as folder:
        known = Path(folder) / "reference"
        known.write_bytes(stored())
        made: dict[str, dict[str, object]] = {}
        for count in sizes:
            path = file_of(Path(folder), count)
            done = subprocess.run(
                [sys.executable, "-m", "bench.monitor.speed", known, path], check=True, capture_output=True, text=True
            )
            made[str(count)] = json.loads(done.stdout)
        return made


def main(known: Path, path: Path) -> None:
    work: dict[str, Callable[[], object]] = {
        "scan": lambda: scanned(path),
        "ours": lambda: judged(known.read_bytes(), path),
    }
    found: dict[str, object] = {
        name: asdict(min((timed(one) for _ in range(3)), key=lambda it: it.wall_s)) for name, one in work.items()
    }
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1_024
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
