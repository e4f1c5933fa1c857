"""One suite over both trackers; then what MLflow itself sees."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from homeostat.adapters.tracking import BUNDLE, RUN, MlflowTracker
from homeostat.domain.gate import Measurement
from homeostat.ports import Tracker
from homeostat.stores.memory_tracker import MemoryTracker

AUC = Measurement("roc_auc", 0.8, 0.75, 0.85, 400)
FEW = Measurement("f1", 0.5, math.nan, math.nan, 12)
FILES = {"report.html": b"<!doctype html>", "run.json": b"{}"}
ONNX = b"not really a model"


def mlflow(root: Path) -> MlflowTracker:
    return MlflowTracker(f"sqlite:///{root / 'mlflow.db'}", root / "mlflow")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for all: the first use makes its tables, which takes a second."""
    root = tmp_path_factory.mktemp("tracking")
    mlflow(root).versions("nothing")
    return root


@pytest.fixture(params=["memory", "mlflow"])
def tracker(request: pytest.FixtureRequest, database: Path) -> Tracker:
    return MemoryTracker() if request.param == "memory" else mlflow(database)


@pytest.fixture
def model(request: pytest.FixtureRequest) -> str:
    """A model of its own for each test."""
    return request.node.name.replace("[", "-").strip("]")


def turn(tracker: Tracker, model: str, run: str, bundle: str) -> Any:
    tracker.log_run(run, model, {"leaves": "7"}, (AUC, FEW), FILES)
    return tracker.register(model, run, bundle, ONNX)


def test_versions_are_numbered_in_order(tracker: Tracker, model: str) -> None:
    assert tracker.versions(model) == []
    made = [turn(tracker, model, run, bundle) for run, bundle in (("r1", "b1"), ("r2", "b2"))]
    assert [one.number for one in made] == [1, 2]
    assert tracker.versions(model) == made
    assert (made[1].run, made[1].bundle, made[1].model) == ("r2", "b2", model)
    assert tracker.versions(model + "x") == []


def test_said_twice_it_is_one_version(tracker: Tracker, model: str) -> None:
    first = turn(tracker, model, "r1", "b1")
    assert turn(tracker, model, "r1", "b1") == first
    assert tracker.versions(model) == [first]


def test_an_alias_moves(tracker: Tracker, model: str) -> None:
    first, second = turn(tracker, model, "r1", "b1"), turn(tracker, model, "r2", "b2")
    for version in (first, second, second):
        tracker.alias(version, "champion")
    tracker.alias(first, "challenger")
    if isinstance(tracker, MemoryTracker):
        assert tracker.aliases == {(model, "champion"): second, (model, "challenger"): first}
    else:
        client = client_of(tracker)
        assert client.get_model_version_by_alias(model, "champion").version == 2
        assert client.get_model_version_by_alias(model, "challenger").version == 1


def client_of(tracker: Tracker) -> Any:
    assert isinstance(tracker, MlflowTracker)
    return tracker._client


def test_what_mlflow_sees(database: Path, model: str) -> None:
    tracker = mlflow(database)
    version = turn(tracker, model, "r1", "b1")
    client = client_of(tracker)
    experiment = client.get_experiment_by_name(model)
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 1
    assert (runs[0].info.run_name, runs[0].info.status, runs[0].data.tags[RUN]) == ("r1", "FINISHED", "r1")
    assert runs[0].data.params == {"leaves": "7"}
    assert runs[0].data.metrics == {"roc_auc": 0.8, "roc_auc.low": 0.75, "roc_auc.high": 0.85, "f1": 0.5}
    assert {one.path for one in client.list_artifacts(runs[0].info.run_id)} == set(FILES)
    registered = client.get_model_version(model, str(version.number))
    assert registered.tags == {RUN: "r1", BUNDLE: "b1"}
    assert registered.run_id == runs[0].info.run_id
    folder = Path(registered.source.removeprefix("file://"))
    assert (folder / "model.onnx").read_bytes() == ONNX
    assert "loader_module: mlflow.onnx" in (folder / "MLmodel").read_text()


@pytest.mark.parametrize("call", ["create_run", "log_batch", "log_artifacts", "set_terminated", "create_model_version"])
def test_a_crash_in_between_leaves_one_run_and_one_version(
    database: Path, model: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = mlflow(database)
    real: Callable[..., Any] = getattr(client_of(tracker), call)

    def dies(*arguments: Any, **named: Any) -> Any:
        real(*arguments, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(client_of(tracker), call, dies)
    with pytest.raises(KeyboardInterrupt):
        turn(tracker, model, "r1", "b1")
    again = mlflow(database)
    version = turn(again, model, "r1", "b1")
    assert (version.number, again.versions(model)) == (1, [version])
    runs = client_of(again).search_runs([client_of(again).get_experiment_by_name(model).experiment_id])
    assert [(one.info.status, len(one.data.metrics)) for one in runs] == [("FINISHED", 4)]


def test_two_projects_in_one_process_do_not_meet(tmp_path: Path) -> None:
    here, there = mlflow(tmp_path), mlflow(tmp_path / "other")
    (tmp_path / "other").mkdir()
    turn(here, "price", "r1", "b1")
    assert there.versions("price") == []
    assert turn(there, "price", "r9", "b9").number == 1
    assert [one.run for one in here.versions("price")] == ["r1"]
