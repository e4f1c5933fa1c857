"""`kill -9` of the control plane at random moments of a life: the outcome is the same.

A few kills here; all of them by hand: KILLS=50 pytest tests/services/test_killed_control.py
"""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

import msgspec
import polars as pl
from killed_control import system

import projects
from homeostat.adapters.source import Source
from homeostat.domain.bundle import Version
from homeostat.domain.dataset import ENTITY, EVENT_MS
from homeostat.domain.event import LOOK, Event
from homeostat.domain.rollout import Rollout, Route
from homeostat.domain.units import DAY_MS, HOUR_MS
from homeostat.serving.messages import Request
from homeostat.stores.predictions import SegmentLabels, SegmentLog
from homeostat.wiring.system import System

KILLS = int(os.environ.get("KILLS", "3"))
WARMUP, DAYS, CHANGE, A_DAY = 10, 22, 13, 72
TURN_MS = 12 * HOUR_MS
START_MS = projects.START_MS + WARMUP * DAY_MS
CHANGES = {
    "margin: 0.05}": "margin: 0.5}",
    "max_hold: 3d": "max_hold: 3d, on_unknown: best_estimate, min_requests: 20",
    "10d}], cooldown: 4d": "2d}], cooldown: 1d, only_if_it_helps: true, remedies: [previous, refit]",
}
POLICY = reduce(lambda text, change: text.replace(*change), CHANGES.items(), projects.POLICY)


@dataclass
class Child:
    """The control plane's process. `turn` waits until it is done, or kills it."""

    root: Path
    process: subprocess.Popen[bytes] | None = None
    killed: int = 0

    def turn(self, now_ms: int, kills: Sequence[float]) -> float:
        """`kills`: so many seconds after its beginning; each ends one attempt. → how long the last one took."""
        for after in kills:
            self._ask(now_ms)
            if self._said(after) is not None:
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


@dataclass(frozen=True)
class Outcome:
    """All that a life leaves behind, but for looks, which are told now and then."""

    journal: tuple[Event, ...]
    routes: Mapping[str, Route]
    releases: tuple[Rollout, ...]
    versions: tuple[Version, ...]

    def kinds(self) -> list[str]:
        return [event.kind for event in self.journal]


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
            for turn, now_ms in enumerate(range(START_MS, START_MS + (DAYS - WARMUP) * DAY_MS, TURN_MS)):
                self._serve(plane, rows, now_ms)
                self.took.append(control.turn(now_ms, kills.get(turn, ())))
                plane.engine.refresh()
        for log in (plane.stores.log, plane.stores.labels):
            assert isinstance(log, SegmentLog | SegmentLabels)
            log.close()
        return control.killed

    def _serve(self, plane: System, rows: pl.DataFrame, now_ms: int) -> None:
        served = rows.with_row_index("row").filter(pl.col(EVENT_MS).is_between(now_ms - TURN_MS, now_ms - 1))
        for row in served.drop(ENTITY, "fraud").iter_rows(named=True):
            plane.clock.move_to(row.pop(EVENT_MS))
            row["id"] = f"r{row.pop('row')}"
            body = {"records": [row]}
            answer = plane.engine.answer([Request("POST", "/v1/models/cards/predict", msgspec.json.encode(body))])[0]
            assert answer.status == 200, answer.body
            plane.engine.shadow()
        plane.clock.move_to(now_ms)
        until = now_ms - DAY_MS
        due = rows.with_row_index("row").filter(pl.col(EVENT_MS).is_between(until - TURN_MS, until - 1))
        labels = [{"id": f"r{row}", "label": label} for row, label in due.select("row", "fraud").iter_rows()]
        if labels:
            asked = Request("POST", "/v1/feedback", msgspec.json.encode({"labels": labels}))
            assert plane.engine.answer([asked])[0].status < 300

    def outcome(self) -> Outcome:
        stores = system(self.root, "reader", START_MS).stores
        events = tuple(event for event in stores.journal.read("cards") if event.kind != LOOK)
        routes, releases = stores.router.read().routes, stores.rollouts.all("cards")
        return Outcome(events, routes, tuple(releases), tuple(stores.tracker.versions("cards")))


@contextmanager
def child(root: Path) -> Iterator[Child]:
    made = Child(root)
    try:
        yield made
    finally:
        made.kill()


def named(outcome: Outcome) -> list[str]:
    """Line by line, bundles by their runs: a bundle's report tells which steps were cached, so that its digest depends
    on a kill in the middle of the training; run, version and all that was decided do not."""
    lines = [*map(str, outcome.journal), str(outcome.routes), *map(str, outcome.releases), *map(str, outcome.versions)]
    for version in outcome.versions:
        for digest in (version.bundle, version.bundle[:12]):
            lines = [line.replace(digest, version.run) for line in lines]
    return lines


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
    assert killed >= KILLS // 2  # a moment may come after the turn's end: no two processes are equally quick
    assert named(disturbed.outcome()) == named(expected)
