"""Ordinary life wobbles more than chance: how many independent rows a window is worth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, ndtri, stdtr

Tables = NDArray[np.int64]
Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Worth:
    """How many independent rows those of a window and of the reference are worth: n* = n / (1 + n T), T the `wobble`
    where it is above 0. The reference's own is averaged over its `windows`, `merged` so many in a row. `chance`: how
    many times the rows of the windows that T was measured on these are; 0: as if those had been without end."""

    rows: int
    reference_rows: int
    wobble: float
    windows: float
    chance: float = 0.0
    merged: int = 1

    @cached_property
    def window(self) -> float:
        return self.rows / (1 + self.rows * max(0.0, self.wobble))

    @cached_property
    def reference(self) -> float:
        return self.reference_rows / (1 + self.reference_rows * max(0.0, self.wobble) / self.windows * self.merged)

    @cached_property
    def both(self) -> float:
        """The harmonic size m of a comparison of two samples: m = n N / (n + N)."""
        return self.window * self.reference / (self.window + self.reference)

    def sure(self, p: float) -> float:
        """p, knowing that T was measured on few windows. The variance 1 + n T is then off by 2 (c + n T)^2 in the
        square over one window less than there are, c the `chance`: it has (1 + n T)^2 / (c + n T)^2 times as many
        degrees of freedom (Satterthwaite 1946), and what the normal law calls p is read from Student's. Windows that
        differ less than chance makes them say so, but no variance is below 1: p stays as it is at least."""
        spread = max(_LEAST, 1 + self.rows * self.wobble)
        part = max(1e-6, self.chance + self.rows * self.wobble) / spread
        freedom = max(1.0, self.windows - 1) / part**2
        return float(max(p, 2 * stdtr(freedom, ndtri(max(p, 1e-300) / 2) / min(1.0, spread) ** 0.5)))

    def over(self, freedom: int) -> Worth:
        """For chi-squared with so many degrees of freedom. Were the whole wobble in one direction, X2 would grow by
        n T times a chi-squared of one degree; the law of so many expects more than that to begin with: T over the ratio
        of the two laws' quantiles keeps the rate."""
        return replace(self, wobble=self.wobble / _ratio(max(1, freedom)))


@cache
def _ratio(freedom: int) -> float:
    return float(chdtri(freedom, _FAR) / chdtri(1, _FAR))


_LEAST = 0.1  # of a variance that is 1 at least, as it was measured
_END = 1e-4  # the rank of what lies beyond all rows
_FAR = 1e-5  # about what a p must be below, once it is corrected


def wobble(tables: Tables, merged: int = 1, slots: NDArray[np.int64] | None = None, ranks: bool = False) -> float:
    """T, the chi-squared distance between a window and the others beyond what chance gives: the mean over windows;
    below 0 where they differ less.

    `tables` (w, b): rows of window w in bin b, in order of time. For shares p of a window of n rows, q of the N others
    and r of all, d = sum (p - q)^2 / r has expectation sum r (1 - r) / r (1/n + 1/N) = (b - 1)(1/n + 1/N) when all rows
    are independent; T is the mean of d minus that. With `ranks` d is the one part of it that moves the mean score: the
    square of sum s (p - q) over the variance of the normal score s, with expectation 1/n + 1/N. `merged`: a window is
    so many in a row; they overlap. `slots` (w,), without merging: the others are those of the same slot. Fewer than two
    windows with rows tell nothing: 0.
    """
    blocks = _blocks(tables, merged)
    own = np.zeros(len(tables), np.int64) if slots is None else slots
    totals = np.zeros((int(own.max(initial=0)) + 1, tables.shape[1]), np.int64)
    np.add.at(totals, own, tables)
    own, n = own[: len(blocks)], blocks.sum(axis=1)
    kept = (n > 0) & (totals.sum(axis=1)[own] > n)
    if kept.sum() < 2:
        return 0.0
    return float(_excess(blocks[kept], totals, own[kept], ranks).mean())


def _blocks(tables: Tables, merged: int) -> Tables:
    summed = np.concatenate([np.zeros((1, tables.shape[1]), np.int64), np.cumsum(tables, axis=0)])
    return np.asarray(summed[merged:] - summed[:-merged])


def _excess(blocks: Tables, totals: Tables, own: NDArray[np.int64], ranks: bool) -> Shares:
    """(w,) distances beyond chance; `totals` (s, b) are what all blocks of a slot hold, `own` (w,) each one's slot."""
    n, every = blocks.sum(axis=1), totals.sum(axis=1)
    others = every[own] - n
    moved = blocks / n[:, None] - (totals[own] - blocks) / others[:, None]
    shares = totals / np.maximum(1, every)[:, None]
    chance = 1 / n + 1 / others
    if ranks:
        scores = normal_scores(shares)
        variance = np.sum(shares * scores**2, axis=1)[own]
        level = np.sum(scores[own] * moved, axis=1) ** 2
        held = variance > 0
        return np.asarray(np.divide(level, variance, out=np.zeros(len(n)), where=held) - chance * held)
    held = (shares > 0)[own]
    distance = np.sum(np.divide(moved**2, shares[own], out=np.zeros_like(moved), where=held), axis=1)
    return np.asarray(distance - (held.sum(axis=1) - 1) * chance)


def normal_scores(shares: Shares) -> Shares:
    """(…, b) the normal quantile of each bin's mid-rank, 0 in the mean over rows."""
    found = scores(np.cumsum(shares, axis=-1) - shares / 2)
    return np.asarray(found - np.sum(shares * found, axis=-1, keepdims=True))


def scores(ranks: Shares) -> Shares:
    """The normal quantile of each rank between 0 and 1."""
    return np.asarray(ndtri(np.clip(ranks, _END, 1 - _END)))
