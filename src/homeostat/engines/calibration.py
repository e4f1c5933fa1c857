"""How often a score is right: calibration learned on the holdout, and how far scores are from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Curve:
    """From score to probability: straight lines between the knots (k,), level outside them."""

    scores: Array
    chances: Array

    def __call__(self, scores: Array) -> Array:
        return np.interp(scores, self.scores, self.chances)


@dataclass(frozen=True, slots=True)
class Calibration:
    """A curve for each class that has a score of its own: one for two classes."""

    curves: tuple[Curve, ...]

    def __call__(self, output: Array) -> Array:
        """(n, c) scores → (n, c) probabilities; rows sum to 1 (each class against the rest, then normalised: Zadrozny &
        Elkan 2002)."""
        if len(self.curves) == 1:
            second = self.curves[0](output[:, 1])
            return np.column_stack([1 - second, second])
        chances = np.column_stack([curve(output[:, c]) for c, curve in enumerate(self.curves)])
        total = chances.sum(axis=1, keepdims=True)
        return np.asarray(np.where(total > 0, chances / np.where(total > 0, total, 1), 1 / len(self.curves)))


def calibrated(y: Array, output: Array) -> Calibration:
    """Learned from n > 0 labelled rows: y (n,) indices of classes, output (n, c)."""
    own = [1] if output.shape[1] == 2 else range(output.shape[1])
    return Calibration(tuple(isotonic(output[:, c], (y == c).astype(np.float64)) for c in own))


def isotonic(scores: Array, hits: Array) -> Curve:
    """Isotonic regression of hits (n,) in {0, 1} on scores (n,) by pooling adjacent violators (Ayer et al. 1955), with
    a knot at the mean score of each pool (centred: Oron & Flournoy 2017), so that it rises between them too."""
    values, where = np.unique(scores, return_inverse=True)
    weights = np.bincount(where).astype(np.float64)
    means = np.bincount(where, hits) / weights
    pools: list[tuple[float, float, float]] = []  # rows, sum of hits, sum of scores
    for weight, mean, value in zip(weights.tolist(), means.tolist(), values.tolist(), strict=True):
        pool = (weight, weight * mean, weight * value)
        while pools and pools[-1][1] * pool[0] >= pool[1] * pools[-1][0]:
            last = pools.pop()
            pool = (last[0] + pool[0], last[1] + pool[1], last[2] + pool[2])
        pools.append(pool)
    n, sums, at = np.array(pools).T
    return Curve(at / n, sums / n)
