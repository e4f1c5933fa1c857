"""From segments to tables: exactly once, whatever is killed when; few files; the oldest days go."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable
from logged import batch, ids

from homeostat.domain.prediction import LabelBatch
from homeostat.domain.units import DAY_MS, HOUR_MS
from homeostat.stores.archive import RETRY_MS, SegmentArchive
from homeostat.stores.days import DayTables
from homeostat.stores.predictions import SegmentLabels, SegmentLog

KILLS = 50


class Home:
    """A folder with a log."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tables = DayTables(root / "tables")
        self.archive = SegmentArchive(root / "log", self.tables)
        self.log = self.writer("w1")
        self.labels = SegmentLabels(root / "log", "w1", self.tables)

    def writer(self, worker: str) -> SegmentLog:
        return SegmentLog(self.root / "log", worker, self.tables)

    def stored(self, table: str = "predictions/price") -> pl.DataFrame:
        rows = self.tables.read(table)
        assert rows is not None
        return rows.collect().sort("stamp")

    def segments(self) -> list[Path]:
        return list((self.root / "log").glob("*/*.seg"))

    def files(self, table: str = "predictions/price") -> list[Path]:
        return list((self.root / "tables" / table).glob("*/*.parquet"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


class Crashing(DayTables):
    """Commits, then dies before the caller hears of it."""

    def append(self, name: str, rows: pl.DataFrame) -> None:
        super().append(name, rows)
        raise KeyboardInterrupt


def test_a_crash_between_commit_and_delete_changes_nothing(home: Home) -> None:
    home.log.append(batch(1, "a", "b"))
    home.log.append(batch(2, "c", model="fraud"))
    home.log.close()
    for _ in range(2):  # one table a call
        with pytest.raises(KeyboardInterrupt):
            SegmentArchive(home.root / "log", Crashing(home.root / "tables")).compact()
        assert ids(home.log.read("price", 0, 9)) == ["a", "b"]
    assert home.segments()
    assert home.archive.compact() == (0, 0)
    assert not home.segments()
    assert ids(home.log.read("price", 0, 9)) == ["a", "b"]
    assert ids(home.log.find("c")) == ["c"]
    assert ids(home.stored()) == ["a", "b"]


@pytest.fixture
def compactor(tmp_path: Path) -> Iterator[Callable[[float], int]]:
    """Run it once, killed after so many milliseconds. → its exit status."""
    command = [sys.executable, Path(__file__).with_name("compactor_process.py"), tmp_path]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout
    given, answers = process.stdin, process.stdout

    def once(wait_ms: float) -> int:
        given.write(f"{wait_ms}\n")
        given.flush()
        return int(answers.readline())

    yield once
    given.close()
    answers.close()
    assert process.wait() == 0


def test_a_compactor_that_is_killed_fifty_times_loses_no_row_and_doubles_none(
    home: Home, compactor: Callable[[float], int]
) -> None:
    written = {"price": 0, "fraud": 0}

    def write() -> None:
        for _ in range(2):
            for model, count in written.items():
                name = f"{model}{count}"
                at = count * HOUR_MS  # into several days
                home.log.append(batch(at, name, name, role=["answer", "shadow"], model=model))
                home.log.append(batch(at, name, model=model))  # the caller asks again
                written[model] += 1
            home.labels.append(LabelBatch([f"price{written['price'] - 1}"], ["yes"], [written["price"]]))
            home.log.close()
            home.labels.close()

    write()
    begun = time.perf_counter()
    assert compactor(0) == 0
    whole_ms = (time.perf_counter() - begun) * 1_000
    killed = 0
    for i in range(KILLS):
        write()
        killed += compactor(0.1 + whole_ms * i / KILLS) == -9
        if i % 10 == 0:
            assert home.log.read("price", 0, DAY_MS * 99).height == 2 * written["price"]
    assert killed
    assert compactor(0) == 0
    assert home.segments() == []
    for model, count in written.items():
        rows = home.stored(f"predictions/{model}").select("id", "role").rows()
        assert sorted(rows) == sorted((f"{model}{i}", role) for i in range(count) for role in ("answer", "shadow"))
    assert home.stored("labels")["at_ms"].sort().to_list() == list(range(1, written["price"] + 1))


def test_a_retry_is_known_again_for_an_hour_and_read_once_for_ever(home: Home) -> None:
    def served(at_ms: int) -> int:
        home.log.append(batch(at_ms, "a"))
        home.log.close()
        return home.archive.compact()[0]

    midnight = 5 * DAY_MS
    assert [served(midnight - 1), served(midnight), served(midnight - 1 + RETRY_MS)] == [1, 0, 0]
    assert served(midnight + RETRY_MS) == 1
    assert home.log.read("price", 0, 9 * DAY_MS)["at_ms"].to_list() == [midnight - 1]


def test_known_rows_are_looked_for_around_their_time_only(home: Home) -> None:
    """The file of another day is not even opened: it may be damaged."""
    for day in (1, 3, 5):
        home.log.append(batch(day * DAY_MS, f"a{day}", f"day{day}", f"z{day}"))
        home.log.close()
        home.archive.compact()
    for path in home.files():
        if path.parent.name != "day=1970-01-06":
            path.write_bytes(b"not parquet")
    home.log.append(batch(5 * DAY_MS, "day5", "new"))
    home.log.close()
    assert home.archive.compact() == (1, 0)
    assert ids(home.log.read("price", 5 * DAY_MS, 6 * DAY_MS)) == ["a5", "day5", "z5", "new"]


def test_open_segments_of_the_living_are_left_alone_and_those_of_the_dead_are_not(home: Home) -> None:
    other = home.writer("w2")
    other.append(batch(1, "mine"))
    assert home.archive.compact() == (0, 0)
    script = (
        "import sys; from test_archive import *; Home(Path(sys.argv[1])).writer('w3').append(batch(2, 'last words'))"
    )
    subprocess.run(
        [sys.executable, "-c", script + "; os.kill(os.getpid(), 9)", home.root], cwd=Path(__file__).parent, check=False
    )
    assert ids(home.log.read("price", 0, 9)) == ["mine", "last words"]
    assert home.archive.compact() == (1, 0)
    assert ids(home.log.read("price", 0, 9)) == ["mine", "last words"]
    other.append(batch(3, "still here"))
    assert ids(home.log.read("price", 0, 9)) == ["mine", "last words", "still here"]
    other.close()


def test_files_become_few_and_what_nobody_needs_goes(home: Home) -> None:
    for i in range(4):
        home.log.append(batch(i, f"row{i}"))
        home.log.append(batch(2 * DAY_MS + i, f"today{i}"))
        home.log.close()
        home.archive.compact()
    left = home.files()[0].with_name("left-by-a-crash.parquet")
    left.write_bytes(b"half")
    mine = home.root / "tables" / "datasets" / "price"
    mine.mkdir(parents=True)
    (mine / "a-version.parquet").write_bytes(b"not of the log")
    assert len(home.files()) == 9
    home.archive.tidy(date(1970, 1, 3))
    log = DeltaTable(home.root / "tables" / "predictions" / "price")
    assert len(log.file_uris()) == 1 + 4  # the day that is over
    assert len(home.files()) == 10  # a reader may be at the old ones
    for path in (left, mine / "a-version.parquet"):
        os.utime(path, (0, 0))
    home.archive.tidy(date(1970, 1, 3))
    assert not left.exists()
    assert len(home.files()) == 9
    assert (mine / "a-version.parquet").exists()
    log.update_incremental()
    before = log.version()
    home.archive.tidy(date(1970, 1, 3))  # there is nothing to do, and nothing to write down
    log.update_incremental()
    assert log.version() == before
    assert ids(home.log.read("price", 0, 9 * DAY_MS)) == [f"{day}{i}" for i in range(4) for day in ("row", "today")]


def test_the_oldest_days_go_with_their_labels(home: Home) -> None:
    for day in range(4):
        home.log.append(batch(day * DAY_MS, f"p{day}"))
        home.log.append(batch(day * DAY_MS, f"f{day}", model="fraud"))
    home.labels.append(LabelBatch(["p0"], ["yes"], [7]))  # received today: it stays
    home.log.close()
    home.labels.close()
    home.archive.compact()
    days = home.archive.days()
    assert [day.toordinal() - date(1970, 1, 1).toordinal() for day in days][:4] == [0, 1, 2, 3]
    assert min(days.values()) > 0
    for _ in range(2):
        home.archive.remove(date(1970, 1, 3))
        assert ids(home.log.read("price", 0, 9 * DAY_MS)) == ["p2", "p3"]
        assert ids(home.log.read("fraud", 0, 9 * DAY_MS)) == ["f2", "f3"]
    assert home.labels.read(0, 9).height == 1
    assert next(iter(home.archive.days())) == date(1970, 1, 3)
