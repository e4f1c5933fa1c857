"""One suite over both trackers; then what MLflow itself sees."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from homeostat.adapters.convert import OnnxConverter
from homeostat.adapters.tracking import BUNDLE, RUN, MlflowTracker
from homeostat.domain.bundle import Version
from homeostat.domain.errors import ConfigError, UsageError
from homeostat.domain.gate import Measurement
from homeostat.ports import Tracker
from homeostat.stores.memory_tracker import MemoryTracker

AUC = Measurement("roc_auc", 0.8, 0.75, 0.85, 400)
FEW = Measurement("f1", 0.5, math.nan, math.nan, 12)
NONE = Measurement("recall", math.nan, math.nan, math.nan, 0)
PARAMS = {"leaves": "7"}
FILES = {"report.html": b"<!doctype html>", "plots/drift.svg": b"<svg/>"}
ONNX = b"not really a model"


def tracker_in(root: Path) -> MlflowTracker:
    return MlflowTracker(f"sqlite:///{root / 'mlflow.db'}", root / "mlflow")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for all: the first use makes its tables, which takes seconds."""
    root = tmp_path_factory.mktemp("tracking")
    tracker_in(root).versions("nothing")
    return root


@pytest.fixture
def another(database: Path, tmp_path: Path) -> Path:
    """Another project's folder, with a database of its own."""
    shutil.copy(database / "mlflow.db", tmp_path)
    return tmp_path


@pytest.fixture(params=["memory", "mlflow"])
def tracker(request: pytest.FixtureRequest, database: Path) -> Tracker:
    return MemoryTracker() if request.param == "memory" else tracker_in(database)


@pytest.fixture
def model(request: pytest.FixtureRequest) -> str:
    """A model of its own for each test."""
    return request.node.name.replace("[", "-").strip("]")


def turn(tracker: Tracker, model: str, run: str, bundle: str, params: Mapping[str, str] = PARAMS) -> Version:
    tracker.log_run(run, model, params, (AUC, FEW, NONE), FILES)
    return tracker.register(model, run, bundle, ONNX)


class TestTracker:
    """What `ports.Tracker` promises."""

    def test_versions_are_numbered_in_order(self, tracker: Tracker, model: str) -> None:
        assert tracker.versions(model) == []
        made = [turn(tracker, model, run, bundle) for run, bundle in (("r1", "b1"), ("r2", "b2"))]
        assert made == [Version(model, 1, "b1", "r1"), Version(model, 2, "b2", "r2")]
        assert tracker.versions(model) == made
        assert tracker.versions(model + "x") == []

    def test_said_twice_it_is_one_version(self, tracker: Tracker, model: str) -> None:
        first = turn(tracker, model, "r1", "b1")
        assert turn(tracker, model, "r1", "b1") == first
        assert tracker.versions(model) == [first]

    def test_a_version_is_of_one_run_and_one_bundle(self, tracker: Tracker, model: str) -> None:
        pairs = [("r1", "b1"), ("r1", "b2"), ("r2", "b1")]
        made = [turn(tracker, model, run, bundle) for run, bundle in pairs]
        assert [(one.number, one.run, one.bundle) for one in made] == [(n, *pair) for n, pair in enumerate(pairs, 1)]
        assert [turn(tracker, model, run, bundle) for run, bundle in pairs] == made == tracker.versions(model)

    def test_models_are_numbered_apart(self, tracker: Tracker, model: str) -> None:
        for name in (f"{model} a", f"{model} b"):
            assert turn(tracker, name, "r1", "b1") == Version(name, 1, "b1", "r1")

    def test_an_alias_moves(self, tracker: Tracker, model: str) -> None:
        first, second = turn(tracker, model, "r1", "b1"), turn(tracker, model, "r2", "b2")
        for version in (first, second, second):
            tracker.alias(version, "champion")
        tracker.alias(first, "challenger")
        assert (alias(tracker, model, "champion"), alias(tracker, model, "challenger")) == (2, 1)


def client_of(tracker: Tracker) -> Any:
    assert isinstance(tracker, MlflowTracker)
    return tracker._client


def alias(tracker: Tracker, model: str, name: str) -> int:
    if isinstance(tracker, MemoryTracker):
        return tracker.aliases[model, name].number
    return int(client_of(tracker).get_model_version_by_alias(model, name).version)


def runs_of(tracker: Tracker, model: str) -> list[Any]:
    client = client_of(tracker)
    return list(client.search_runs([client.get_experiment_by_name(model).experiment_id]))


def test_what_mlflow_sees(database: Path, model: str) -> None:
    tracker, name = tracker_in(database), f"{model} ü"
    version = turn(tracker, name, "r1", "b1")
    client, (run,) = client_of(tracker), runs_of(tracker, name)
    assert (run.info.run_name, run.info.status, run.data.tags[RUN]) == ("r1", "FINISHED", "r1")
    assert run.data.params == PARAMS
    assert run.data.metrics == {"roc_auc": 0.8, "roc_auc.low": 0.75, "roc_auc.high": 0.85, "f1": 0.5}
    assert {one.path for one in client.list_artifacts(run.info.run_id)} == {"report.html", "plots"}
    assert [one.path for one in client.list_artifacts(run.info.run_id, "plots")] == ["plots/drift.svg"]
    registered = client.get_model_version(name, str(version.number))
    assert registered.tags == {RUN: "r1", BUNDLE: "b1"}
    assert registered.run_id == run.info.run_id


def test_a_finished_run_is_left_alone(database: Path, model: str) -> None:
    tracker = tracker_in(database)
    turn(tracker, model, "r1", "b1")
    (before,) = runs_of(tracker, model)
    tracker.log_run("r1", model, {"leaves": "8"}, (FEW,), {"other": b""})
    (after,) = runs_of(tracker, model)
    assert (after.to_dictionary(), after.info.end_time) == (before.to_dictionary(), before.info.end_time)
    assert "other" not in {one.path for one in client_of(tracker).list_artifacts(after.info.run_id)}


@pytest.mark.filterwarnings("ignore")  # MLflow's own, when its pyfunc is imported
def test_mlflow_loads_the_source_of_a_version(database: Path, model: str) -> None:
    import mlflow.onnx
    import mlflow.pyfunc

    x = np.linspace(-1, 1, 60, dtype=np.float32).reshape(20, 3)
    fitted = LogisticRegression().fit(x, x[:, 0] > 0)
    tracker = tracker_in(database)
    tracker.register(model, "r1", "b1", OnnxConverter()(fitted, 3))
    source = client_of(tracker).get_model_version(model, "1").source
    assert mlflow.onnx.load_model(source).graph.input[0].name == "x"
    answered = list(mlflow.pyfunc.load_model(source).predict(x).values())[-1]
    np.testing.assert_allclose(answered, fitted.predict_proba(x), atol=1e-6)


class Crash(BaseException):
    """The process was killed."""


class Dying:
    """A client that dies after a call took effect: as good as before the next one."""

    def __init__(self, client: Any, at: int = -1) -> None:
        self._client, self._at = client, at
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            self.calls += 1
            made = getattr(self._client, name)(*arguments, **named)
            if self.calls == self._at:
                raise Crash(name)
            return made

        return call


def dying(root: Path, client: Dying) -> MlflowTracker:
    tracker = tracker_in(root)
    tracker.__dict__["_client"] = client
    return tracker


def test_a_crash_after_any_call_leaves_one_run_and_one_version(database: Path, model: str) -> None:
    real = client_of(tracker_in(database))
    counting = Dying(real)
    turn(dying(database, counting), f"{model} whole", "r1", "b1")
    assert counting.calls > 8
    for at in range(1, counting.calls + 1):
        name = f"{model} {at}"
        with pytest.raises(Crash):
            turn(dying(database, Dying(real, at)), name, "r1", "b1")
        again = tracker_in(database)
        assert [turn(again, name, "r1", "b1")] == again.versions(name) == [Version(name, 1, "b1", "r1")]
        (run,) = runs_of(again, name)
        assert (run.info.status, len(run.data.metrics), run.data.params) == ("FINISHED", 4, PARAMS)
        assert len(real.list_artifacts(run.info.run_id)) == len(FILES)


def test_a_model_half_written_is_written_again(database: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(Crash))
        tracker_in(database).register(model, "r1", "b1", ONNX[:3])
    tracker = tracker_in(database)
    tracker.register(model, "r1", "b1", ONNX)
    folder = database / "mlflow" / model / "models"
    assert [one.name for one in folder.iterdir()] == ["b1"]
    assert (folder / "b1" / "model.onnx").read_bytes() == ONNX
    before = (folder / "b1" / "MLmodel").read_bytes()
    tracker.register(model, "r2", "b1", ONNX)
    assert (folder / "b1" / "MLmodel").read_bytes() == before  # version 1 still points at it


def test_what_people_do_by_hand_does_not_stop_the_loop(database: Path, model: str) -> None:
    tracker = tracker_in(database)
    first = turn(tracker, model, "r1", "b1")
    client = client_of(tracker)
    client.create_model_version(model, source=database.as_uri())
    assert tracker.versions(model) == [first]
    client.delete_experiment(client.get_experiment_by_name(model).experiment_id)
    assert turn(tracker, model, "r2", "b2").number == 3
    assert [one.info.run_name for one in runs_of(tracker, model)] == ["r2", "r1"]


def test_parameters_that_mlflow_would_refuse(database: Path, model: str) -> None:
    many = {f"layers[{i}]": "" for i in range(150)} | {"../up": "x" * 9_000}
    tracker = tracker_in(database)
    turn(tracker, model, "r1", "b1", many)
    (run,) = runs_of(tracker, model)
    assert {"layers_0_", "layers_149_", "__up"} <= set(run.data.params)
    assert len(run.data.params) == 151


@pytest.mark.parametrize("name", ["a/b", "a:b", "a'b", "..", ""])
def test_a_name_that_mlflow_would_refuse(database: Path, name: str) -> None:
    tracker = tracker_in(database)
    with pytest.raises(ConfigError, match="can't be the name of a model"):
        tracker.log_run("r1", name, {}, (), {})
    with pytest.raises(ConfigError):
        tracker.versions(name)


def test_a_database_that_mlflow_can_not_use(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 100)
    with pytest.raises(UsageError, match="file is not a database") as raised:
        tracker_in(tmp_path).versions("price")
    assert len(str(raised.value).splitlines()) == 3


def test_a_database_appears_whole_and_the_first_one_stays(
    database: Path,
    tmp_path: Path,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Another process that starts at the same time makes its database first, and writes to it. Nothing is printed."""
    place, copy = tmp_path / "state" / "mlflow.db", shutil.copyfile
    theirs = turn(tracker_in(database), model, "r1", "b1")

    def late(source: Path, target: Path) -> None:
        assert not place.exists()
        copy(source, target)
        copy(database / "mlflow.db", place)

    monkeypatch.setattr(shutil, "copyfile", late)
    assert tracker_in(place.parent).versions(model) == [theirs]
    assert [one.name for one in place.parent.iterdir()] == ["mlflow.db"]
    assert capfd.readouterr() == ("", "")


def test_two_projects_in_one_process_do_not_meet(database: Path, another: Path, model: str) -> None:
    here, there = tracker_in(database), tracker_in(another)
    turn(here, model, "r1", "b1")
    assert there.versions(model) == []
    assert turn(there, model, "r9", "b9").number == 1
    assert [one.run for one in here.versions(model)] == ["r1"]
    assert [one.info.run_name for one in runs_of(there, model)] == ["r9"]
    assert (another / "mlflow" / model / "models" / "b9" / "MLmodel").exists()


WATCHED = """
import logging, os, socket, sys
from pathlib import Path

asked = []
socket.socket.connect = lambda _, address: asked.append(address)
socket.getaddrinfo = lambda *address, **_: asked.append(address)
first, root = sys.argv[1], Path(sys.argv[2])
if first == "mlflow":
    import mlflow
from homeostat.adapters.tracking import MlflowTracker
import mlflow
from mlflow.telemetry import get_telemetry_client

before = (mlflow.get_tracking_uri(), mlflow.get_registry_uri(), logging.getLogger("mlflow").level)
tracker = MlflowTracker(f"sqlite:///{root / 'mlflow.db'}", Path("../files"))
tracker.log_run("r1", "price", {}, (), {"a": b"1"})
tracker.alias(tracker.register("price", "r1", "b1", b"model"), "champion")
assert get_telemetry_client() is None
assert (mlflow.get_tracking_uri(), mlflow.get_registry_uri(), logging.getLogger("mlflow").level) == before
assert mlflow.active_run() is None
assert not asked, asked
assert not list(Path.cwd().iterdir())
"""


@pytest.mark.parametrize("first", ["homeostat", "mlflow"])
def test_nothing_is_sent_printed_or_changed(another: Path, first: str) -> None:
    """In a process of its own: in tests and on build servers MLflow's telemetry is off anyway."""
    (another / "here").mkdir()
    kept = ("PATH", "PYTHONPATH", "SYSTEMROOT")
    environment = {name: os.environ[name] for name in kept if name in os.environ} | {"HOME": str(another)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WATCHED, first, str(another)],
        cwd=another / "here",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
