"""`kill -9` of the control plane at random moments of a life: the outcome is the same.

A few kills here; all of them by hand: KILLS=50 pytest tests/services/test_killed_control.py
"""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
from killed_control import system
from lives import A_DAY, CHANGE, DAYS, POLICY, START_MS, TURNS_MS, Outcome, named, outcome, serve

import projects
from homeostat.adapters.source import Source
from homeostat.adapters.tracking import MlflowTracker
from homeostat.domain.bundle import Version
from homeostat.domain.dataset import EVENT_MS
from homeostat.stores.predictions import SegmentLabels, SegmentLog

KILLS = int(os.environ.get("KILLS", "3"))


@dataclass
class Child:
    """The control plane's process. `turn` waits until it is done, or kills it. `missed`: kills that came after the end
    of their turn, for no two processes are equally quick; the next turn has them, twice as early."""

    root: Path
    process: subprocess.Popen[bytes] | None = None
    killed: int = 0
    missed: list[float] = field(default_factory=list)

    def turn(self, now_ms: int, kills: Sequence[float]) -> float:
        """`kills`: so many seconds after its beginning; each ends one attempt. → how long the last one took."""
        due, self.missed = [*self.missed, *kills], []
        for number, after in enumerate(due):
            self._ask(now_ms)
            if self._said(after) is not None:
                self.missed = [one / 2 for one in due[number:]]
                return after
            self.kill()
            self.killed += 1
        began = time.perf_counter()
        self._ask(now_ms)
        assert self._said(120) == b"done\n"
        return time.perf_counter() - began

    def kill(self) -> None:
        if self.process is not None:
            with self.process:  # closes its pipes and waits
                self.process.send_signal(signal.SIGKILL)
            self.process = None

    def _ask(self, now_ms: int) -> None:
        if self.process is None:
            script = Path(__file__).with_name("killed_control.py")
            command = [sys.executable, str(script), str(self.root), str(START_MS)]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert self._said(120) == b"ready\n"
        assert self.process.stdin is not None
        self.process.stdin.write(f"{now_ms}\n".encode())
        self.process.stdin.flush()

    def _said(self, within: float) -> bytes | None:
        """The next line, None when none comes in time."""
        assert self.process is not None
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], within)
        return self.process.stdout.readline() if ready else None


@dataclass
class Life:
    """The data plane and the world around it: rows at their times, labels a day later."""

    root: Path
    took: list[float] = field(default_factory=list)

    def live(self, kills: Mapping[int, Sequence[float]]) -> int:
        """`kills`: turn → seconds after its beginning. → how often the control plane was killed."""
        plane = system(self.root, "plane", START_MS)
        rows = Source(self.root, plane.policy.data, plane.policy.task)().filter(pl.col(EVENT_MS) >= START_MS)
        with child(self.root) as control:
            for turn, now_ms in enumerate(TURNS_MS):
                serve(plane, rows, now_ms)
                self.took.append(control.turn(now_ms, kills.get(turn, ())))
                plane.engine.refresh()
        for log in (plane.stores.log, plane.stores.labels):
            assert isinstance(log, SegmentLog | SegmentLabels)
            log.close()
        return control.killed

    def outcome(self) -> Outcome:
        return outcome(system(self.root, "reader", START_MS).stores, self._versions())

    def _versions(self) -> Sequence[Version]:
        """From a copy: in this process MLflow keeps its connections by the database's name, and would go on reading the
        deleted file of the life before."""
        with tempfile.TemporaryDirectory() as name:
            copy = Path(name) / "mlflow.db"
            with (
                closing(sqlite3.connect(self.root / ".homeostat" / "mlflow.db")) as now,
                closing(sqlite3.connect(copy)) as then,
            ):
                now.backup(then)
            return MlflowTracker(f"sqlite:///{copy}", Path(name)).versions("cards")


@contextmanager
def child(root: Path) -> Iterator[Child]:
    made = Child(root)
    try:
        yield made
    finally:
        made.kill()


def moments(took: Sequence[float], seed: int) -> dict[int, list[float]]:
    """Turns by chance, and in each a moment by chance. In the first turn the first champion is trained: that the state
    folder begins with."""
    chance = random.Random(seed)
    found: dict[int, list[float]] = {}
    for _ in range(KILLS):
        turn = chance.randrange(1, len(took))
        found.setdefault(turn, []).append(chance.random() * took[turn])
    return found


def test_killed_at_random_moments_the_outcome_is_the_same(tmp_path: Path) -> None:
    root = projects.make(tmp_path / "cards", projects.rows(DAYS, A_DAY, CHANGE), POLICY)
    state, kept = root / ".homeostat", tmp_path / "kept"
    with child(root) as control:
        control.turn(START_MS, ())
    shutil.copytree(state, kept)
    undisturbed = Life(root)
    assert undisturbed.live({}) == 0
    expected = undisturbed.outcome()
    assert {"training.done", "release.promoted", "probe.made", "trigger.declined"} <= set(expected.kinds())
    shutil.rmtree(state)
    shutil.copytree(kept, state)
    disturbed = Life(root)
    killed = disturbed.live(moments(undisturbed.took, seed=7))
    assert killed >= KILLS // 2  # one that is missed in the last turns has no next one
    assert named(disturbed.outcome()) == named(expected)
