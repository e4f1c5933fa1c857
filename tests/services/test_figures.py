"""The loop in numbers, from what is recorded."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from homeostat.domain.event import Event
from homeostat.domain.feedback import FeedbackPolicy
from homeostat.domain.figures import LogFigures
from homeostat.domain.policy import ReleasePolicy
from homeostat.domain.units import DAY_MS, MINUTE_MS
from homeostat.engines.feedback import CLEARED, SUSPECTED
from homeostat.services.figures import Gauges
from homeostat.stores import health
from homeostat.stores.segments import CLOSED
from world import GOOD, HOUR_MS, MODEL, World, right


def gauges(world: World) -> Gauges:
    ports = (world.journal, world.rollouts, world.router, world.labels, world)
    return Gauges(world.policy, *ports, lambda: LogFigures(lag_ms=7))


def test_a_release_under_way() -> None:
    world = World(ReleasePolicy(steps=("10%", "100%")), per_day=4_800)
    world.promote_first(GOOD)
    world.live(2 * DAY_MS)
    figures = gauges(world).read()
    assert (figures.release, figures.weights, figures.lanes) == ("R1", {1: 1.0}, {})
    world.releases.start(world.version(2, right(0.91)))
    world.live(6 * HOUR_MS)
    figures = gauges(world).read()
    assert (figures.release, figures.weights) == ("R2", {1: 0.9, 2: 0.1})
    assert {status: n for status, n in figures.releases.items() if n} == {"promoted": 1, "running": 1}
    standing = world.releases.status()
    assert standing is not None
    assert figures.lanes.keys() == {lane.name for lane in standing.seen.lanes}
    assert set(figures.lanes.values()) <= {"ok", "harm", "unknown", "invalid"}
    assert figures.log.lag_ms == 7


def test_alerts_and_trainings() -> None:
    world = World()

    def say(kind: str, subject: str) -> None:
        key = f"{kind}:{subject}:{len(world.journal.read(MODEL))}"
        world.journal.append(Event(world.now, MODEL, kind, key, subject, "", {}))

    assert gauges(world).read().weights == {}
    for subject in (
        "inputs drifted (1 d window)",
        "inputs drifted (7 d window)",
        "log not written",
        "the moon is full",
    ):
        say("alert.opened", subject)
    say("alert.closed", "log not written")
    say("training.done", "a")
    say("training.failed", "b")
    say("training.failed", "c")
    figures = gauges(world).read()
    assert {kind: n for kind, n in figures.alerts.items() if n} == {"inputs": 2, "other": 1}
    assert figures.trainings == {"done": 1, "failed": 2}


def test_sources_whose_labels_are_held_back() -> None:
    world = World()
    world.policy = replace(world.policy, feedback=FeedbackPolicy(sources={"clerk": 1.0}))

    def say(kind: str, source: str, until: int | None = None) -> None:
        body = {"source": source, "from_ms": 5, "until_ms": until, "reason": "", "held": True}
        world.journal.append(Event(world.now, MODEL, kind, f"{kind}:{source}:{until}", source, "", body))

    assert gauges(world).read().held == {"clerk": False}
    say(SUSPECTED, "clerk")
    say(SUSPECTED, "crowd")
    say(CLEARED, "crowd", 9)
    assert gauges(world).read().held == {"clerk": True, "crowd": False}


def test_the_newest_label_is_looked_for_once_a_minute() -> None:
    world = World()
    reader = gauges(world)
    first = world.now - 2 * DAY_MS
    assert reader.read().label_ms is None
    world.labels.add([("a", "1", first)])
    assert reader.read().label_ms is None, "it was looked for just now"
    world.now += MINUTE_MS
    assert reader.read().label_ms == first
    world.labels.add([("b", "1", world.now - 5)])
    world.now += MINUTE_MS
    assert reader.read().label_ms == world.now - MINUTE_MS - 5
    world.now += 30 * DAY_MS
    assert reader.read().label_ms == world.now - 30 * DAY_MS - MINUTE_MS - 5, "an old one is not forgotten"


def test_the_log_in_numbers(tmp_path: Path) -> None:
    assert health.figures(tmp_path) == LogFigures(failing=dict.fromkeys(health.CAUSES, False))
    own = health.Health(tmp_path / "worker-1", health.WRITING, strict=False)
    own.begin()
    own.bad(OSError(28, "No space left on device"), lost=5)
    for name, age_s in (("predictions-1", 3_600), ("labels-1", 60)):
        path = tmp_path / "worker-1" / f"{name}{CLOSED}"
        path.write_bytes(b"x" * 100)
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - age_s))
    found = health.figures(tmp_path)
    assert (found.segments, found.bytes, found.lost) == (2, 200, 5)
    assert found.lag_ms // MINUTE_MS == 60
    assert found.failing == {health.WRITING: True, health.COMPACTING: False, health.LARGE: False}
    own.good()
    assert not any(health.figures(tmp_path).failing.values())
