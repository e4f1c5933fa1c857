"""What the compactor counts is what the log holds, whatever it dies of."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from watching import MODEL, POLICY, World

import projects
from homeostat.config import read_policy
from homeostat.domain.gate import Verdict
from homeostat.domain.prediction import LogBatch
from homeostat.domain.rollout import Arm, Route, Routing
from homeostat.domain.units import DAY_MS, HOUR_MS
from homeostat.engines.drift.profile import Profile
from homeostat.services.tallies import Counter, Tellers, counted
from homeostat.serving.messages import Request
from homeostat.stores.archive import SegmentArchive
from homeostat.stores.days import DayTables
from homeostat.stores.predictions import SegmentLog
from homeostat.stores.tallies import SegmentCounts, Tallies
from homeostat.wiring.stores import embedded
from homeostat.wiring.upkeep import compactor

TABLE, START = f"predictions/{MODEL}", 30 * DAY_MS


class Died(Exception):
    """As a `kill -9` there would."""


class Mortal(DayTables):
    """Dies at the commits that `at` names, before or after them."""

    def __init__(self, root: Path, at: dict[int, str]) -> None:
        super().__init__(root)
        self.at, self.commits = at, 0

    def append(self, name: str, rows: pl.DataFrame) -> None:
        self.commits += 1
        fate = self.at.get(self.commits)
        if fate == "before":
            raise Died
        super().append(name, rows)
        if fate == "after":
            raise Died


class Home:
    """Two workers, a compactor that dies, and the model of `watching`."""

    def __init__(self, root: Path, at: dict[int, str]) -> None:
        self.world = World()
        self.tables = Mortal(root / "tables", at)
        self.logs = [SegmentLog(root / "log", name, self.tables) for name in ("w1", "w2")]
        self.tallies = Tallies(root / "tables", self.tables)
        world = self.world
        self.census = Tellers(POLICY, world.router, world.blobs, world.load)
        self.archive = SegmentArchive(root / "log", self.tables, tallies=self.tallies, census=self.census)
        self.counts = SegmentCounts(self.tallies, self.logs[0].waits)
        self.rng = np.random.default_rng(3)
        self.written = 0

    def serve(self, hour: int, rows: int = 30) -> None:
        """Each worker answers some rows of an hour; the second one's first was sent to the first one before."""
        for number, log in enumerate(self.logs):
            at = START + hour * HOUR_MS + int(self.rng.integers(HOUR_MS))
            names = [f"p{self.written + i}" for i in range(rows)]
            self.written += rows - 1 + number
            inputs = {"hour": [hour] * rows, "amount": self.rng.standard_normal(rows).tolist()}
            alike = ([None] * rows, [1] * rows, ["champion"] * rows, ["answer"] * rows, ["ok"] * rows, [9] * rows)
            score = self.rng.random(rows).tolist()
            log.append(LogBatch(MODEL, at, "R1", 0, names, *alike, score, ["1"] * rows, [None] * rows, inputs))
            log.close()

    def compact(self) -> None:
        """Until it lives through it; what else is committed comes between."""
        while True:
            try:
                self.archive.compact()
            except Died:
                self.archive.tidy(date(2030, 1, 1))
            else:
                return

    def from_log(self, start: int, end: int) -> Profile:
        champion = self.world.champions.now()
        assert champion is not None
        counter = Counter(1, champion.bundle, champion.reference, frozenset())
        return counter(self.logs[0].read(MODEL, start, end))

    def from_counts(self, start: int, end: int) -> list[Profile] | None:
        hours = self.counts.read(MODEL, start, end)
        return None if hours is None else counted(list(hours.values()), self.bundle)

    @property
    def bundle(self) -> str:
        return self.world.router.read().routes[MODEL].champion.bundle


@pytest.mark.parametrize("at", [{}, {1: "before", 3: "after", 4: "before", 5: "before", 8: "after"}])
def test_each_row_is_counted_once_whatever_the_compactor_dies_of(tmp_path: Path, at: dict[int, str]) -> None:
    home = Home(tmp_path, at)
    for hour in (0, 0, 1, 2, 1, 5):
        home.serve(hour)
        home.compact()
    hours = home.from_counts(START, START + 6 * HOUR_MS)
    assert hours is not None
    whole = home.from_log(START, START + 6 * HOUR_MS)
    assert whole.rows == home.written
    assert Profile.total(hours).to_bytes() == whole.to_bytes()
    assert len(hours) == 4
    assert home.tables.commits > len(at)
    home.compact()
    assert len(list((tmp_path / "tables" / "tallies").glob("*/*/*/*"))) == 4  # a file an hour


def test_a_window_is_judged_from_the_counts_and_reads_no_row(tmp_path: Path) -> None:
    home = Home(tmp_path, {})
    world = home.world
    world.counted = home.counts
    world.restart()
    for hour in range(24):
        home.serve(hour)
        if hour % 8 == 7:
            home.compact()
    world.clock.now = START + DAY_MS
    world.monitors.watch()
    (event,) = world.journal.read(MODEL, "monitor.drift")
    assert event.body["rows"] == home.written
    assert Profile.from_bytes(world.blobs.get(event.body["profile"])).rows == home.written  # the world's log is empty


def test_rows_on_their_way_are_waited_for_but_not_for_ever(tmp_path: Path) -> None:
    home = Home(tmp_path, {})
    world = home.world
    world.counted = home.counts
    world.restart()
    home.serve(3)
    home.compact()
    home.serve(4)
    world.clock.now = START + DAY_MS
    world.monitors.watch()
    assert not world.journal.read(MODEL, "monitor.drift")
    home.compact()
    world.monitors.watch()
    assert world.journal.read(MODEL, "monitor.drift")[0].body["rows"] == home.written


def later(home: Home) -> None:
    """Another version answers from the middle of hour 1 on."""
    home.world.release("run-2")


def broken(home: Home) -> None:
    """The profile of the version that answers can't be read any more."""
    route = Route("R9", Arm(1, home.world.blobs.put(b"no bundle")))
    home.world.router.publish(Routing(home.world.router.read().version + 1, {MODEL: route}))


@pytest.mark.parametrize("change", [later, broken])
def test_what_was_not_counted_whole_is_not_told(tmp_path: Path, change: Callable[[Home], None]) -> None:
    home = Home(tmp_path, {})
    home.serve(0)
    home.serve(1)
    home.compact()
    change(home)
    home.serve(1)
    home.serve(2)
    home.compact()
    assert home.from_counts(START, START + 2 * HOUR_MS) is None
    assert len(home.logs[0].read(MODEL, START, START + 3 * HOUR_MS)) == home.written  # and none is lost
    if change is later:
        assert home.from_counts(START + 2 * HOUR_MS, START + 3 * HOUR_MS)


def test_a_project_counts_what_it_serves_and_judges_the_day_by_it(tmp_path: Path) -> None:
    """The data plane's segments, the compactor of the project, its monitors: all on disk."""
    root = projects.make(tmp_path / "cards")
    policy = read_policy(root)
    one = projects.system(root, embedded(root, "w1", policy))
    one.control.begin()
    one.control.settle()
    one.engine.refresh()
    day = one.clock.now_ms() // DAY_MS * DAY_MS + DAY_MS
    champion = one.champions.now()
    assert champion is not None
    records = projects.rows(days=1).select(champion.bundle.schema.names).head(24).to_dicts()
    for hour, record in enumerate(records):
        one.clock.move_to(day + hour * HOUR_MS)
        body = msgspec.json.encode({"records": [record, {**record, "hour": "late"}]})
        one.engine.answer([Request("POST", "/v1/models/cards/predict", body)])
        one.engine.answer([Request("POST", "/v1/models/cards/predict", msgspec.json.encode({"records": [record]}))])
    one.stores.log.close()
    compactor(root, policy).turn()
    hours = one.stores.counted.read("cards", day, day + DAY_MS)
    assert hours is not None
    parts = counted(list(hours.values()), champion.arm.bundle)
    assert parts is not None
    assert len(parts) == 24
    whole = Counter(1, champion.bundle, champion.reference, frozenset())(
        one.stores.log.read("cards", day, day + DAY_MS)
    )
    assert Profile.total(parts).to_bytes() == whole.to_bytes()
    one.clock.move_to(day + DAY_MS)
    readings = {(reading.subject, reading.test): reading for reading in one.monitors.watch()}
    assert readings["@prediction", "same scores"].verdict is Verdict.OK
    assert readings["hour", "refused"].verdict is Verdict.HARM
