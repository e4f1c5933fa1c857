"""One turn of the pipeline on a real project."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import projects
from homeostat import codec
from homeostat.adapters.runtime import OnnxRuntime
from homeostat.domain.errors import CheckFailed, ConfigError, DataError, PipelineError
from homeostat.domain.gate import Verdict
from homeostat.domain.rollout import Arm, Route, Routing
from homeostat.domain.run import RunResult
from homeostat.domain.schema import Task
from homeostat.domain.units import DAY_MS
from homeostat.engines.drift import drift
from homeostat.engines.drift.profile import PREDICTION, Reference, profile, reference
from homeostat.engines.evaluation import Evaluation
from homeostat.engines.metrics import losses
from homeostat.engines.split import split
from homeostat.engines.transform import matrix
from homeostat.services.holdout import held
from homeostat.serving.bundles import Shelf
from homeostat.wiring.stores import in_memory
from homeostat.wiring.system import System


def ran(result: RunResult) -> set[str]:
    return {step.name for step in result.steps if not step.cached}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return projects.make(tmp_path / "cards")


def test_a_metric_of_the_projects_own_gates_and_its_edit_measures_anew(root: Path) -> None:
    text = "def cost(y, scores):\n    return (PRICE * (y == 1) * (scores[:, 1] < 0.5)).mean()\n\n\nPRICE = 40\n"
    (root / "metrics.py").write_text(text)
    projects.edited(root, "homeostat.yaml", "roc_auc, versus: champion, margin: 0.05", "'metrics:cost', at_most: 100")
    projects.edited(root, "homeostat.yaml", "metric: roc_auc,", "metric: 'metrics:cost',")
    one = projects.system(root)
    before = one.runs.run()
    assert before.gates[0].verdict is Verdict.OK
    (first, *_) = before.measurements
    assert (first.metric, first.n) == ("metrics:cost", before.measurements[1].n)
    assert 0 < first.low < first.value < first.high
    projects.edited(root, "metrics.py", "PRICE = 40", "PRICE = 400")
    again = projects.system(root, one.stores).runs.run()
    assert again.measurements[0].value == pytest.approx(10 * first.value)
    assert {"evaluate", "bundle"} <= ran(again) <= {"evaluate", "bundle", "checks"}
    projects.edited(root, "homeostat.yaml", "metric: 'metrics:cost',", "metric: 'metrics:gain',")
    with pytest.raises(PipelineError, match="there is no 'gain' in metrics"):
        projects.system(root)


def test_a_turn_ends_in_a_whole_bundle_and_a_registered_version(root: Path) -> None:
    one = projects.system(root)
    result = one.runs.run()
    assert result.version is not None
    assert result.version.number == 1
    assert one.stores.tracker.versions("cards") == [result.version]
    assert one.stores.tracker.aliases == {("cards", "challenger"): result.version}
    manifest = one.bundles.load(result.version.bundle)
    assert set(manifest.files) == {
        "model.onnx", "evaluated.onnx", "profile", "habits.json", "evaluation.json", "holdout.parquet", "run.json",
        "environment.txt", "report.html",
    }  # fmt: skip
    assert Shelf(one.stores.blobs, OnnxRuntime()).load(result.version.bundle) is not None
    assert 0 < len(manifest.sample) <= 8
    kept = held(one.stores.blobs, manifest)
    assert kept is not None
    assert (kept.frame.columns, kept.output.shape) == ([*manifest.schema.names], (len(kept.y), 2))
    evaluation = codec.decode(one.bundles.file(manifest, "evaluation.json"), Evaluation)
    assert evaluation.importance["amount"] > max(0.0, evaluation.importance["country"])
    assert evaluation.loss.mean == pytest.approx(losses(Task.BINARY, kept.y, kept.output, 1.0).mean())
    assert Reference.from_bytes(one.bundles.file(manifest, "profile")).layouts.keys() >= {"amount", "@prediction"}
    record = one.bundles.record(manifest)
    assert (record.id, record.dataset, record.params["num_leaves"]) == (result.id, result.dataset, "7")
    assert "lightgbm==" in one.bundles.file(manifest, "environment.txt").decode()
    assert manifest.trained_until_ms > manifest.evaluated_until_ms
    assert result.measurements[0].metric == "roc_auc"
    assert result.measurements[0].value > 0.8


def test_a_second_turn_makes_nothing_and_a_comment_changes_nothing(root: Path) -> None:
    one = projects.system(root)
    first = one.runs.run()
    events = len(one.stores.journal.read("cards"))
    projects.edited(root, "pipelines/train.py", "return LGBM", "# a comment\n    return LGBM")
    again = one.runs.run()
    assert ran(again) == set()
    assert (again.id, again.version) == (first.id, first.version)
    assert len(one.stores.journal.read("cards")) == events


def test_what_depends_on_a_change_runs_and_nothing_else(root: Path) -> None:
    one = projects.system(root)
    first = one.runs.run()
    projects.edited(root, "lib.py", "return 7", "return 5")  # a helper, a module away
    second = one.runs.run()
    assert "checks" not in ran(second)
    assert ran(second) >= {"params", "model", "convert", "evaluate", "bundle", "model (refit)"}
    assert second.version is not None
    assert (second.version.number, second.id == first.id) == (2, False)
    projects.edited(root, "checks/schema.py", "100_000", "90_000")
    third = one.runs.run()
    assert "checks" in ran(third)
    assert "params" not in ran(third)


def test_new_rows_make_a_new_data_version(root: Path) -> None:
    one = projects.system(root)
    first = one.runs.run()
    projects.rows(days=33).write_parquet(root / "rows.parquet")
    second = one.runs.run()
    assert (first.dataset.version, second.dataset.version) == (0, 1)
    assert second.version is not None
    assert second.version.number == 2


def test_a_broken_row_stops_the_run_and_names_itself(root: Path) -> None:
    frame = projects.rows()
    broken = frame.with_columns(
        pl.when(pl.int_range(pl.len()) == 7).then(-1.0).otherwise(pl.col("amount")).alias("amount")
    )
    broken.write_parquet(root / "rows.parquet")
    one = projects.system(root)
    with pytest.raises(CheckFailed, match=r"amount: in_range(.|\n)*row 8 \(-1\.0\)"):
        one.runs.run()
    assert not one.stores.tracker.versions("cards")
    broken.with_columns(pl.col("amount").abs()).write_parquet(root / "rows.parquet")
    assert one.runs.run().version is not None


def test_a_missed_threshold_registers_nothing(root: Path) -> None:
    projects.edited(root, "homeostat.yaml", "gates:", "gates:\n  - {metric: roc_auc, at_least: 0.999}")
    one = projects.system(root)
    result = one.runs.run()
    assert (result.version, result.verdict) == (None, Verdict.HARM)
    assert not one.stores.tracker.versions("cards")


def test_a_gate_that_could_not_be_measured_registers_nothing(root: Path) -> None:
    late = pl.int_range(pl.len()) >= 27 * 72
    alike = projects.rows().with_columns(pl.when(late).then(0).otherwise(pl.col("fraud")).alias("fraud"))
    alike.write_parquet(root / "rows.parquet")
    projects.edited(root, "homeostat.yaml", "gates:", "gates:\n  - {metric: roc_auc, at_least: 0.1}")
    one = projects.system(root)
    result = one.runs.run()
    assert (result.version, result.verdict) == (None, Verdict.INVALID)
    assert not one.stores.tracker.versions("cards")


def test_in_another_environment_everything_runs_again(root: Path) -> None:
    stores = in_memory()
    first = projects.system(root, stores).runs.run()
    other = projects.system(root, stores)
    other.environment += "lightgbm==99\n"
    again = other.runs.run()
    assert {step.key for step in first.steps}.isdisjoint(step.key for step in again.steps)
    assert again.version is not None
    assert "lightgbm==99" in other.bundles.file(other.bundles.load(again.version.bundle), "environment.txt").decode()


def served(one: System, result: RunResult) -> None:
    assert result.version is not None
    arm = Arm(result.version.number, result.version.bundle)
    one.stores.router.publish(Routing(one.stores.router.read().version + 1, {"cards": Route("R1", arm)}))


def test_a_worse_candidate_is_refused_on_the_rows_that_are_new_to_the_champion(root: Path) -> None:
    frame = projects.rows()
    frame.head(27 * 72).write_parquet(root / "rows.parquet")
    one = projects.system(root)
    served(one, one.runs.run())
    frame.write_parquet(root / "rows.parquet")
    projects.edited(root, "pipelines/train.py", ".fit(x, y)", ".fit(x, 1 - y)")
    worse = one.runs.run()
    assert (worse.version, worse.gates[0].verdict) == (None, Verdict.HARM)
    measured = worse.gates[0].measurement
    assert measured is not None
    assert measured.n == 3 * 72  # the holdout, all of it later than what the champion learned from
    assert "as it was evaluated" not in worse.gates[0].reason


def test_a_cached_run_is_judged_against_the_champion_of_today(root: Path) -> None:
    one = projects.system(root)
    first = one.runs.run()
    assert first.gates[0].reason == "no champion yet"
    served(one, first)
    again = one.runs.run()
    assert again.version == first.version
    assert "against version 1" in again.gates[0].reason


def test_on_the_same_data_the_champion_stands_as_it_was_evaluated(root: Path) -> None:
    one = projects.system(root)
    served(one, one.runs.run())
    projects.edited(root, "lib.py", "return 7", "return 6")
    again = one.runs.run()
    assert again.version is not None
    assert again.gates[0].reason.endswith("against version 1 as it was evaluated")
    measured = again.gates[0].measurement
    assert measured is not None
    assert abs(measured.value) < 0.05


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("return LGBM", "raise ValueError('no')\n    return LGBM", r"ValueError: no(.|\n)*pipelines/train.py:\d+"),
        ("def model(", "def other(", "makes no model"),
        ("seed: int)", "seed: int, weights: np.ndarray)", "nothing makes 'weights', which model needs"),
        ("x: np.ndarray, y", "x, y", "no graph"),
        ("def params() ->", "def params( ->", "not valid Python"),
        ("return LGBM", "raise SystemExit(3)\n    return LGBM", "SystemExit: 3"),
        (".fit(x, y)", "", r"can't be converted|pipeline failed|not fitted"),
    ],
)
def test_a_broken_pipeline_says_what_is_wrong(root: Path, old: str, new: str, message: str) -> None:
    projects.edited(root, "pipelines/train.py", old, new)
    one = projects.system(root)
    with pytest.raises(PipelineError, match=message):
        one.runs.run()
    assert not one.stores.tracker.versions("cards")


SLY = """
def turned(made: LGBMClassifier, x: np.ndarray) -> np.ndarray:
    return LGBMClassifier.predict_proba(made, x)[:, ::-1]


def sly(made: LGBMClassifier) -> LGBMClassifier:
    made.predict_proba = partial(turned, made)
    return made


def params()"""


def test_an_estimator_that_onnx_tells_otherwise_is_refused(root: Path) -> None:
    """Its own answers are turned round; what the converter reads of it is not."""
    projects.edited(root, "pipelines/train.py", "def params()", SLY.lstrip())
    projects.edited(root, "pipelines/train.py", "from typing", "from functools import partial\nfrom typing")
    projects.edited(root, "pipelines/train.py", "return LGBMClassifier(**params", "return sly(LGBMClassifier(**params")
    projects.edited(root, "pipelines/train.py", ".fit(x, y)", ".fit(x, y))")
    one = projects.system(root)
    with pytest.raises(PipelineError, match="differs from the native one"):
        one.runs.run()
    assert not one.stores.tracker.versions("cards")


HEAD = """
from typing import Any

import numpy as np
from hamilton.function_modifiers import extract_fields, parameterize, value
from lightgbm import LGBMClassifier, LGBMRegressor

"""
FIT = """
def model(x: np.ndarray, y: np.ndarray) -> LGBMClassifier:
    return LGBMClassifier(n_estimators=5, num_leaves=5, n_jobs=1, verbose=-1).fit(x, y)
"""
EXTRACTED = """
@extract_fields({"a": int, "b": int})
def both() -> dict:
    return {"a": 3, "b": 9}
"""
PARAMETERIZED = """
@parameterize(a={"v": value(3)}, b={"v": value(9)})
def both(v: int) -> int:
    return v
"""
GATHERED = """
def params(a: int, b: int) -> dict[str, Any]:
    return {"a": a, "b": b}
"""


@pytest.mark.parametrize("decorated", [EXTRACTED, PARAMETERIZED])
def test_the_steps_of_one_decorated_function_keep_apart(tmp_path: Path, decorated: str) -> None:
    one = projects.system(projects.make(tmp_path / "p", train=HEAD + decorated + GATHERED + FIT))
    for _ in range(2):  # made, then from the cache
        version = one.runs.run().version
        assert version is not None
        assert one.bundles.record(one.bundles.load(version.bundle)).params == {"a": "3", "b": "9"}


def test_a_parameter_may_have_a_default(tmp_path: Path) -> None:
    train = HEAD + FIT.replace("y: np.ndarray)", "y: np.ndarray, trees: int = 5)").replace("=5, num", "=trees, num")
    root = projects.make(tmp_path / "p", train=train)
    one = projects.system(root)
    first = one.runs.run()
    projects.edited(root, "pipelines/train.py", "int = 5", "int = 6")
    second = one.runs.run()
    assert "model" in ran(second)
    assert first.measurements[0].value != second.measurements[0].value


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (HEAD + "def params() -> list[int]:\n    return [3]\n" + FIT, r"params\(\) must return a mapping"),
        (HEAD + FIT.replace("Classifier", "Regressor"), "LGBMRegressor has no predict_proba"),
        (HEAD + "def x(y: np.ndarray) -> np.ndarray:\n    return y\n" + FIT, "'x' is given"),
        ("from lib import model\n", "makes no model"),
        ("model = 3\n", "makes no model"),
        (HEAD + FIT.replace("return LGBM", "LGBM"), "NoneType can't be converted"),
    ],
)
def test_what_is_no_pipeline_is_named(tmp_path: Path, train: str, message: str) -> None:
    root = projects.make(tmp_path / "p", train=train)
    (root / "lib.py").write_text(HEAD + FIT)
    one = projects.system(root)
    with pytest.raises(PipelineError, match=message):
        one.runs.run()
    assert not one.stores.tracker.versions("cards")


def test_gates_that_changed_judge_anew(root: Path) -> None:
    """The model comes from the cache; what is said of it does not."""
    stores = in_memory()
    first = projects.system(root, stores).runs.run()
    projects.edited(root, "homeostat.yaml", "gates:", "gates:\n  - {metric: accuracy, at_least: 0.1}")
    second = projects.system(root, stores).runs.run()
    assert [gate.name for gate in second.gates] == ["accuracy at least 0.1", "roc_auc versus champion"]
    assert ran(second) == {"evaluate", "bundle"}
    assert second.id != first.id
    projects.edited(root, "homeostat.yaml", "metric: accuracy, at_least", "metric: bogus, at_least")
    with pytest.raises(ConfigError, match="'bogus' is no metric"):
        projects.system(root, stores).runs.run()


def test_a_bundle_knows_the_windows_that_are_watched(root: Path) -> None:
    stores = in_memory()
    projects.system(root, stores).runs.run()
    policy = (root / "homeostat.yaml").read_text()
    (root / "homeostat.yaml").write_text(policy + "monitor: {windows: [2d]}\n")
    one = projects.system(root, stores)
    version = one.runs.run().version
    assert version is not None
    profile = Reference.from_bytes(one.bundles.file(one.bundles.load(version.bundle), "profile"))
    assert set(profile.calibrations) == {2 * DAY_MS}


def test_a_champion_of_other_classes_is_not_compared(tmp_path: Path) -> None:
    policy = projects.POLICY.replace("task: binary", "task: multiclass").replace("checks: checks.schema:Rows\n", "")
    policy = policy.replace("roc_auc", "log_loss")
    root = projects.make(tmp_path / "p", projects.rows(27), policy)
    one = projects.system(root)
    served(one, one.runs.run())
    third = pl.when(pl.col("fraud") == 0).then(2).otherwise(pl.col("fraud")).alias("fraud")  # 0 is none any more
    projects.rows(30).with_columns(third).write_parquet(root / "rows.parquet")
    result = one.runs.run()
    assert result.gates[0].verdict is Verdict.UNKNOWN
    assert result.gates[0].reason == "version 1 has other inputs or other classes than these rows"


def test_booleans_as_classes_and_gaps_in_numbers(tmp_path: Path) -> None:
    gaps = pl.when(pl.int_range(pl.len()) % 7 == 0).then(None).otherwise(pl.col("amount")).alias("amount")
    frame = projects.rows().with_columns(pl.col("fraud") == 1, gaps)
    root = projects.make(tmp_path / "p", frame, projects.POLICY.replace("checks: checks.schema:Rows\n", ""))
    one = projects.system(root)
    result = one.runs.run()
    assert result.version is not None
    schema = one.bundles.load(result.version.bundle).schema
    assert schema.classes == (False, True)
    assert [field.nullable for field in schema.fields] == [True, False, True, False]
    assert result.measurements[0].value > 0.7


def test_a_class_that_the_window_lacks_is_named(root: Path) -> None:
    frame = projects.rows()
    late = pl.int_range(pl.len()) > 25 * 72
    frame.with_columns(pl.when(late).then(pl.col("fraud")).otherwise(0).alias("fraud")).write_parquet(
        root / "rows.parquet"
    )
    projects.edited(root, "homeostat.yaml", "holdout: 3d", "holdout: 6d")
    with pytest.raises(DataError, match="hold no row with fraud = 1"):
        projects.system(root).runs.run()


def test_what_answers_are_worth_is_there_from_the_start(root: Path) -> None:
    projects.edited(root, "homeostat.yaml", "rehearsal:", "monitor: {value: 'lib:price'}\nrehearsal:")
    with pytest.raises(PipelineError, match=r"there is no 'price' in lib\nhomeostat.yaml: monitor.value"):
        projects.system(root)


@pytest.mark.parametrize(
    ("name", "what"),
    [("contry", "names contry, which is no input"), ("amount", "names amount, a number"), ("fraud", "is no input")],
)
def test_segments_that_are_none_are_named(root: Path, name: str, what: str) -> None:
    """They would be neither measured nor told, and each release would freeze for them."""
    projects.edited(root, "homeostat.yaml", "rehearsal:", f"monitor: {{segments: [online, {name}]}}\nrehearsal:")
    with pytest.raises(ConfigError) as told:
        projects.system(root).runs.run()
    assert what in str(told.value)
    assert "homeostat.yaml  monitor.segments" in str(told.value)
    assert "country, online" in str(told.value)


BY_HEART = """
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline


def model(x: np.ndarray, y: np.ndarray, seed: int) -> Pipeline:
    return make_pipeline(SimpleImputer(), RandomForestClassifier(40, random_state=seed)).fit(x, y)
"""


@pytest.mark.parametrize(("refit", "naive"), [("true", range(11, 21)), ("false", range(1))])
def test_a_model_that_knows_its_rows_by_heart_raises_no_alarm(tmp_path: Path, refit: str, naive: range) -> None:
    """Its answers to the rows that it learned from are surer than any to come; where it has not learned its holdout
    that would look like an ordinary wobble."""
    policy = projects.POLICY.replace("holdout: 3d}", f"holdout: 6d, refit: {refit}}}")
    root = projects.make(tmp_path / "p", projects.rows(30, 144), policy, BY_HEART)
    one = projects.system(root)
    result = one.runs.run()
    assert result.version is not None
    assert "answers" in {step.name for step in result.steps}
    bundle = one.bundles.load(result.version.bundle)
    model = OnnxRuntime().load(one.bundles.file(bundle, "model.onnx"))
    known = Reference.from_bytes(one.stores.blobs.get(bundle.files["profile"]))

    def alarms(rows: pl.DataFrame, beside: Reference) -> int:
        rows = rows.select(bundle.schema.names)
        seen = profile(beside, rows, model(matrix(bundle.schema, rows.to_dict())))
        found = drift(beside, seen, 0.01)
        return sum(one.verdict is Verdict.HARM for one in found if one.subject == PREDICTION)

    days = [projects.rows(1, 144, seed=seed) for seed in range(20, 40)]
    assert sum(alarms(day, known) for day in days) == 0
    window = split(one.policy.train, one.data.read(result.dataset)).window
    own = reference(bundle.schema, window, model(matrix(bundle.schema, window.select(bundle.schema.names).to_dict())))
    assert sum(alarms(day, own) > 0 for day in days) in naive


def test_an_unknown_metric_lists_the_known_ones(root: Path) -> None:
    projects.edited(root, "homeostat.yaml", "metric: roc_auc, window", "metric: mae, window")
    with pytest.raises(ConfigError, match=r"'mae' is no metric for the task binary(.|\n)*accuracy"):
        projects.system(root).runs.run()


Target = Callable[[pl.DataFrame], pl.Series]
SKLEARN = """
import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.linear_model import {name}
from sklearn.pipeline import Pipeline, make_pipeline


def model(x: np.ndarray, y: np.ndarray) -> Pipeline:
    return make_pipeline(SimpleImputer(), {name}()).fit(x, y)
"""


@pytest.mark.parametrize(
    ("task", "metric", "estimator", "target"),
    [
        ("binary", "roc_auc", "LogisticRegression", lambda f: f["fraud"] == 1),
        ("multiclass", "accuracy", "LogisticRegression", lambda f: f["hour"] % 3),
        ("regression", "mae", "Ridge", lambda f: f["amount"] * 2 + 1),
    ],
)
def test_scikit_learn_and_every_task(tmp_path: Path, task: str, metric: str, estimator: str, target: Target) -> None:
    frame = projects.rows()
    policy = projects.POLICY.replace("task: binary", f"task: {task}").replace("roc_auc", metric)
    policy = policy.replace("checks: checks.schema:Rows\n", "")
    made = frame.with_columns(target(frame).alias("fraud"))
    root = projects.make(tmp_path / "p", made, policy, SKLEARN.format(name=estimator))
    one = projects.system(root)
    result = one.runs.run()
    assert result.version is not None
    manifest = one.bundles.load(result.version.bundle)
    assert [field.name for field in manifest.schema.fields] == ["amount", "hour", "country", "online"]
    assert manifest.schema.fields[2].nullable
    assert np.isfinite(result.measurements[0].value)


def test_progress_counts_up(root: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    projects.system(root, in_memory()).runs.run(lambda done, total, doing: seen.append((done, total, doing)))
    assert [done for done, _, _ in seen] == list(range(len(seen)))
    assert all(done < total for done, total, _ in seen)
