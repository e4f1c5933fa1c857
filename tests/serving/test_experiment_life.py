"""Experiments through the real data plane: routed, measured, concluded, ended."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from worlds import GOOD, World, loads, logistic

from homeostat.domain.bundle import Version
from homeostat.domain.errors import ConfigError, DataError, Deposed, NotFound, Refused
from homeostat.domain.experiment import Conclusion
from homeostat.domain.gate import Verdict
from homeostat.domain.policy import DataPolicy, ExperimentPolicy, Policy, ReleasePolicy, SignalPolicy, TrainPolicy
from homeostat.domain.rollout import Arm, ReleaseStep, Rollout, Route, Routing, Status, StepKind
from homeostat.domain.schema import Task
from homeostat.domain.units import DAY_MS, HOUR_MS
from homeostat.services.experiments import Experiments
from homeostat.services.release_log import ReleaseLog
from homeostat.stores.memory import MemoryJournal, MemoryRollouts
from homeostat.stores.memory_tracker import MemoryTracker
from homeostat.stores.routing import FileRouter
from world import Calls, Crash, Port

BOUGHT = SignalPolicy("bought", bounds=(0, 1), missing=0, margin=0.1)
RATED = SignalPolicy("rated", bounds=(1, 5), margin=0.5)
RULES = {
    "checkout": ExperimentPolicy(BOUGHT, (RATED,), window=HOUR_MS),
    "small": ExperimentPolicy(BOUGHT, window=HOUR_MS, share=1_000),
    "follow": ExperimentPolicy(BOUGHT, (RATED,), window=HOUR_MS, bandit=500),
    "loose": ExperimentPolicy(SignalPolicy("amount"), bandit=500),
    "wide": ExperimentPolicy(BOUGHT, bandit=6_000),
    "odd": ExperimentPolicy(SignalPolicy("bought", bounds=(1, 0))),
}


def failing(x: Any, /) -> Any:
    raise RuntimeError(f"{len(x)} rows")


class Lab:
    """Version 1 serves. `visit` sends customers, each with its own key; `buys` and `rates` say what they do then."""

    def __init__(self, *models: Callable[..., Any], release: ReleasePolicy | None = None) -> None:
        self.world = World()
        data, train = DataPolicy("x.csv", "y"), TrainPolicy("roc_auc")
        self.policy = Policy("fraud", Task.BINARY, data, train, release=release or ReleasePolicy(), experiments=RULES)
        self.journal, self.rollouts, self.tracker = MemoryJournal(), MemoryRollouts(), MemoryTracker()
        for number, model in enumerate((logistic, *models), 1):
            bundle = self.world.bundle(model, run=f"run-{number}")
            self.tracker.register("fraud", f"run-{number}", bundle, b"")
        self.serve(1)
        self.rng, self.customers = np.random.default_rng(7), 0
        self.buys: dict[int, float] = {}
        self.rates: dict[int, float] = {}
        self.calls = Calls()
        self.restart()

    def restart(self) -> None:
        w = self.world
        ports = self.journal, w.router, w.engine, w.log, w.labels, self.tracker, self.rollouts, w.clock
        self.experiments = Experiments(self.policy, *(Port(port, self.calls) for port in ports))

    def version(self, number: int) -> Version:
        return self.tracker.versions("fraud")[number - 1]

    def serve(self, number: int) -> None:
        arm, last = Arm(number, self.version(number).bundle), self.world.router.read()
        self.world.router.publish(Routing(last.version + 1, {"fraud": Route("R1", arm)}, last.experiments))
        self.world.engine.refresh()

    def turn(self) -> None:
        self.experiments.turn()
        self.world.engine.refresh()

    def visit(self, n: int) -> list[int]:
        """→ the version that answered each; all of them 200. An hour of the clock, a signal in the middle of it."""
        names = [f"c{self.customers + i}" for i in range(n)]
        self.customers += n
        versions = []
        for start in range(0, n, 50):
            some = [{**GOOD, "id": name, "key": name} for name in names[start : start + 50]]
            response = self.world.records(*some)
            assert response.status == 200
            body = loads(response)
            versions += [one.get("model_version", body["model_version"]) for one in body["predictions"]]
        self.world.clock.ms += HOUR_MS // 2
        signals: list[dict[str, Any]] = []
        for name, version in zip(names, versions, strict=True):
            if self.rng.random() < self.buys.get(version, 0.2):
                signals.append({"id": name, "name": "bought", "value": True})
            signals.append({"id": name, "name": "rated", "value": self.rates.get(version, 4)})
        self.world.ask({"signals": signals}, path="/v1/feedback")
        self.world.clock.ms += HOUR_MS // 2
        return versions


def test_from_the_start_to_the_conclusion() -> None:
    lab = Lab(logistic)
    lab.buys = {1: 0.2, 2: 0.45}
    assert lab.experiments.status() is None
    made = lab.experiments.start("checkout", [2], "ann")
    assert (made.id, made.weight, lab.visit(20).count(2)) == ("E1", 5_000, 0)
    lab.restart()  # whoever begins it need not be who routes it
    for _ in range(2):
        lab.turn()
    assert lab.world.router.read().version == 2
    versions = lab.visit(400)
    assert 150 < versions.count(2) < 250
    again = lab.world.records(*[{**GOOD, "key": f"c{20 + i}"} for i in range(400)])
    assert [one.get("model_version") for one in loads(again)["predictions"]] == versions
    found = lab.experiments.status()
    assert found is not None
    assert (found.result.units, found.result.waiting, found.result.compared[0].conclusion) == (0, 400, "not yet known")
    lab.visit(400)
    lab.world.clock.ms += HOUR_MS
    found = lab.experiments.status()
    assert found is not None
    (compared,) = found.result.compared
    assert (found.result.units, found.result.waiting, compared.conclusion) == (800, 0, Conclusion.BETTER)
    assert compared.sentence.startswith("Version 2 is better than the champion: bought ")
    assert compared.effect.low <= 0.25 <= compared.effect.high
    lab.turn()
    assert [guard.verdict for guard in compared.guards] == [Verdict.UNKNOWN, Verdict.OK]
    ended = lab.experiments.stop("enough", "ann")
    assert ended.experiment.outcome.startswith("ann ended it: enough. Version 2 is better")
    lab.turn()
    assert lab.world.router.read().experiments == {}
    assert set(lab.visit(50)) == {1}
    last = lab.experiments.status()
    assert last is not None
    assert (last.experiment.ended_ms, last.result.compared) == (ended.experiment.ended_ms, ended.result.compared)
    with pytest.raises(NotFound, match="no experiment is under way"):
        lab.experiments.stop("", "ann")
    assert lab.experiments.start("small", [2], "ann").id == "E2"


def test_several_variants_each_get_their_share() -> None:
    lab = Lab(logistic, logistic, logistic)
    lab.experiments.start("small", [4, 2, 3], "ann")
    lab.turn()
    versions = lab.visit(1_000)
    assert all(60 < versions.count(version) < 140 for version in (2, 3, 4))
    found = lab.experiments.status()
    assert found is not None
    assert [one.version for one in found.result.compared] == [4, 2, 3]
    assert not found.result.invalid


def test_a_variant_that_fails_is_found_out_and_nobody_sees_it() -> None:
    lab = Lab(failing)
    lab.experiments.start("checkout", [2], "ann")
    lab.turn()
    for _ in range(3):
        assert set(lab.visit(50)) == {1}
        lab.turn()
    (ended,) = lab.experiments.history()
    assert "bad answers of the variant, 0 of the champion" in ended.outcome
    assert lab.world.router.read().experiments == {}


def test_a_guardrail_ends_it() -> None:
    lab = Lab(logistic)
    lab.buys, lab.rates = {2: 0.9}, {1: 4.5, 2: 3.0}
    lab.experiments.start("checkout", [2], "ann")
    lab.turn()
    for _ in range(4):
        lab.visit(200)
        lab.turn()
    (ended,) = lab.experiments.history()
    assert ended.outcome.startswith("version 2: rated fell by more than 0.5")
    assert lab.world.router.read().experiments == {}


def test_a_variant_that_is_not_loaded_gets_nobody() -> None:
    lab = Lab(logistic)
    lab.tracker.register("fraud", "run-9", "nowhere", b"")
    lab.experiments.start("checkout", [2, 3], "ann")
    lab.turn()
    assert set(lab.visit(100)) == {1}
    assert lab.world.router.read().experiments == {}


def test_it_ends_with_its_champion() -> None:
    lab = Lab(logistic, logistic)
    lab.experiments.start("checkout", [2], "ann")
    lab.turn()
    lab.serve(3)
    assert set(lab.visit(100)) == {3}
    lab.turn()
    assert "version 1 is no longer the champion" in lab.experiments.history()[0].outcome
    assert lab.world.router.read().experiments == {}


def test_rows_that_a_rule_keeps_take_no_part() -> None:
    lab = Lab(logistic, release=ReleasePolicy(never={"country": (GOOD["country"],)}))
    lab.experiments.start("checkout", [2], "ann")
    lab.turn()
    assert set(lab.visit(100)) == {1}
    found = lab.experiments.status()
    assert found is not None
    assert (found.result.units, found.result.waiting) == (0, 0)


def rollout(lab: Lab, number: int, status: Status) -> None:
    steps = (ReleaseStep(StepKind.SHADOW, 0),)
    lab.rollouts.save(
        Rollout(f"R{number}", "fraud", None, lab.version(number), steps, 0, status, 0, 0, "s", 0, "too slow")
    )


def test_what_can_not_be_begun() -> None:
    lab = Lab(logistic, logistic)
    for name, numbers, error, told in (
        ("nothing", [2], ConfigError, "Described are: checkout, small, follow, loose, wide, odd"),
        ("odd", [2], ConfigError, "wrong way round"),
        ("loose", [2], ConfigError, "amount has no bounds"),
        ("wide", [2], ConfigError, "It can be 50 % at most"),
        ("checkout", [9], NotFound, "The newest are: 1, 2, 3"),
        ("checkout", [1], Refused, "version 1 is the champion"),
    ):
        with pytest.raises(error, match=told):
            lab.experiments.start(name, numbers, "ann")
    rollout(lab, 3, Status.ROLLED_BACK)
    with pytest.raises(Refused, match=r"(?s)version 3 was refused.*too slow"):
        lab.experiments.start("checkout", [2, 3], "ann")
    lab.experiments.start("checkout", [2], "ann")
    with pytest.raises(Refused, match="experiment E1 is under way"):
        lab.experiments.start("small", [2], "ann")
    lab.experiments.stop("", "ann")
    for status in (Status.QUEUED, Status.RUNNING):
        lab = Lab(logistic)
        rollout(lab, 2, status)
        with pytest.raises(Refused, match=r"(?s)release R2 is under way.*homeostat release reject R2"):
            lab.experiments.start("checkout", [2], "ann")


def test_a_plan_is_made_from_what_the_log_knows() -> None:
    lab = Lab(logistic)
    with pytest.raises(DataError, match="only 0 entities have their bought"):
        lab.experiments.plan("checkout", 0.1, 1)
    lab.buys = {1: 0.3}
    for _ in range(3):
        lab.visit(500)
    hasty = lab.experiments.plan("checkout", 0.1, 1)
    assert (hasty.per_day, hasty.days) == (None, None)
    for _ in range(3):
        lab.visit(500)
    lab.world.clock.ms += DAY_MS
    made = lab.experiments.plan("checkout", 0.1, 1)
    assert made.mean == pytest.approx(0.3, abs=0.03)
    assert made.deviation == pytest.approx(0.458, abs=0.02)
    assert made.per_day == pytest.approx(3_000 / 1.25, rel=0.01)
    assert made.days is not None
    assert made.per_day is not None
    assert made.days == pytest.approx(made.units / made.per_day + 2 * HOUR_MS / DAY_MS)
    assert lab.experiments.plan("checkout", 0.05, 1).units > 3 * made.units
    assert lab.experiments.plan("checkout", 0.1, 3).units > 1.9 * made.units


def tried(lab: Lab, verb: Callable[[], Any]) -> None:
    """Killed, it is tried again by a new process; a person who finds it done leaves it at that."""
    try:
        verb()
    except Crash:
        lab.restart()
        with contextlib.suppress(Refused, NotFound):
            verb()


def life(crash_at: int, after: bool) -> tuple[int, Any]:
    """→ the port calls it took, and what is left of it."""
    lab = Lab(logistic)
    lab.calls.crash_at, lab.calls.after = crash_at, after
    tried(lab, lambda: lab.experiments.start("checkout", [2], "ann"))
    tried(lab, lambda: lab.experiments.turn())
    lab.world.engine.refresh()
    versions = lab.visit(40)
    tried(lab, lambda: lab.experiments.turn())
    tried(lab, lambda: lab.experiments.stop("enough", "ann"))
    tried(lab, lambda: lab.experiments.turn())
    events = [(event.key, event.text) for event in lab.journal.read("fraud")]
    return lab.calls.count, (versions, events, lab.world.router.read())


def test_a_crash_at_any_port_call_changes_no_outcome() -> None:
    calls, due = life(-1, False)
    assert set(due[0]) == {1, 2}
    assert calls > 20
    for crash_at in range(calls):
        for after in (False, True):
            assert life(crash_at, after)[1] == due, (crash_at, after)


def test_a_release_that_was_asked_for_at_the_same_moment_ends_it() -> None:
    lab = Lab(logistic, logistic)
    lab.experiments.start("checkout", [2], "ann")
    rollout(lab, 3, Status.QUEUED)
    lab.turn()
    assert "release R3 was asked for at the same moment" in lab.experiments.history()[0].outcome
    assert lab.world.router.read().experiments == {}


def test_who_led_before_can_not_route_an_experiment(tmp_path: Path) -> None:
    lab = Lab(logistic)
    path = tmp_path / "routing.json"
    FileRouter(path, lambda: 2).publish(lab.world.router.read())
    lab.experiments.start("checkout", [2], "ann")
    lab.experiments.router = FileRouter(path, lambda: 1)
    with pytest.raises(Deposed):
        lab.experiments.turn()
    lab.experiments.router = FileRouter(path, lambda: 2)
    lab.experiments.turn()
    assert lab.experiments.router.read().experiments["fraud"].release == "E1"


def test_what_served_at_a_time_tells_of_experiments() -> None:
    lab = Lab(logistic, logistic)
    told = ReleaseLog("fraud", lab.journal, lab.world.clock)
    lab.experiments.start("small", [2, 3], "ann")
    for _ in range(2):
        lab.turn()
        told.tell([], lab.world.router.read())
    found = told.served([], lab.world.clock.ms)
    assert found.routed == "Version 1: 80 %; version 2: 10 %; version 3: 10 %."
    assert (found.release, [arm.share for arm in found.arms]) == ("E1", [8_000, 1_000, 1_000])
    assert len(lab.journal.read("fraud", "release.routed")) == 1


def followed(crashes: bool) -> Lab:
    """Version 2 sells more, version 3 less. With `crashes` the control loop is killed at every port call of every pass:
    at the first of one, at the second of the next, until one comes through."""
    lab = Lab(logistic, logistic)
    lab.buys = {1: 0.2, 2: 0.25, 3: 0.2}
    lab.experiments.start("follow", [2, 3], "ann")
    for _ in range(7):
        crash_at = 0
        while True:
            lab.calls.count, lab.calls.crash_at = 0, crash_at if crashes else -1
            try:
                lab.turn()
            except Crash:
                lab.restart()
                crash_at += 1
            else:
                break
        lab.calls.crash_at = -1
        lab.visit(300)
    return lab


def test_shares_follow_the_results_and_stand_with_every_row() -> None:
    lab = followed(crashes=False)
    (one,) = lab.experiments.history()
    assert len(one.later) >= 2
    assert one.splits[-1][1] > 6_000
    assert min(one.splits[-1]) >= 500
    assert one.later[-1].reason.startswith("The results of ")
    route = lab.world.router.read().experiments["fraud"]
    assert (route.release, route.weights) == (f"E1.{len(one.later)}", one.splits[-1])
    log = lab.world.log.read("fraud", 0, lab.world.clock.ms + 1)
    assert set(log["release"]) == {"E1", *(f"E1.{n}" for n in range(1, len(one.later) + 1))}
    for turn, split in enumerate(one.splits):
        rows = log.filter(pl.col("release") == (f"E1.{turn}" if turn else "E1"))
        assert set(rows["weight"]) == {10_000 - split[0]}
        assert (rows["version"] == 2).mean() == pytest.approx(split[1] / 10_000, abs=0.08)
    found = lab.experiments.status()
    assert found is not None
    assert not found.result.invalid
    assert [compared.conclusion for compared in found.result.compared] == [Conclusion.UNKNOWN, Conclusion.UNKNOWN]
    with pytest.raises(ConfigError, match="depends on its results"):
        lab.experiments.plan("follow", 0.1, 1)


def test_a_crash_anywhere_changes_no_share() -> None:
    crashed, due = followed(crashes=True), followed(crashes=False)
    assert crashed.experiments.history() == due.experiments.history()
    assert crashed.world.router.read() == due.world.router.read()


def test_an_arm_that_harms_a_guardrail_ends_at_nothing() -> None:
    lab = Lab(logistic, logistic)
    lab.buys, lab.rates = {1: 0.2, 2: 0.9, 3: 0.2}, {1: 4.5, 2: 3.0, 3: 4.5}
    lab.experiments.start("follow", [2, 3], "ann")
    for _ in range(8):
        lab.turn()
        versions = lab.visit(250)
    (one,) = lab.experiments.history()
    assert (one.ended_ms, one.splits[-1][1], versions.count(2)) == (None, 0, 0)
    assert versions.count(3) > 10
    assert any(split.reason.startswith("Harm. version 2: rated fell by more than 0.5") for split in one.later)
    lab.rates[3] = 2.0
    for _ in range(20):
        lab.visit(250)
        lab.turn()
    (one,) = lab.experiments.history()
    assert "version 3: rated fell" in one.outcome
    assert lab.world.router.read().experiments == {}
