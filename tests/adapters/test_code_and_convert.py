"""The project's code, imported and described; estimators as ONNX."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from homeostat.adapters.code import ProjectCode
from homeostat.adapters.convert import OnnxConverter, canonical
from homeostat.adapters.runtime import ROWWISE, OnnxRuntime
from homeostat.domain.errors import PipelineError


def project(root: Path, value: int) -> ProjectCode:
    (root / "pipelines").mkdir(parents=True)
    (root / "pipelines" / "train.py").write_text("from lib import VALUE\n")
    (root / "lib.py").write_text(f"VALUE = {value}\n")
    return ProjectCode(root)


def test_two_projects_keep_their_modules_apart(tmp_path: Path) -> None:
    one, two = project(tmp_path / "one", 1), project(tmp_path / "two", 2)
    assert [code.module("pipelines.train").VALUE for code in (one, two, one)] == [1, 2, 1]
    assert set(one.sources()) == {"pipelines.train", "lib"}
    assert "lib" not in sys.modules
    (tmp_path / "one" / "lib.py").write_text("VALUE = 3\n")
    assert one.module("pipelines.train").VALUE == 3


def test_an_error_of_the_project_names_its_line(tmp_path: Path) -> None:
    code = project(tmp_path / "one", 1)
    (tmp_path / "one" / "lib.py").write_text("\nVALUE = 1 / 0\n")
    with pytest.raises(PipelineError, match=r"ZeroDivisionError(.|\n)*lib\.py:2"):
        code.module("pipelines.train")


def test_the_state_in_git(tmp_path: Path) -> None:
    code = project(tmp_path / "one", 1)
    assert code.state().commit == ""
    git = ["git", "-C", str(tmp_path / "one"), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    clean = code.state()
    assert len(clean.commit) == 40
    assert not clean.dirty
    (tmp_path / "one" / "lib.py").write_text("VALUE = 2\n")
    (tmp_path / "one" / "new.py").write_text("")
    dirty = code.state()
    assert "+VALUE = 2" in dirty.diff
    assert set(dirty.untracked) == {"new.py"}


X = np.random.default_rng(1).normal(size=(400, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("estimator", "classes"),
    [
        (LGBMClassifier(n_estimators=20, n_jobs=1, verbose=-1), 2),
        (LGBMClassifier(n_estimators=20, n_jobs=1, verbose=-1), 3),
        (LGBMRegressor(n_estimators=20, n_jobs=1, verbose=-1), 0),
        (make_pipeline(StandardScaler(), LogisticRegression()), 3),
        (LinearRegression(), 0),
    ],
    ids=["lightgbm 2", "lightgbm 3", "lightgbm value", "logistic 3", "linear"],
)
def test_the_converted_model_answers_as_the_native_one(estimator: Any, classes: int) -> None:
    target = X @ np.array([1.0, -1.0, 0.5])
    y = np.digitize(target, np.quantile(target, np.arange(1, classes) / classes)) if classes else target
    fitted = estimator.fit(X, y)
    session = onnxruntime.InferenceSession(OnnxConverter()(fitted, 3))
    output = session.run(None, {"x": X})[-1].reshape(len(X), -1)
    native = fitted.predict_proba(X) if classes else fitted.predict(X).reshape(-1, 1)
    assert np.abs(output - native).max() < 1e-5 * max(1.0, float(np.abs(native).max()))


@pytest.mark.parametrize(
    ("estimator", "classes", "rowwise"),
    [
        (LGBMClassifier(n_estimators=200, n_jobs=1, verbose=-1), 2, True),
        (LGBMClassifier(n_estimators=50, n_jobs=1, verbose=-1), 3, True),
        (LGBMRegressor(n_estimators=200, n_jobs=1, verbose=-1), 0, True),
        (RandomForestClassifier(n_estimators=30, random_state=1), 2, True),
        (RandomForestRegressor(n_estimators=30, random_state=1), 0, True),
        (make_pipeline(StandardScaler(), LogisticRegression()), 2, False),
        (LinearRegression(), 0, False),
    ],
    ids=["lightgbm 2", "lightgbm 3", "lightgbm value", "forest 2", "forest value", "logistic", "linear"],
)
def test_a_row_has_the_same_bytes_alone_and_in_a_batch(estimator: Any, classes: int, rowwise: bool) -> None:
    """What does not go row by row says nothing of itself, and is given two rows where there is one."""
    x = np.random.default_rng(2).normal(size=(400, 20)).astype(np.float32)
    target = x @ np.linspace(-1.0, 1.0, 20)
    y = np.digitize(target, np.quantile(target, np.arange(1, classes) / classes)) if classes else target
    converted = OnnxConverter()(estimator.fit(x, y), 20)
    assert (ROWWISE.encode() in converted) == rowwise
    model = OnnxRuntime().load(converted)
    whole = model(x)
    for size in (1, 2, 7):
        assert np.concatenate([model(x[at : at + size]) for at in range(0, len(x), size)]).tobytes() == whole.tobytes()


def test_what_cannot_be_converted_is_a_pipeline_error() -> None:
    with pytest.raises(PipelineError, match="can't be converted"):
        OnnxConverter()(object(), 3)


def answers(onnx: bytes, x: np.ndarray) -> np.ndarray:
    """(n, c) the last output of the model."""
    session = onnxruntime.InferenceSession(onnx)
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[-1])


def test_thresholds_between_two_float32_values_are_not_crossed() -> None:
    """LightGBM splits half-way between two neighbours, in float64. Where both are float32 the nearest float32 to the
    middle may be the upper one: then a row at it would go the other way in ONNX."""
    rng = np.random.default_rng(2)
    steps = rng.integers(0, 40, (4_000, 3)).astype(np.float32)
    low = np.float32(0.05)
    x = low + steps * np.spacing(low)  # neighbours: every threshold lies between two float32 values with none between
    y = (steps.sum(axis=1) + rng.normal(size=len(x)) > 60).astype(int)
    made = LGBMClassifier(n_estimators=30, num_leaves=15, n_jobs=1, verbose=-1, random_state=1).fit(x, y)
    assert np.abs(answers(OnnxConverter()(made, 3), x) - made.predict_proba(x)).max() < 1e-6


def test_a_missing_value_goes_the_same_way_where_training_saw_none() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(1_000, 3)).astype(np.float32)
    made = LGBMClassifier(n_estimators=20, n_jobs=1, verbose=-1, random_state=1).fit(x, (x[:, 0] > 0).astype(int))
    x[::3, 0] = np.nan
    assert np.abs(answers(OnnxConverter()(made, 3), x) - made.predict_proba(x)).max() < 1e-6


def test_the_same_model_gives_the_same_bytes() -> None:
    x = np.random.default_rng(4).normal(size=(200, 2)).astype(np.float32)
    for made in (
        LGBMClassifier(n_estimators=3, n_jobs=1, verbose=-1).fit(x, (x[:, 0] > 0).astype(int)),
        LogisticRegression().fit(x, (x[:, 0] > 0).astype(int)),
    ):
        assert OnnxConverter()(made, 2) == OnnxConverter()(made, 2)


def test_the_order_in_which_a_process_lists_the_operator_sets_does_not_matter() -> None:
    """It comes from a set of texts: one process in ten gave other bytes for the same model."""
    x = np.random.default_rng(2).normal(size=(50, 3))
    whole = OnnxConverter()(LGBMClassifier(n_estimators=3, verbose=-1).fit(x, (x[:, 0] > 0).astype(int)), 3)
    model = onnx.load_from_string(whole)
    domains = [one.domain for one in model.opset_import]
    assert domains == ["", "ai.onnx.ml"]
    listed = [*reversed(model.opset_import), model.opset_import[0]]
    del model.opset_import[:]
    model.opset_import.extend(listed)
    assert canonical(model) == whole
