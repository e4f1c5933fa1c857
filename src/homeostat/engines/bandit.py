"""Shares that follow the results: Thompson sampling, an arm's share being the chance that its mean is the best.

A caller who is sent to the arm that is best in one draw from the posterior (Thompson 1933) meets each with exactly that
chance; so whole shares are set, once a window, and each row is logged under those that it met. The posterior of a mean
is normal about its estimate by inverse propensity, m + (y - m) 1{arm} / share: it stays right where good hours and
large shares fall together, which the plain mean of an arm's values does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from homeostat.domain.policy import SignalPolicy
from homeostat.domain.units import ALL
from homeostat.engines.experiment import FEW, Array, Units

DRAWS = 10_000
LEAST = 100
"""Basis points by which some share must change: a new split ends the counting of every entity that is under way."""


def follow(
    metric: SignalPolicy, found: Units, splits: Sequence[Sequence[int]], floor: int, salt: str
) -> list[int] | None:
    """The shares after `splits`, the champion's first; None where they stay: an arm has too few entities yet, or
    nothing moves by `LEAST`. An arm that the last split left out stays out, every other keeps at least `floor`. The
    same units and salt give the same shares."""
    last = np.asarray(splits[-1])
    within = np.flatnonzero(last)
    if np.bincount(found.arm, minlength=len(last))[within].min() < FEW:
        return None
    best = _best(metric, found, np.asarray(splits, np.float64) / ALL, within, f"{salt}/{len(splits)}")
    wanted = np.zeros(len(last), np.int64)
    wanted[within] = floor + np.floor((ALL - floor * len(within)) * best).astype(np.int64)
    wanted[0] += ALL - wanted.sum()
    return None if np.abs(wanted - last).max() < LEAST else wanted.tolist()


def without(split: Sequence[int], harmed: set[int]) -> list[int]:
    """The champion takes over the callers of arms that do harm."""
    left = [0 if arm in harmed else share for arm, share in enumerate(split)]
    left[0] += ALL - sum(left)
    return left


def means(metric: SignalPolicy, found: Units, splits: Array) -> tuple[Array, Array]:
    """(n, arms) values whose means are the arms' means, and (arms,) the standard errors of those, of arms that never
    were without a share. `splits` (turns, arms) are probabilities; a unit's m is the mean of the units before."""
    y, n = found.value, len(found.value)
    start = sum(metric.bounds or (0.0, 0.0)) / 2
    before = (start + np.concatenate([[0.0], np.cumsum(y)[:-1]])) / np.arange(1, n + 1)
    share = np.broadcast_to(splits[found.turn], (n, splits.shape[1]))
    met = found.arm[:, None] == np.arange(splits.shape[1])
    residual = np.where(met, (y - before)[:, None] / np.where(met, share, 1), 0)
    return before[:, None] + residual, residual.std(axis=0, ddof=1) / np.sqrt(n)


def _best(metric: SignalPolicy, found: Units, splits: Array, within: NDArray[np.intp], seed: str) -> Array:
    """(arms within,) the share of draws from the posterior in which each is best."""
    values, errors = means(metric, found, splits)
    sign = 1 if metric.better == "higher" else -1
    rng = np.random.default_rng(int.from_bytes(blake2b(seed.encode(), digest_size=8).digest(), "big"))
    drawn = rng.normal(sign * values.mean(axis=0)[within], errors[within], (DRAWS, len(within)))
    return np.bincount(drawn.argmax(axis=1), minlength=len(within)) / DRAWS
