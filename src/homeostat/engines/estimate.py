"""What a metric would be if the labels were known already: from the model's own scores, calibrated on its holdout.

A calibrated score p is the chance that the second class is true, so that the expected confusion matrix follows, and
every metric from it (confidence-based estimation: Guillory et al., "Predicting with Confidence on Unseen
Distributions", 2021; NannyML's CBPE). It holds as long as a score is right as often as it was on the holdout: when
other rows come, but not when the same rows come to mean something else. For numbers, the rows of the holdout are
grouped by how large the errors were, and a window's metric follows from its share of each group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.estimate import BLIND, Estimate
from homeostat.domain.gate import Verdict
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.engines import metrics
from homeostat.engines.calibration import calibrated
from homeostat.engines.groups import Group, groups, halves, placed

Array = NDArray[np.float64]
LEAST = 100
"""Labelled rows of a holdout; fewer calibrate nothing."""
LEAST_NUMBERS = 400
"""The same, for errors of numbers: measured on bicycle hire, 168 rows made an estimate worse than none."""
BLOCKS = 20
DRAWS = 30
"""Truths drawn from the calibrated chances: how far labels may come to lie from their expectation."""
DRAWN = 20_000
"""Rows that they are drawn for, at most."""
SURE = 3.0
"""Standard errors by which the metric must have dropped."""
LEAST_DROP = 0.02
"""… and the share of its value on the holdout."""
T_19 = 2.093  # 97.5 % quantile of Student's t with BLOCKS - 1 degrees of freedom
PREDICTION = "@prediction"


def roc_auc(p: Array, output: Array) -> float:
    """The expected share of pairs in the right order, over the expected number of pairs. p, output: (n, c)."""
    classes = [1] if output.shape[1] == 2 else range(output.shape[1])
    return float(np.mean([_auc(p[:, c], output[:, c]) for c in classes]))


def _auc(p: Array, score: Array) -> float:
    """A row makes no pair with itself."""
    _, where = np.unique(score, return_inverse=True)
    positive, negative = np.bincount(where, p), np.bincount(where, 1 - p)
    own = float(np.sum(p * (1 - p)))
    pairs = float(p.sum() * (1 - p).sum()) - own
    ordered = float(np.sum(positive * (np.cumsum(negative) - negative / 2))) - own / 2
    return ordered / pairs if pairs > 0 else float("nan")


def accuracy(p: Array, output: Array) -> float:
    return float(np.mean(p[np.arange(len(p)), np.argmax(output, axis=1)]))


def precision(p: Array, output: Array) -> float:
    return _ratio(p[_answered(output), 1].sum(), _answered(output).sum())


def recall(p: Array, output: Array) -> float:
    return _ratio(p[_answered(output), 1].sum(), p[:, 1].sum())


def f1(p: Array, output: Array) -> float:
    answered = _answered(output)
    return _ratio(2 * p[answered, 1].sum(), answered.sum() + p[:, 1].sum())


def log_loss(p: Array, output: Array) -> float:
    return float(-np.mean(np.sum(p * np.log(np.clip(output, 1e-15, 1)), axis=1)))


def brier(p: Array, output: Array) -> float:
    return float(np.mean((np.sum(output**2, axis=1) - 2 * np.sum(p * output, axis=1) + 1) / 2))


def _answered(output: Array) -> NDArray[np.bool_]:
    return np.asarray(np.argmax(output, axis=1) == 1)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")


EXPECTED: Mapping[str, Callable[[Array, Array], float]] = {
    "roc_auc": roc_auc,
    "accuracy": accuracy,
    "precision": precision,
    "recall": recall,
    "f1": f1,
    "log_loss": log_loss,
    "brier": brier,
}
"""(chances of the classes (n, c), output (n, c)) → the metric to be expected."""


def confusion(p: Array, output: Array) -> Array:
    """(c, c) expected rows: the truth down, the answer across."""
    answered = np.argmax(output, axis=1)
    return np.stack([p[answered == c].sum(axis=0) for c in range(output.shape[1])], axis=1)


@dataclass(frozen=True, slots=True)
class Held:
    """A model on the n rows of its holdout, in order of time: a column a field, the truth (n,), its output (n, c)."""

    frame: pl.DataFrame
    y: Array
    output: Array

    def only(self, which: NDArray[np.bool_]) -> Held:
        return Held(self.frame.filter(pl.Series(which)), self.y[which], self.output[which])


Expect = Callable[[pl.DataFrame, Array], tuple[float, float]]
"""(inputs, output (n, c)) of a window → the metric, and the variance that its labels will add."""


@dataclass(frozen=True, slots=True)
class Anchored:
    """An expectation, and the metric `value` that was measured on the rows it was learned from, where it expects
    `here`: what counts is the difference. An expectation alone is too good, by as much as it was fitted to chance."""

    expect: Expect
    value: float
    here: float

    def drop(self, frame: pl.DataFrame, output: Array) -> float:
        return self.here - self.expect(frame, output)[0]


@dataclass(frozen=True, slots=True)
class Expected:
    """What the holdout of `n` rows says of one metric: all of it, and without each of its blocks. `fault`: why the
    metric can't be estimated."""

    metric: str
    value: float
    n: int
    whole: Anchored | None
    without: Sequence[Anchored] = ()
    fault: str = ""


def expected(metric: str, schema: Schema, held: Held) -> Expected:
    """Everything that a holdout says, once a model. Errors: KeyError, unknown metric."""
    fault = _fault(metric, schema, held)
    if fault:
        return Expected(metric, float("nan"), len(held.y), None, (), fault)
    block = np.arange(len(held.y)) * BLOCKS // len(held.y)
    without = [_anchored(metric, schema, held.only(block != one), 0) for one in range(BLOCKS)]
    whole = _anchored(metric, schema, held, DRAWS)
    return Expected(metric, whole.value, len(held.y), whole, without)


def nothing_held(metric: str) -> Expected:
    """Of a bundle that keeps no holdout."""
    return Expected(metric, float("nan"), 0, None, (), "this version was made before its holdout was kept; train anew")


def _anchored(metric: str, schema: Schema, held: Held, draws: int) -> Anchored:
    make = _by_groups if schema.task is Task.REGRESSION else _by_chance
    expect = make(metric, schema, held, draws)
    value = metrics.METRICS[metric].function(held.y, held.output)
    return Anchored(expect, value, expect(held.frame, held.output)[0])


def _fault(metric: str, schema: Schema, held: Held) -> str:
    least = LEAST_NUMBERS if schema.task is Task.REGRESSION else LEAST
    if len(held.y) < least:
        return f"the holdout has {len(held.y)} rows; {least} are needed"
    if schema.task is Task.REGRESSION:
        return _fault_of_numbers(metric, schema, held)
    if metric not in EXPECTED:
        return f"{metric} can't be estimated; {', '.join(EXPECTED)} can"
    absent = [str(known) for c, known in enumerate(schema.classes) if not (held.y == c).any()]
    return f"the holdout has no row with {schema.target} = {absent[0]}" if absent else ""


def _fault_of_numbers(metric: str, schema: Schema, held: Held) -> str:
    if metric not in ("mae", "rmse"):
        return f"{metric} of a number can't be estimated; mae and rmse can"
    some = len(_groups(schema, held)) > 1
    return "" if some else "nothing sets the rows of the holdout with large errors apart from the others"


def _groups(schema: Schema, held: Held) -> list[Group]:
    """Found on one half of the holdout."""
    fields = [*(field for field in schema.fields if field.name in held.frame.columns), Field(PREDICTION, Kind.NUMBER)]
    half = held.only(halves(len(held.y)))
    return groups(fields, _with_answer(half.frame, half.output), np.abs(half.output[:, 0] - half.y))


def _by_chance(metric: str, _schema: Schema, held: Held, draws: int) -> Expect:
    calibration, function = calibrated(held.y, held.output), metrics.METRICS[metric].function

    def expect(_frame: pl.DataFrame, output: Array) -> tuple[float, float]:
        p = calibration(output)
        value = EXPECTED[metric](p, output)
        some = slice(None, None, -(-len(output) // DRAWN))
        return value, _spread(function, p[some], output[some], draws) * len(p[some]) / len(p) if draws else 0.0

    return expect


def _spread(function: Callable[[Array, Array], float], p: Array, output: Array, draws: int) -> float:
    """The variance of the metric over truths drawn from p (n, c). The same rows give the same truths."""
    rng = np.random.default_rng(len(p))
    edges = np.cumsum(p, axis=1)[:, :-1]
    truths = ((rng.random((len(p), 1)) > edges).sum(axis=1).astype(np.float64) for _ in range(draws))
    found = np.array([function(y, output) for y in truths])
    known = found[np.isfinite(found)]
    return float(known.var(ddof=1)) if len(known) > draws / 2 else float("inf")


def _by_groups(metric: str, schema: Schema, held: Held, draws: int) -> Expect:
    """The errors of each group come from all of the holdout."""
    errors = np.abs(held.output[:, 0] - held.y)
    power = 2 if metric == "rmse" else 1
    found = _groups(schema, held)
    where = placed(found, _with_answer(held.frame, held.output))
    known = [errors[where == place] ** power for place in range(len(found))]
    level = float(np.mean(errors**power))
    means = np.array([float(one.mean()) if len(one) else level for one in known])
    spreads = np.array([float(one.var()) if len(one) else float(np.var(errors**power)) for one in known])

    def expect(frame: pl.DataFrame, output: Array) -> tuple[float, float]:
        here = placed(found, _with_answer(frame, output))
        value, variance = float(means[here].mean()), float(spreads[here].mean()) / len(here) if draws else 0.0
        return (float(np.sqrt(value)), variance / (4 * value or 1.0)) if power == 2 else (value, variance)

    return expect


def _with_answer(frame: pl.DataFrame, output: Array) -> pl.DataFrame:
    return frame.with_columns(pl.Series(PREDICTION, output[:, 0]))


def estimate(found: Expected, frame: pl.DataFrame, output: Array) -> Estimate:
    """The metric to be expected on the rows of a window: inputs, output (n, c). Its interval covers what the labels of
    these rows may say, and that the holdout is finite (delete-a-block jackknife). Harm: it dropped for sure."""
    known = np.isfinite(output).all(axis=1)
    frame, output = frame.filter(pl.Series(known)), output[known]
    if found.whole is None or not len(output):
        return _unknown(found, found.fault or "no row has a score", len(output))
    expects, noise = found.whole.expect(frame, output)
    fall = found.whole.here - expects
    parts = np.array([(one.value, one.drop(frame, output)) for one in found.without])
    if not np.isfinite([fall, noise]).all() or not np.isfinite(parts).all():
        return _unknown(found, "too few rows with each answer", len(output))
    width = T_19 * float(np.sqrt(_jackknife(parts[:, 0] - parts[:, 1]) + noise))
    error = float(np.sqrt(_jackknife(parts[:, 1]) + noise))
    value = _within(found.metric, found.value - fall)
    drop = fall if metrics.METRICS[found.metric].higher_is_better else -fall
    low, high = _within(found.metric, value - width), _within(found.metric, value + width)
    made = Estimate(found.metric, value, low, high, len(output), found.value, drop, error)
    harm = drop > SURE * error and drop > LEAST_DROP * abs(found.value)
    return made.dropped() if harm else made


def _within(metric: str, value: float) -> float:
    """A share is none above 1, no metric of ours that can be estimated is below 0."""
    return max(0.0, min(value, 1.0) if metric in EXPECTED and metric != "log_loss" else value)


def _unknown(found: Expected, why: str, n: int) -> Estimate:
    nothing = float("nan")
    return Estimate(found.metric, nothing, nothing, nothing, n, found.value, 0.0, 0.0, Verdict.UNKNOWN, why)


def _jackknife(values: Array) -> float:
    return float((BLOCKS - 1) / BLOCKS * np.sum((values - values.mean()) ** 2))


__all__ = ["BLIND", "EXPECTED", "Estimate", "Expected", "Held", "confusion", "estimate", "expected"]
