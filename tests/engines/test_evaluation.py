"""A model on the holdout, and what the gates say of it."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from homeostat.domain.errors import ConfigError
from homeostat.domain.gate import Verdict
from homeostat.domain.policy import DataPolicy, GatePolicy, Policy, TrainPolicy
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.engines import metrics
from homeostat.engines.evaluation import Array, Champion, Evaluated, backtest, comparable, evaluate, gates, loss_scale
from homeostat.engines.split import Split

FIELDS = (Field("x", Kind.NUMBER), Field("t", Kind.TEXT))
BINARY = Schema(FIELDS, Task.BINARY, "y", ("no", "yes"))
VALUE = Schema(FIELDS, Task.REGRESSION, "y")


def policy(schema: Schema, metric: str, *asked: GatePolicy) -> Policy:
    return Policy("m", schema.task, DataPolicy("d.csv", "y"), TrainPolicy(metric), gates=asked)


def parts(values: list[object], holdout: int) -> Split:
    frame = pl.DataFrame({"y": values})
    return Split(frame, frame.head(len(frame) - holdout), frame.tail(holdout))


def probabilities(second: list[float] | Array) -> Array:
    p = np.asarray(second, np.float64)
    return np.column_stack([1 - p, p])


def test_a_classifier_on_four_rows() -> None:
    told = GatePolicy("f1", at_least=0.5)
    found = evaluate(
        policy(BINARY, "accuracy", told), BINARY, parts(["no"] * 9 + ["yes", "no", "yes", "no"], 4),
        probabilities([0.9, 0.2, 0.4, 0.7]),
    )  # fmt: skip
    names = [one.metric for one in found.measurements]
    assert names[:2] == ["accuracy", "f1"]  # the policy's own, its gates', then the others
    assert set(names) == {"accuracy", "f1", "roc_auc", "precision", "recall", "log_loss", "brier", "ece"}
    assert len(set(names)) == len(names)
    assert found.measurements[0].value == 0.5
    assert found.losses == pytest.approx([0.01, 0.04, 0.36, 0.49])  # the squared distance
    assert found.loss_scale == 1


def test_a_value_is_as_wrong_as_the_window_is_wide() -> None:
    values = [float(one) for one in range(101)]  # quantiles 5 and 95
    found = evaluate(policy(VALUE, "mae"), VALUE, parts(values, 3), np.array([[98.0], [54.0], [400.0]]))
    assert found.loss_scale == 90
    assert found.losses == pytest.approx([0, 0.5, 1])
    assert found.measurements[0].value == pytest.approx((0 + 45 + 300) / 3)


@pytest.mark.parametrize(
    ("values", "scale"),
    [([3.0] * 50, 1.0), ([0.0] * 99 + [7.0], 7.0), ([0.0] * 50 + [2.0] * 50, 2.0)],
    ids=["all the same", "one is not", "halves"],
)
def test_the_scale_is_never_zero(values: list[float], scale: float) -> None:
    assert loss_scale(VALUE, parts(values, 5)) == scale


@pytest.mark.parametrize("wrong", [policy(VALUE, "roc_auc"), policy(VALUE, "mae", GatePolicy("f1", at_least=0.5))])
def test_a_metric_that_does_not_fit_the_task(wrong: Policy) -> None:
    with pytest.raises(ConfigError, match="is no metric for the task regression"):
        evaluate(wrong, VALUE, parts([1.0] * 9, 3), np.zeros((3, 1)))


# Gates

N = 120
RNG = np.random.default_rng(5)
Y = (RNG.random(N) < 0.5).astype(np.float64)
GOOD = probabilities(np.clip(0.15 + 0.7 * Y + RNG.normal(0, 0.1, N), 0.01, 0.99))
BAD = GOOD[:, ::-1]
VERSUS = GatePolicy("accuracy", versus="champion", margin=0.01)
NOTHING = Evaluated((), np.zeros(N), 1.0)


def said(output: Array, champion: Champion | None, *asked: GatePolicy) -> list[tuple[str, Verdict]]:
    made = policy(BINARY, "accuracy", *(asked or (VERSUS,)))
    evaluated = evaluate(made, BINARY, parts(["yes" if one else "no" for one in Y], N), output)
    return [(one.reason, one.verdict) for one in gates(made, evaluated, Y, output, champion)]


def champion(output: Array | None, fresh: slice = slice(None), stand_in: bool = False) -> Champion:
    seen = np.zeros(N, bool)
    seen[fresh] = True
    return Champion(4, "b" * 64, seen, None if output is None else output[seen], stand_in)


@pytest.mark.parametrize(
    ("output", "against", "verdict"),
    [
        (GOOD, None, Verdict.OK),
        (GOOD, champion(GOOD), Verdict.OK),
        (GOOD, champion(BAD), Verdict.OK),
        (BAD, champion(GOOD), Verdict.HARM),
        (BAD, champion(GOOD, slice(0, 0)), Verdict.UNKNOWN),  # it has learned from every row
        (BAD, champion(GOOD, slice(100, N)), Verdict.UNKNOWN),  # 20 rows are too few
        (BAD, champion(None), Verdict.UNKNOWN),
    ],
)
def test_against_the_champion(output: Array, against: Champion | None, verdict: Verdict) -> None:
    assert [one for _, one in said(output, against)] == [verdict]


def test_the_gates_in_their_order() -> None:
    both = GatePolicy("accuracy", at_least=0.9, versus="champion")
    found = said(GOOD, champion(BAD), GatePolicy("log_loss", at_most=0.1), both)
    assert [verdict for _, verdict in found] == [Verdict.HARM, Verdict.OK, Verdict.OK]
    with pytest.raises(ConfigError, match="can't compare with 'nobody'"):
        said(GOOD, None, GatePolicy("accuracy", versus="nobody"))


def test_a_stand_in_is_told() -> None:
    (reason, verdict) = said(BAD, champion(GOOD, stand_in=True))[0]
    assert verdict is Verdict.HARM
    assert reason.endswith("; against version 4 as it was evaluated")


@given(hnp.arrays(np.float64, 60, elements=st.floats(0, 1)))
def test_rows_that_the_champion_has_learned_from_do_not_count(noise: Array) -> None:
    other = GOOD.copy()
    other[:60] = probabilities(noise)
    against = champion(BAD, slice(60, N))
    assert said(other, against) == said(GOOD, against)


def test_the_backtest_is_the_mean_difference_on_fresh_rows() -> None:
    losses = np.linspace(0, 0.5, N)
    evaluated = Evaluated((), losses, 1.0)
    found = backtest(BINARY, evaluated, Y, champion(BAD, slice(90, N)))
    assert found is not None
    squared = (BAD[90:, 1] - Y[90:]) ** 2
    assert (found.champion, found.n) == ("b" * 64, 30)
    assert found.mean == pytest.approx(float(np.mean(losses[90:] - squared)))


@pytest.mark.parametrize("against", [None, champion(None), champion(GOOD, slice(0, 0)), champion(GOOD, stand_in=True)])
def test_without_a_champion_on_fresh_rows_there_is_no_backtest(against: Champion | None) -> None:
    assert backtest(BINARY, NOTHING, Y, against) is None


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        (BINARY, BINARY, True),
        (BINARY, Schema((*FIELDS, Field("more", Kind.NUMBER)), Task.BINARY, "y", ("no", "yes")), True),
        (BINARY, Schema(FIELDS[:1], Task.BINARY, "y", ("no", "yes")), False),
        (BINARY, Schema((Field("x", Kind.INTEGER), FIELDS[1]), Task.BINARY, "y", ("no", "yes")), True),
        (BINARY, Schema((Field("x", Kind.TEXT), FIELDS[1]), Task.BINARY, "y", ("no", "yes")), False),
        (BINARY, Schema(FIELDS, Task.MULTICLASS, "y", ("maybe", "no", "yes")), False),
        (VALUE, VALUE, True),
    ],
)
def test_which_champion_can_be_compared(old: Schema, new: Schema, verdict: bool) -> None:
    assert comparable(old, new) is verdict


def test_an_interval_ends_where_the_metric_does() -> None:
    """One wrong answer of 60: its block alone makes the interval reach beyond 1, and beyond 0 for the errors."""
    y = np.arange(60) % 2.0
    chance = np.where(np.arange(60) == 7, 1 - y, y)
    output = np.column_stack([1 - chance, chance])
    assert metrics.measure("accuracy", y, output).high == 1
    assert metrics.measure("ece", y, output).low == 0
