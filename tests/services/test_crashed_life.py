"""A crash before any write of a control plane's whole life (probes, training, registration, release, remedies) changes
no outcome.

A new process knows nothing but what was written: a crash at any other line is as one before the next write. Here the
turn in which a training is done and its release begins; every turn by hand:
TURNS=all pytest tests/services/test_crashed_life.py
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
from lives import A_DAY, CHANGE, DAYS, POLICY, START_MS, TURNS_MS, named, outcome, serve

import projects
from homeostat.adapters.clock import SimulatedClock
from homeostat.adapters.code import ProjectCode
from homeostat.adapters.source import Source
from homeostat.config import read_policy
from homeostat.domain.dataset import EVENT_MS
from homeostat.serving import messages
from homeostat.wiring.stores import Stores, in_memory
from homeostat.wiring.system import System
from world import Calls, Crash, Port

WRITES = {"write", "append", "put", "save", "publish", "log_run", "register", "alias"}
STEP = 1 if os.environ.get("TURNS") == "all" else 9


@dataclass
class Small:
    """The life of test_killed_control.py in memory."""

    root: Path

    def __post_init__(self) -> None:
        self.policy = read_policy(self.root)
        rows = Source(self.root, self.policy.data, self.policy.task)()
        self.before, self.live = rows.filter(pl.col(EVENT_MS) < START_MS), rows.filter(pl.col(EVENT_MS) >= START_MS)

    def system(self, stores: Stores, now_ms: int) -> System:
        clock, ids = SimulatedClock(now_ms), messages.ids("small")
        return System(self.policy, ProjectCode(self.root), lambda: self.before, stores, clock, ids)

    def turned(self, stores: Stores, now_ms: int, crash_at: int = -1) -> tuple[list[str], Sequence[str]]:
        """One turn over a copy of the stores, by a process that dies before a port call, and one that comes after it.
        → what it left, and the port calls of the first."""
        calls = Calls(crash_at=crash_at)
        copy = copied(stores)
        try:
            turn(self.system(watched(copy, calls), now_ms))
        except Crash:
            turn(self.system(copy, now_ms))
        versions = [str(one) for one in self.system(copy, now_ms).data.versions()]
        return [*left(copy), *versions], calls.names


def left(stores: Stores) -> list[str]:
    return named(outcome(stores, stores.tracker.versions("cards")))


def turn(system: System) -> None:
    system.control.begin()
    system.control.turn()


WRITTEN = ("tables", "blobs", "cache", "journal", "rollouts", "router", "tracker")
"""The stores that a control plane writes to, where the policy makes no labels of events."""


def copied(stores: Stores) -> Stores:
    return replace(stores, **{name: deepcopy(getattr(stores, name)) for name in WRITTEN})


def watched(stores: Stores, calls: Calls) -> Stores:
    return replace(stores, **{name: Port(getattr(stores, name), calls) for name in WRITTEN})


def test_a_crash_before_any_write_changes_no_outcome(tmp_path: Path) -> None:
    small = Small(projects.make(tmp_path / "cards", projects.rows(DAYS, A_DAY, CHANGE), POLICY))
    stores = in_memory()
    system = small.system(stores, START_MS)
    tried = set[str]()
    for now_ms in TURNS_MS:
        serve(system, small.live, now_ms)
        kept = copied(stores)
        turn(system)
        system.engine.refresh()
        expected, names = small.turned(kept, now_ms)
        assert expected[: len(left(stores))] == left(stores)  # a process that was never restarted
        if STEP > 1 and "register" not in names:
            continue
        at = [call for call, name in enumerate(names) if name in WRITES]
        for call in at[::STEP]:
            assert small.turned(kept, now_ms, call)[0] == expected, f"before call {call}, {names[call]}"
            tried.add(names[call])
    assert tried >= ({"put", "append", "save"} if STEP > 1 else WRITES)
