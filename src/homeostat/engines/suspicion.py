"""Have the labels of a source gone wrong? Two measures of a window of labels, each held against windows before.

*Noise*: how often a label contradicts those of rows that are alike. Each is predicted by a tree that has learned from
four fifths of the others (5-fold cross-validation); a change of the world that inputs and time explain leaves this as
it was, labels that are wrong at random do not. *Loss*: how much its labels contradict what was answered, beside those
of the other sources: a change of the world shows in all of them. Where there are other sources, noise too is beside
theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtr

Array = NDArray[np.float64]
FOLDS = 5
MOST_ROWS = 500
"""Labels of a window that are looked at, spread evenly: their noise is known to .02 by then."""
LEAST_ROWS = 50
LEAST, MOST = 6, 20
"""Windows before that tell what is ordinary."""
ALPHA = 0.0001
"""Chance of a window to be suspicious though it is drawn as those before were (normal, Student's t)."""
EFFECT = 0.1
"""A smaller difference is none: of contradicted labels, or of the mean loss."""
CALM = 0.05
"""A window whose p is larger is like those before."""


@dataclass(frozen=True, slots=True)
class Jump:
    """A window's measure beside those before: their mean, and the chance of so much more."""

    now: float
    before: float
    p: float

    @property
    def suspicious(self) -> bool:
        return self.p < ALPHA and self.now - self.before >= EFFECT

    @property
    def calm(self) -> bool:
        return self.p > CALM or self.now - self.before < EFFECT / 2


def contradiction(told: Array, expected: Array, numbers: bool, scale: float) -> float:
    """How far labels told (m,) are from those `expected`, the mean in [0, 1]: whether the class (its index) is another
    one, or the absolute error over `scale`, at most 1."""
    missed = np.minimum(np.abs(expected - told) / scale, 1.0) if numbers else expected != told
    return float(np.mean(missed))


def foretold(x: NDArray[np.float32], told: Array, numbers: bool) -> tuple[NDArray[np.int64], Array]:
    """Of labels told (n,) for rows x (n, k), NaN where a value is missing: (m,) the rows that are looked at, and what a
    tree of four fifths of the others says of each."""
    from sklearn import config_context  # a second: only those who watch need it
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    kind = DecisionTreeRegressor if numbers else DecisionTreeClassifier
    rows = np.linspace(0, len(told) - 1, min(len(told), MOST_ROWS)).astype(int)
    x, told = np.nan_to_num(x[rows], nan=np.nan, posinf=np.nan, neginf=np.nan), told[rows]
    folds = np.random.default_rng(0).permutation(len(told)) % FOLDS
    expected = np.empty(len(told))
    look = bool(np.isnan(x).any())  # the checks take longer than the trees; they find the missing values, and no more
    for fold in range(FOLDS):
        out = folds == fold
        with config_context(skip_parameter_validation=True):
            tree = kind(min_samples_leaf=3, random_state=0).fit(x[~out], told[~out], check_input=look)
        expected[out] = tree.predict(x[out], check_input=look)
    return rows, expected


def turned(told: Array, expected: Array, answers: Array) -> bool:
    """The labels (m,) contradict the answers more than each other: what is expected from the others is nearer to them
    more often than what was answered, by the sign test. Random errors make the one as wrong as the other, until they
    are the most."""
    others, own = np.abs(expected - told), np.abs(answers - told)
    better, worse = int(np.sum(others < own)), int(np.sum(others > own))
    return float(ndtr((worse - better) / np.sqrt(max(1, better + worse)))) < ALPHA


def jump(before: Sequence[float], now: float, n: int) -> Jump | None:
    """`now`, of a window of n labels, against at least `LEAST` windows before; None when there are fewer. One-sided
    prediction interval of Student's t; the spread is at least that of n independent labels."""
    m = len(before)
    if m < LEAST:
        return None
    mean = float(np.mean(before))
    chance = max(mean * (1 - mean), 0.01) / min(n, MOST_ROWS)  # a difference of means may be below 0
    spread = float(np.sqrt(max(float(np.var(before, ddof=1)), chance) * (1 + 1 / m)))
    return Jump(now, mean, float(stdtr(m - 1, -(now - mean) / spread)))
