"""What is removed from the logs, when, and who is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta

import pytest

from homeostat.compact import CLEAN_MS, Compacted, Compactor
from homeostat.domain.errors import Refused
from homeostat.domain.policy import DataPolicy, LogPolicy, Policy, TrainPolicy
from homeostat.domain.schema import Task
from homeostat.domain.units import DAY_MS
from homeostat.services.upkeep import Upkeep
from homeostat.stores.memory import MemoryJournal

TODAY = 400
POLICY = Policy(
    "price",
    Task.BINARY,
    DataPolicy("d.csv", "y", label_horizon=5 * DAY_MS),
    TrainPolicy("accuracy", window=30 * DAY_MS),
    log=LogPolicy(retain=100 * DAY_MS, max_size=10**6),
)


def day(number: int) -> date:
    return date(1970, 1, 1) + timedelta(number)


class Clock:
    now = TODAY * DAY_MS + 1

    def now_ms(self) -> int:
        return self.now

    def timer_ns(self) -> int:
        return 0


class Days:
    """An archive without rows: 10 bytes a day. `dies` at the next removal."""

    def __init__(self) -> None:
        self.sizes = {day(i): 10 for i in range(TODAY - 150, TODAY + 1)}
        self.dies, self.full, self.tidied = False, False, 0

    def compact(self) -> tuple[int, int]:
        if self.full:
            raise OSError(28, "No space left on device")
        return 3, 0

    def days(self) -> Mapping[date, int]:
        return self.sizes

    def remove(self, before: date) -> None:
        if self.dies:
            self.dies = False
            raise KeyboardInterrupt
        self.sizes = {one: size for one, size in self.sizes.items() if one >= before}

    def tidy(self, today: date) -> None:
        assert today == day(TODAY)
        self.tidied += 1


class World:
    def __init__(self, policy: Policy = POLICY) -> None:
        self.archive, self.journal, self.clock = Days(), MemoryJournal(), Clock()
        self.upkeep = Upkeep(policy, self.archive, self.journal, self.clock)
        self.failed: list[str] = []
        self.large: list[str] = []
        self.compactor = Compactor(
            self.upkeep,
            lambda error: self.failed.append(str(error or "")),
            lambda error: self.large.append(str(error or "")),
            self.clock,
        )

    def first(self) -> int:
        return (min(self.archive.sizes) - day(0)).days


def policy(window: int = 30, **log: int) -> Policy:
    rules = replace(POLICY.log, **log)
    return replace(POLICY, train=replace(POLICY.train, window=window * DAY_MS), log=rules)


def test_days_that_are_too_old_go_and_the_journal_says_so() -> None:
    world = World()
    world.upkeep.clean()
    assert world.first() == TODAY - 100
    (event,) = world.journal.read("price", "log.removed")
    assert event.text == f"Log: {day(250)} to {day(299)} removed, older than 100 d."
    assert event.body == {"from_ms": 250 * DAY_MS, "until_ms": 300 * DAY_MS}
    world.upkeep.clean()
    assert len(world.journal.read("price")) == 1


def test_it_is_said_before_it_is_done_and_said_once() -> None:
    world = World()
    world.archive.dies = True
    with pytest.raises(KeyboardInterrupt):
        world.upkeep.clean()
    assert len(world.journal.read("price", "log.removed")) == 1
    world.upkeep.clean()
    assert world.first() == TODAY - 100
    assert len(world.journal.read("price")) == 1


@pytest.mark.parametrize(
    ("changes", "first", "over"),
    [
        ({"retain": 0, "max_size": 1_000}, TODAY - 99, 0),  # 1,000 bytes are 100 days
        ({"retain": 0}, TODAY - 150, 0),
        ({"retain": DAY_MS}, TODAY - 36, 0),  # the window of training, the label horizon, and today
        ({"max_size": 50}, TODAY - 36, 320),
        ({"window": 0, "max_size": 50}, TODAY - 150, 1_460),  # training reads all there is
    ],
)
def test_what_training_reads_is_kept(changes: dict[str, int], first: int, over: int) -> None:
    world = World(policy(**changes))
    made = world.upkeep.clean()
    assert (world.first(), made.over) == (first, over)


def test_the_compactor_tells_of_its_troubles_and_of_their_end() -> None:
    world = World(policy(max_size=50))
    assert world.compactor.turn() == Compacted(3, "older than 100 d and over 50 B")
    assert world.failed == [""]
    assert "320 B above log.max_size" in world.large[-1]
    world.archive.full = True
    with pytest.raises(Refused, match="No space left on device"):
        world.compactor.turn()
    assert "No space left" in world.failed[-1]
    world.archive.full = False
    world.archive.sizes = {day(TODAY): 1}
    assert world.compactor.turn() == Compacted(3, "")
    assert world.failed[-1] == ""
    assert (world.archive.tidied, len(world.large)) == (1, 1)
    world.clock.now += CLEAN_MS
    world.compactor.turn()
    assert (world.archive.tidied, world.large[-1]) == (2, "")
