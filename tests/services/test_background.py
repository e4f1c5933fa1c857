"""A challenger that is kept training in the background: real training, real serving code, on a simulated clock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
from lives import A_DAY, CHANGE, DAYS, START_MS, TURNS_MS, serve

import projects
from homeostat.adapters.clock import SimulatedClock
from homeostat.adapters.code import ProjectCode
from homeostat.adapters.source import Source
from homeostat.config import read_policy
from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.rollout import Arm, Rollout, Status
from homeostat.domain.units import DAY_MS
from homeostat.serving import messages
from homeostat.terminal import out, standing
from homeostat.wiring.stores import in_memory
from homeostat.wiring.system import System

POLICY = projects.POLICY.replace("window: 20d, holdout: 3d", "window: 5d, holdout: 1d").replace("0.05}", "0.5}") + (
    "experiments: {checkout: {metric: {signal: bought, bounds: [0, 1]}}}\n"
)


def lived(root: Path, when: str, change: int | None, turns: int, look: Callable[[System], object] = id) -> System:
    """The first turns of the life of `lives` under a policy that retrains by these reasons; `look` comes after each."""
    text = POLICY.replace("[performance, {schedule: 10d}]", when)
    projects.make(root, projects.rows(DAYS, A_DAY, change), text)
    policy = read_policy(root)
    rows = Source(root, policy.data, policy.task)()
    before, live = rows.filter(pl.col(EVENT_MS) < START_MS), rows.filter(pl.col(EVENT_MS) >= START_MS)
    clock, ids = SimulatedClock(START_MS), messages.ids("small")
    system = System(policy, ProjectCode(root), lambda: before, in_memory(), clock, ids)
    for now_ms in TURNS_MS[:turns]:
        serve(system, live, now_ms)
        system.control.begin()
        system.control.turn()
        system.engine.refresh()
        look(system)
    return system


def releases(system: System) -> list[Rollout]:
    return list(system.releases.history())[1:]


def test_a_challenger_of_the_background_takes_over_from_a_champion_that_the_world_has_left(tmp_path: Path) -> None:
    """No cause is known to the policy, and no person is asked."""
    system = lived(tmp_path / "cards", "[{background: 5%}]", CHANGE, 24)
    made = releases(system)
    promoted = [one for one in made if one.status is Status.PROMOTED]
    assert promoted
    assert promoted[0].started_ms > START_MS + (CHANGE - 10) * DAY_MS
    assert all(one.background for one in made)
    fired = system.stores.journal.read("cards", "trigger.fired")
    assert {event.body["kind"] for event in fired} == {"background"}
    assert fired[0].text == (
        f"a challenger in the background: {A_DAY} labels since the champion was trained; "
        "0 % of 5 % of a core used in the last 7 d"
    )
    assert not system.stores.journal.read("cards", "release.waiting")
    steps = [
        e.body["step"] for e in system.stores.journal.read("cards", "release.", promoted[0].id) if "step" in e.body
    ]
    assert steps.index("shadow") < steps.index("50 %")


def test_one_that_is_never_better_is_replaced_and_leaves_no_trace_on_other_causes(tmp_path: Path) -> None:
    """A newer one takes its place; a schedule too, which neither waits for it nor has a cooldown because of it."""
    shown: list[str] = []

    def look(system: System) -> None:
        with out.capture() as said:
            standing(system.releases.status(), system.triggers.spent())
        shown.append(said.get())

    system = lived(tmp_path / "cards", "[{background: 5%}, {schedule: 9d}]", None, 20, look)
    made, journal = releases(system), system.stores.journal
    background = [one for one in made if one.background]
    assert len(background) >= 2
    assert {one.status for one in background if one.ended_ms} == {Status.SUPERSEDED}
    assert background[0].reason.startswith("Not shown to be better, so a newer one may come: quality is not settled")
    scheduled = next(one for one in made if not one.background)
    assert scheduled.started_ms - START_MS == 9 * DAY_MS
    gone = background[[one.started_ms < scheduled.started_ms for one in background].count(True) - 1]
    assert (gone.reason, gone.ended_ms) == (f"Superseded by release {scheduled.id}.", scheduled.started_ms)
    events = [event.kind for event in journal.read("cards")]
    assert not {"trigger.held", "release.waiting", "release.rolled_back"} & set(events)
    assert not journal.read("cards", "alert.")
    line = next(text for text in shown if "version 2" in text)
    assert "Release R2, version 2, a challenger trained in the background: running." in line
    assert "Background challengers: 0 % of 5 % of a core used in the last 7 d." in line


def test_an_experiment_takes_its_place(tmp_path: Path) -> None:
    """Nobody has to end the challenger first; none is trained while the experiment is under way."""
    asked: list[Rollout] = []

    def look(system: System) -> None:
        standing = system.releases.status()
        if not asked and standing and standing.seen.shadow and standing.rollout.background:
            asked.append(standing.rollout)
            system.experiments.start("checkout", [standing.rollout.candidate.number], "ann")
            system.experiments.turn()
            assert not system.stores.router.read().experiments

    system = lived(tmp_path / "cards", "[{background: 5%}]", None, 6, look)
    gone = releases(system)[-1]
    assert (gone.id, gone.status, gone.reason) == (asked[0].id, Status.SUPERSEDED, "Superseded by experiment E1.")
    found = system.experiments.status()
    assert found and found.experiment.ended_ms is None
    routing = system.stores.router.read()
    assert routing.experiments["cards"].candidate == Arm(gone.candidate.number, gone.candidate.bundle)
    assert routing.routes["cards"].candidate is None
