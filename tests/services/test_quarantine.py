"""A column that breaks upstream: named, quarantined, and well again."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import polars as pl
import pytest
from watching import MODEL, Log, World

from homeostat.domain.errors import NotFound, Refused
from homeostat.domain.event import Event
from homeostat.domain.gate import Verdict
from homeostat.domain.monitor import Alert
from homeostat.domain.units import DAY_MS
from homeostat.engines.drift.profile import PREDICTION
from homeostat.services import quarantine
from homeostat.services.held import quarantined
from world import Crash

BREAK = 36
"""The day on which the amount sticks, for four days in which half of the answers are wrong."""


def lived(restarts: bool = False) -> World:
    world = World()
    for day in range(30, 44):
        if restarts:
            world.restart()
        broken = BREAK <= day < BREAK + 4
        world.day(0.5 if broken else 0.1, 0.0, broken)
    return world


@pytest.fixture(scope="module")
def world() -> World:
    return lived()


def test_the_column_is_the_one_cause_that_is_named(world: World) -> None:
    opened, closed = world.journal.read(MODEL, "alert.")
    assert (opened.kind, opened.subject, opened.at_ms) == ("alert.opened", "broken amount", (BREAK + 1) * DAY_MS)
    assert opened.text.startswith("amount is stuck: it has been 0.125 for 96 rows")
    assert world.log.find(opened.body["example"])["inputs"][0] == {"hour": 0, "amount": 0.125}
    assert (closed.kind, closed.at_ms) == ("alert.closed", (BREAK + 5) * DAY_MS)


def test_its_rows_are_held_and_what_they_did_is_not_the_model_s_fault(world: World) -> None:
    (fault,) = quarantined(world.journal, MODEL).values()
    assert (fault.column, fault.from_ms) == ("amount", BREAK * DAY_MS)
    assert fault.until_ms is not None
    assert (BREAK + 4) * DAY_MS - DAY_MS // 96 <= fault.until_ms <= (BREAK + 4) * DAY_MS
    performance = world.performances.now()
    assert performance is not None
    assert performance.change.verdict is Verdict.OK
    assert performance.change.n == (13 - 4) * 96
    assert world.kinds("trigger.") == []


def test_drift_that_was_told_before_the_fault_was_named_is_no_second_cause() -> None:
    world = World()
    for _ in range(30, BREAK):
        world.day()
    begun, other = world.clock.now_ms() + 1, world.clock.now_ms() - 1
    told = Alert("", "amount drifted", "it moved", begun, subject="inputs amount", columns=("amount", PREDICTION))
    world.alerts.raised(replace(told, window_rows=500))
    both = replace(told, subject="inputs amount, hour", columns=("amount", "hour"), window_rows=500)
    world.alerts.raised(both)
    world.alerts.raised(replace(told, subject="inputs amount of before", opened_ms=other, window_rows=500))
    world.day(stuck=True)
    assert [one.subject for one in world.alerts.open()] == [
        "inputs amount, hour",  # the hour is not broken
        "inputs amount of before",  # it drifted before it broke
        "broken amount",
    ]
    assert world.journal.read(MODEL, "alert.closed")[0].text == "amount drifted: no cause of its own, but a fault: A4"


def test_a_restart_changes_no_outcome(world: World) -> None:
    assert lived(restarts=True).journal.read(MODEL) == world.journal.read(MODEL)


@pytest.mark.parametrize("days", [1, 5])
def test_a_crash_before_any_write_changes_no_outcome(days: int) -> None:
    """On the day that it breaks, and on the one that it is well again."""

    def life(crash_at: int) -> tuple[list[Event], int]:
        world = World()
        for _ in range(30, BREAK):
            world.day()
        told = Alert("", "amount drifted", "it moved", world.clock.now_ms() + 1, subject="inputs amount")
        world.alerts.raised(replace(told, columns=("amount",), window_rows=500))
        for day in range(1, days):
            world.day(stuck=day < 5)
        append, watch, writes = world.journal.append, world.monitors.watch, count()

        def dying(event: Event) -> None:
            if next(writes) == crash_at:
                raise Crash
            append(event)

        def surviving() -> None:
            try:
                watch()
            except Crash:
                world.restart()
                world.monitors.watch()

        world.journal.append = dying  # type: ignore[method-assign]
        world.monitors.watch = surviving  # type: ignore[assignment, method-assign]
        world.day(stuck=days < 5)
        return list(world.journal.read(MODEL)), next(writes)

    whole, writes = life(-1)
    assert {event.kind for event in whole} >= {"data.quarantined", "alert.closed"}
    for crash_at in range(writes):
        assert life(crash_at)[0] == whole, crash_at


def test_a_person_lets_the_column_pass_and_it_is_not_called_broken_again() -> None:
    world = World()
    for day in range(30, 36):
        world.day(stuck=day >= 33)
    (alert,) = world.alerts.open()
    with pytest.raises(NotFound, match="A7"):
        world.quarantine.accept("A7", "ada", "")
    accepted = world.quarantine.accept(alert.name, "ada", "one tariff from now on")
    assert accepted.closed_ms == world.clock.now
    assert quarantined(world.journal, MODEL) == {}
    for _ in range(3):
        world.restart()
        world.day(stuck=True)
    assert [one.kind for one in world.alerts.open()] == ["inputs"]  # it did drift
    with pytest.raises(Refused):
        world.quarantine.accept("A2", "ada", "")
    assert world.journal.read(MODEL, "data.quarantined")[-1].text.endswith("A1 be learned from: one tariff from now on")


def test_a_unit_that_callers_changed_is_named_though_every_request_is_refused() -> None:
    world = World()
    for day in range(30, 36):
        world.day(cents=day >= 34)
    (alert,) = world.alerts.open()
    assert (alert.title, alert.opened_ms) == ("amount has another unit", 35 * DAY_MS)
    assert alert.evidence.startswith("its values look multiplied by 100")
    world.day()
    assert world.alerts.open() == ()


def test_of_too_many_rows_a_sample_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three days of 96 rows so many as 150 are a half: the same ids each time, and the alert says so."""
    monkeypatch.setattr(quarantine, "MOST", 150)
    monkeypatch.setattr(quarantine, "PROBE", 1.0)
    world, sizes = World(), list[int]()

    class Spied(Log):
        def read(self, model: str, start_ms: int, end_ms: int, inputs: bool = True, share: float = 1.0) -> pl.DataFrame:
            found = world.log.read(model, start_ms, end_ms, inputs, share)
            sizes.append(found.height if inputs else 0)
            return found

    world.quarantine.log = Spied()
    for day in range(30, BREAK + 3):
        world.day(stuck=day >= BREAK)
    (alert,) = world.alerts.open()
    assert alert.title == "amount is stuck"
    assert "(a sample by id, " in alert.evidence
    (fault,) = quarantined(world.journal, MODEL).values()
    assert BREAK * DAY_MS <= fault.from_ms <= BREAK * DAY_MS + DAY_MS // 8
    assert 0 < max(sizes) <= 180
