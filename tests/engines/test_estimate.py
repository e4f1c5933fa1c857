"""Metrics without labels: right when other rows come, within the interval they tell, and blind to a changed concept."""

from __future__ import annotations

from itertools import product

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.isotonic import IsotonicRegression

from homeostat.domain.estimate import BLIND, Estimate
from homeostat.domain.gate import Verdict
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.engines import metrics
from homeostat.engines.calibration import calibrated, isotonic
from homeostat.engines.estimate import EXPECTED, Held, confusion, estimate, expected, nothing_held
from homeostat.engines.importance import agreement, importance, matter

Array = NDArray[np.float64]
SCHEMA = Schema((Field("a", Kind.NUMBER), Field("b", Kind.NUMBER)), Task.BINARY, "y", (0, 1))


def drawn(rng: np.random.Generator, n: int, by: Array) -> NDArray[np.intp]:
    """n rows, the more of them the higher `by` is among all: another mix of the same rows."""
    weight = np.exp(by.argsort().argsort() / len(by) * 4)
    return rng.choice(len(by), n, p=weight / weight.sum())


def world(n: int, seed: int) -> tuple[pl.DataFrame, Array, Array]:
    """Rows, truth, and the output of an overconfident model that knows one of two inputs."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, n))
    y = (rng.random(n) < 1 / (1 + np.exp(-1.5 * a))).astype(np.float64)
    score = 1 / (1 + np.exp(-3 * a))
    return pl.DataFrame({"a": a, "b": b}), y, np.column_stack([1 - score, score])


def test_isotonic_regression_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    scores, hits = rng.random(500).round(2), (rng.random(500) < 0.4).astype(np.float64)
    theirs = IsotonicRegression().fit_transform(scores, hits)
    ours = isotonic(scores, hits)
    assert ours.chances == pytest.approx(np.unique(theirs))
    assert (np.diff(ours(np.linspace(0, 1, 50))) >= 0).all()


@pytest.mark.parametrize("metric", ["accuracy", "log_loss", "brier"])
def test_a_mean_over_rows_is_its_expectation_over_all_truths(metric: str) -> None:
    rng = np.random.default_rng(2)
    p, output = rng.dirichlet([1, 1, 1], 5), rng.dirichlet([1, 1, 1], 5)
    function = metrics.METRICS[metric].function
    truths = [np.array(truth, np.float64) for truth in product(range(3), repeat=5)]
    exact = sum(np.prod(p[np.arange(5), y.astype(int)]) * function(y, output) for y in truths)
    assert EXPECTED[metric](p, output) == pytest.approx(exact)


@pytest.mark.parametrize("metric", list(EXPECTED))
def test_sure_chances_give_the_metric_itself(metric: str) -> None:
    rng = np.random.default_rng(3)
    y, score = rng.integers(2, size=60).astype(np.float64), rng.random(60).round(1)
    output = np.column_stack([1 - score, score])
    p = np.column_stack([1 - y, y])
    assert EXPECTED[metric](p, output) == pytest.approx(metrics.METRICS[metric].function(y, output))
    assert confusion(p, output).sum() == 60


def test_three_classes_are_calibrated_against_each_other() -> None:
    rng = np.random.default_rng(4)
    output = rng.dirichlet([1, 1, 1], 6_000)
    softer = output**0.5 / (output**0.5).sum(axis=1, keepdims=True)
    y = (rng.random((6_000, 1)) > softer.cumsum(axis=1)).sum(axis=1).astype(np.float64)
    p = calibrated(y[:3_000], output[:3_000])(output[3_000:])
    assert p.sum(axis=1) == pytest.approx(1)
    assert np.abs(p - softer[3_000:]).mean() < 0.04 < np.abs(output - softer).mean()


@pytest.mark.parametrize("metric", list(EXPECTED))
def test_under_covariate_shift_the_interval_holds_what_labels_say(metric: str) -> None:
    """20 holdouts and windows: 95 % intervals miss 4 at most, in 99.7 of 100 such tests."""
    missed, apart, moved = 0, [], []
    for seed in range(20):
        rng = np.random.default_rng(1_000 + seed)
        frame, y, output = world(3_000, seed)
        later, truth, said = world(4_000, 500 + seed)
        rows = drawn(rng, 2_000, later["a"].to_numpy())
        found = estimate(expected(metric, SCHEMA, Held(frame, y, output)), later[rows], said[rows])
        real = metrics.METRICS[metric].function(truth[rows], said[rows])
        missed += not found.low <= real <= found.high
        apart.append(abs(found.value - real))
        moved.append(abs(found.reference - real))
    assert missed <= 4
    assert np.mean(apart) < 0.6 * np.mean(moved)


def test_real_rows_under_covariate_shift() -> None:
    """Handwritten digits, is it 5 or more: the mix moved along each of several pixels."""
    digits = load_digits()
    order = np.random.default_rng(1).permutation(len(digits.target))
    x, y = digits.data[order], (digits.target[order] >= 5).astype(np.float64)
    output = GradientBoostingClassifier(n_estimators=15, random_state=1).fit(x[:600], y[:600]).predict_proba(x)
    names = [f"p{i}" for i in range(64)]
    schema = Schema(tuple(Field(name, Kind.NUMBER) for name in names), Task.BINARY, "y", (0, 1))
    frame = pl.DataFrame(x, schema=names)
    known = expected("roc_auc", schema, Held(frame[600:1200], y[600:1200], output[600:1200]))
    apart = []
    for pixel in range(18, 46, 3):
        rows = 1_200 + drawn(np.random.default_rng(pixel), 3_000, x[1_200:, pixel])
        apart.append(abs(estimate(known, frame[rows], output[rows]).value - metrics.roc_auc(y[rows], output[rows])))
    assert np.mean(apart) < 0.015


def held_and_window() -> tuple[Held, pl.DataFrame, Array, Array]:
    frame, y, output = world(2_000, 7)
    return Held(frame[:1_000], y[:1_000], output[:1_000]), frame[1_000:], y[1_000:], output[1_000:]


def test_a_changed_concept_is_not_seen_and_that_is_said() -> None:
    held, rows, y, output = held_and_window()
    found = estimate(expected("roc_auc", SCHEMA, held), rows, output)
    assert metrics.roc_auc(1 - y, output) < 0.3
    assert found.verdict is Verdict.OK
    assert found.value == pytest.approx(found.reference, abs=0.03)
    assert "concept drift" in BLIND
    assert str(found).startswith("estimated roc_auc")


def test_a_sure_drop_is_harm_and_chance_is_none() -> None:
    held, rows, _, output = held_and_window()
    known = expected("roc_auc", SCHEMA, held)
    near = np.argsort(np.abs(rows["a"].to_numpy()))[:400]
    assert estimate(known, rows[near], output[near]).verdict is Verdict.HARM
    chance = [np.random.default_rng(seed).choice(1_000, 200) for seed in range(100)]
    assert not any(estimate(known, rows[some], output[some]).verdict is Verdict.HARM for some in chance)


NUMBER = Schema((Field("a", Kind.NUMBER), Field("b", Kind.NUMBER)), Task.REGRESSION, "y")


@pytest.mark.parametrize("metric", ["mae", "rmse"])
def test_errors_of_a_number_grow_with_the_mix(metric: str) -> None:
    rng = np.random.default_rng(9)
    a = rng.random(4_000)
    frame, output = pl.DataFrame({"a": a, "b": rng.random(4_000)}), 100 * a[:, None]
    y = 100 * a + rng.standard_normal(4_000) * (1 + 9 * (a > 0.7))
    known = expected(metric, NUMBER, Held(frame[:1_500], y[:1_500], output[:1_500]))
    rows = 1_500 + drawn(rng, 1_000, a[1_500:])
    found = estimate(known, frame[rows], output[rows])
    real = metrics.METRICS[metric].function(y[rows], output[rows])
    assert found.low <= real <= found.high
    assert abs(found.value - real) < 0.3 * abs(found.reference - real)
    assert found.verdict is Verdict.HARM


def why(found: Estimate) -> str:
    assert found.verdict is Verdict.UNKNOWN
    return found.reason


def test_what_cannot_be_estimated_is_unknown() -> None:
    frame, y, output = world(2_000, 7)
    few = Held(frame[:99], y[:99], output[:99])
    assert "99 rows" in why(estimate(expected("roc_auc", SCHEMA, few), frame, output))
    alike = Held(frame, np.zeros(2_000), output)
    assert "no row with y = 1" in why(estimate(expected("roc_auc", SCHEMA, alike), frame, output))
    same = Held(frame, np.random.default_rng(1).standard_normal(2_000), np.zeros((2_000, 1)))
    assert "sets the rows" in why(estimate(expected("mae", NUMBER, same), frame, output))
    assert "mae and rmse can" in why(estimate(expected("r2", NUMBER, same), frame, output))
    assert "train anew" in why(estimate(nothing_held("roc_auc"), frame, output))
    known = expected("roc_auc", SCHEMA, Held(frame, y, output))
    assert "no row has a score" in why(estimate(known, frame[:5], np.full((5, 2), np.nan)))


def test_importance_is_what_the_model_loses_and_versions_agree_on_it() -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((3_000, 2)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.float64)

    def model(x: NDArray[np.float32]) -> Array:
        score = np.clip(0.5 + x[:, 0], 0, 1).astype(np.float64)
        return np.column_stack([1 - score, score])

    found = importance(SCHEMA, x, y, model, 1.0)
    assert found["a"] > 0.2
    assert found["b"] == 0
    assert matter(found) == ("a",)
    assert agreement({"a": 1.0, "b": 0.5, "c": 0.1}, {"a": 9.0, "b": 2.0, "c": 1.0, "d": 5.0}) == pytest.approx(1)
    assert agreement({"a": 1.0, "b": 0.5, "c": 0.1}, {"a": 1.0, "b": 2.0, "c": 3.0}) == pytest.approx(-1)
    assert agreement(found, found) is None
