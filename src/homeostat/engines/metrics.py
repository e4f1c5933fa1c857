"""How good an answer was: metrics with intervals, and the bounded loss that evidence is built on.

A model's output is (n, c): the probabilities of the c classes, or the value itself (c = 1). The truth is (n,): the
class's index, or the value. A class that the model does not know has an index of c or more: it has given it no
chance. A new metric is one function and one row in `METRICS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from homeostat.domain.errors import PipelineError
from homeostat.domain.gate import Measurement
from homeostat.domain.schema import Task

Array = NDArray[np.float64]
BLOCKS = 20
ECE_BINS = 10
T_19 = 2.093  # 97.5 % quantile of Student's t with BLOCKS - 1 degrees of freedom


def roc_auc(y: Array, output: Array) -> float:
    """Area under the ROC curve by the rank-sum identity (Hanley & McNeil 1982); when there are more than two classes
    the mean over those that are there, each against the rest. NaN where there are not two."""
    classes = [1] if output.shape[1] == 2 else [c for c in range(output.shape[1]) if (y == c).any()]
    return float(np.mean([_auc(y == c, output[:, c]) for c in classes])) if classes else float("nan")


def _auc(positive: NDArray[np.bool_], score: Array) -> float:
    n1 = int(positive.sum())
    n0 = len(positive) - n1
    if not n1 or not n0:
        return float("nan")
    every, own = np.sort(score), np.sort(score[positive])
    ranks = (np.searchsorted(every, own) + np.searchsorted(every, own, side="right") + 1) / 2  # of ties the middle
    return float((ranks.sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def accuracy(y: Array, output: Array) -> float:
    return float(np.mean(_decided(output) == y))


def precision(y: Array, output: Array) -> float:
    """Of those answered as the second class, the share that is. NaN when none is."""
    answered = _decided(output) == 1
    return float(np.mean(y[answered] == 1)) if answered.any() else float("nan")


def recall(y: Array, output: Array) -> float:
    """Of the second class, the share answered as it. NaN when there is none."""
    real = y == 1
    return float(np.mean(_decided(output)[real] == 1)) if real.any() else float("nan")


def f1(y: Array, output: Array) -> float:
    """Harmonic mean of precision and recall: 2 TP / (2 TP + FP + FN)."""
    answered, real = _decided(output) == 1, y == 1
    marked = int(answered.sum() + real.sum())
    return 2 * int((answered & real).sum()) / marked if marked else float("nan")


def log_loss(y: Array, output: Array) -> float:
    """Mean of -log p(truth), p clipped to 1e-15."""
    return float(-np.mean(np.log(np.clip(output[np.arange(len(y)), y.astype(int)], 1e-15, 1))))


def brier(y: Array, output: Array) -> float:
    """Mean squared distance between probabilities and truth, halved so that it lies in [0, 1] (Brier 1950)."""
    return float(np.mean(losses(Task.MULTICLASS, y, output, 1.0)))


def ece(y: Array, output: Array) -> float:
    """Expected calibration error: how far probabilities lie from what comes true, the mean over ten bins of equally
    many rows (Naeini et al. 2015) and over classes. Never 0 in a sample: chance alone makes about .4 / sqrt(n / 10)."""
    classes = [1] if output.shape[1] == 2 else range(output.shape[1])
    return float(np.mean([_ece(y == c, output[:, c]) for c in classes]))


def _ece(hit: NDArray[np.bool_], score: Array) -> float:
    bins = np.array_split(np.argsort(score, kind="stable"), ECE_BINS)
    gaps = [len(rows) * abs(float(hit[rows].mean() - score[rows].mean())) for rows in bins if len(rows)]
    return sum(gaps) / len(score) if len(score) else float("nan")


def mae(y: Array, output: Array) -> float:
    return float(np.mean(np.abs(output[:, 0] - y)))


def rmse(y: Array, output: Array) -> float:
    return float(np.sqrt(np.mean((output[:, 0] - y) ** 2)))


def r2(y: Array, output: Array) -> float:
    """1 - residual / total sum of squares. NaN when the truth is constant."""
    total = float(np.sum((y - y.mean()) ** 2))
    return 1 - float(np.sum((output[:, 0] - y) ** 2)) / total if total else float("nan")


def _decided(output: Array) -> NDArray[np.intp]:
    return np.asarray(np.argmax(output, axis=1))


@dataclass(frozen=True, slots=True)
class Metric:
    """(y (n,), output (n, c)) → value; whether more is better; for which tasks; no value lies outside of `least` and
    `most`."""

    function: Callable[[Array, Array], float]
    higher_is_better: bool
    tasks: frozenset[Task]
    least: float = -math.inf
    most: float = math.inf


_BINARY = frozenset({Task.BINARY})
_CLASSES = frozenset({Task.BINARY, Task.MULTICLASS})
_NUMBERS = frozenset({Task.REGRESSION})

METRICS = {
    "roc_auc": Metric(roc_auc, True, _CLASSES, 0, 1),
    "accuracy": Metric(accuracy, True, _CLASSES, 0, 1),
    "precision": Metric(precision, True, _BINARY, 0, 1),
    "recall": Metric(recall, True, _BINARY, 0, 1),
    "f1": Metric(f1, True, _BINARY, 0, 1),
    "log_loss": Metric(log_loss, False, _CLASSES, 0),
    "brier": Metric(brier, False, _CLASSES, 0),
    "ece": Metric(ece, False, _CLASSES, 0, 1),
    "mae": Metric(mae, False, _NUMBERS, 0),
    "rmse": Metric(rmse, False, _NUMBERS, 0),
    "r2": Metric(r2, True, _NUMBERS, most=1),
}


OWN: dict[str, Metric] = {}
"""Functions of the project that stand where a metric may, by the name that its policy gives them: module:function."""


def known(name: str) -> Metric:
    """Errors: KeyError."""
    return METRICS[name] if name in METRICS else OWN[name]


def own(name: str, function: Callable[[Array, Array], float]) -> None:
    """Let a function of the project be a metric: (y (n,), output (n, c)) → number. Less is better, unless it has an
    attribute `higher_is_better` that is true. It is never asked about no rows; where it divides by zero it is not
    defined (NaN), like those of `METRICS`. What else it raises becomes a `PipelineError`."""

    def called(y: Array, output: Array) -> float:
        try:
            return float(function(y, output))
        except ZeroDivisionError:
            return float("nan")
        except Exception as error:
            what = f"{name} failed on {len(y):,} rows: {type(error).__name__}: {error}"
            raise PipelineError(what, where=name, way_out="It must give a number, NaN where it has none.") from error

    OWN[name] = Metric(called, bool(getattr(function, "higher_is_better", False)), frozenset(Task))


def measure(metric: str, y: Array, output: Array) -> Measurement:
    """The metric with a 95 % interval, cut at what the metric can be; rows in order of time. Errors: KeyError, unknown
    metric."""
    asked, output = known(metric), widened(y, output)
    found = interval(metric, lambda rows: asked.function(y[rows], output[rows]), len(y))
    return replace(found, low=max(found.low, asked.least), high=min(found.high, asked.most))


def widened(y: Array, output: Array) -> Array:
    """The output (n, c) with a column of zeros for each class of y that the model does not know."""
    more = int(y.max(initial=0)) + 1 - output.shape[1] if output.shape[1] > 1 else 0
    return np.pad(output, ((0, 0), (0, more))) if more > 0 else output


def interval(name: str, of: Callable[[NDArray[np.bool_]], float], n: int) -> Measurement:
    """`of` the rows that are kept (n,), with a 95 % interval by the delete-a-block jackknife over 20 contiguous blocks
    (Künsch 1989), since neighbours are alike. NaN interval below 40 rows."""
    keep = np.ones(n, bool)
    value = of(keep) if n else float("nan")
    if n < 2 * BLOCKS:
        return Measurement(name, value, float("nan"), float("nan"), n)
    left_out = []
    for block in np.array_split(np.arange(n), BLOCKS):
        keep[block] = False
        left_out.append(of(keep))
        keep[block] = True
    spread = np.asarray(left_out)
    error = T_19 * float(np.sqrt((BLOCKS - 1) / BLOCKS * np.sum((spread - spread.mean()) ** 2)))
    return Measurement(name, value, value - error, value + error, n)


def losses(task: Task, y: Array, output: Array, scale: float) -> Array:
    """(n,) each row's loss in [0, 1]: the halved Brier score, or the absolute error over `scale`, at most 1. A class
    that the model does not know can't be answered: a loss of 1."""
    if task is Task.REGRESSION:
        return np.asarray(np.minimum(np.abs(output[:, 0] - y) / scale, 1.0))
    known = y < output.shape[1]
    hit = output[np.arange(len(y)), np.where(known, y, 0).astype(int)]
    return np.asarray(np.where(known, (np.sum(output**2, axis=1) - 2 * hit + 1) / 2, 1.0))
