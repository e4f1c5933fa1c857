"""A sweep over a real project's own parameters, as a remedy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

import projects
from homeostat.adapters.source import Source
from homeostat.config import read_policy
from homeostat.domain.bundle import Bundle
from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.errors import PipelineError
from homeostat.domain.rollout import Arm, ReleaseStep, Rollout, Route, Status, StepKind
from homeostat.domain.run import RunResult
from homeostat.domain.trigger import SWEEP, Trigger
from homeostat.domain.units import DAY_MS
from homeostat.services.sweep import FILE
from homeostat.wiring.system import System

SPACE = '\n\ndef space() -> dict[str, list[Any]]:\n    return {"n_estimators": [1, 60], "num_leaves": [3]}\n'
FIRST = projects.TRAIN.replace('"n_estimators": 20', '"n_estimators": 1')


POLICY = projects.POLICY.replace("cooldown: 4d", "cooldown: 4d, only_if_it_helps: true, remedies: [sweep]")


def project(root: Path, train: str = FIRST + SPACE) -> System:
    return projects.system(projects.make(root, policy=POLICY, train=train))


def serve(system: System, made: RunResult) -> Bundle:
    assert made.version is not None
    version, stores, now = made.version, system.stores, system.clock.now_ms()
    steps = (ReleaseStep(StepKind.FULL, 10_000),)
    record = Rollout(f"R{version.number}", "cards", None, version, steps, 0, Status.PROMOTED, now, now, "", 0)
    stores.rollouts.save(record)
    routing, route = stores.router.read(), Route(record.id, Arm(version.number, version.bundle))
    stores.router.publish(replace(routing, version=routing.version + 1, routes={"cards": route}))
    return system.bundles.load(version.bundle)


def parameters(system: System, bundle: Bundle) -> tuple[str, str]:
    params = system.bundles.record(bundle).params
    return params["n_estimators"], params["num_leaves"]


def test_the_choice_that_loses_least_is_trained_and_stays_until_the_code_is_edited(tmp_path: Path) -> None:
    system = project(tmp_path / "cards")
    first = serve(system, system.runs.run())
    assert parameters(system, first) == ("1", "7")
    assert FILE not in first.files
    result = system.runs.run(swept=True)
    fits = [step.name for step in result.steps if step.name.startswith("model (sweep") and not step.cached]
    assert fits == [
        "model (sweep: as params() says)",
        "model (sweep: n_estimators 1, num_leaves 3)",
        "model (sweep: n_estimators 60, num_leaves 3)",
    ]
    best = serve(system, result)
    assert parameters(system, best) == ("60", "3")
    again = system.runs.run()
    assert again.version is not None
    assert parameters(system, system.bundles.load(again.version.bundle)) == ("60", "3")
    projects.edited(tmp_path / "cards", "pipelines/train.py", '"n_estimators": 1,', '"n_estimators": 2,')
    edited = projects.system(tmp_path / "cards", system.stores).runs.run()
    assert edited.version is not None
    assert parameters(system, system.bundles.load(edited.version.bundle)) == ("2", "7")


def test_a_probe_sweeps_too_and_the_remedy_trains_what_a_sweep_found(tmp_path: Path) -> None:
    day = 20
    root = projects.make(tmp_path / "cards", policy=POLICY, train=FIRST + SPACE)
    policy = read_policy(root)
    every = Source(root, policy.data, policy.task)()
    system = projects.system(root, source=lambda: every.filter(pl.col(EVENT_MS) < projects.START_MS + day * DAY_MS))
    serve(system, system.runs.run())
    day = 30
    probed = system.probes.refit(0, True)
    assert probed.helps
    assert probed.reason.startswith("a model fitted on the rows before, n_estimators 60, num_leaves 3, is better")
    assert probed.rows == 27 * 72 * (1 + 3)
    system.control.train(Trigger("k", "manual", "asked", system.clock.now_ms(), remedy=SWEEP))
    newest = system.stores.tracker.versions("cards")[-1]
    assert parameters(system, system.bundles.load(newest.bundle)) == ("60", "3")


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (FIRST, r"has no function space\(\) that says so"),
        (FIRST + SPACE.replace("[3]", "3"), r"has no function space\(\) that says so"),
    ],
)
def test_a_project_that_declares_no_space_is_told_so_at_once(tmp_path: Path, train: str, said: str) -> None:
    with pytest.raises(PipelineError, match=said):
        project(tmp_path / "cards", train)


def test_a_parameter_that_there_is_not_is_named(tmp_path: Path) -> None:
    system = project(tmp_path / "cards", FIRST + SPACE.replace("num_leaves", "leaves"))
    with pytest.raises(PipelineError, match="names 'leaves', which params"):
        system.runs.run(swept=True)
