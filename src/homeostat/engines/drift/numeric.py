"""Numbers: Kolmogorov-Smirnov over the cells, normal scores of ranks (van der Waerden), and chi-squared over 20 bins of
the reference's quantiles. Each has its own calibration, and counts as a test of its own where p is corrected."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, erfc, kolmogorov

from homeostat.engines.drift.calibrate import Worth, scores
from homeostat.engines.drift.counts import CELLS, Counts, NumberLayout, Numbers
from homeostat.engines.drift.outcome import Found
from homeostat.engines.drift.texts import Column, Layout

FINE, BINS, BROAD = 256, 20, 5
LEAST_EXPECTED = 5
"""Rows a bin must be expected to hold before chi-squared may be trusted (Cochran 1954)."""


class Distribution:
    """Has the distribution of a number moved? Kolmogorov-Smirnov: strong on shifts."""

    least_effect = 0.03
    ranks = False
    slow = False

    def applies(self, layout: Layout) -> bool:
        return isinstance(layout, NumberLayout)

    def tables(self, reference: Column, windows: Sequence[Column], /) -> Counts:
        """(w, b) rows of each window in quantile bins of the reference, b <= 5: few, since what moves D is broad, and
        each further bin makes the wobble less certain."""
        return binned([numbers(one) for one in windows], numbers(reference).edges(BROAD))

    def find(self, reference: Column, window: Column, worth: Worth, /) -> Found:
        """The effect is D, the largest distance between the distribution functions."""
        old, new = numbers(reference), numbers(window)
        pair = _pair(old, new)
        largest = pair.distance
        middle = "higher" if pair.above > 0.5 else "lower"
        words = f"its distribution moved by D = {largest:.2g}, towards {middle} values"
        return Found(largest, p_ks(largest, worth.both), words)


class Level:
    """Have the values risen or fallen, taken together? Normal scores of their ranks (van der Waerden 1952): stronger on
    shifts than D, and it wobbles in one direction alone, so that many merged windows stay worth much. A D or a mean
    rank can't go further than 1, so that days which wander by a third of that would hide every shift; scores go on."""

    least_effect = 0.04
    ranks = True
    slow = True

    def applies(self, layout: Layout) -> bool:
        return isinstance(layout, NumberLayout)

    def tables(self, reference: Column, windows: Sequence[Column], /) -> Counts:
        """(w, b) rows of each window in quantile bins of the reference, b <= 256: fine, for the ends count most."""
        return binned([numbers(one) for one in windows], numbers(reference).edges(FINE))

    def find(self, reference: Column, window: Column, worth: Worth, /) -> Found:
        """The effect is |2 u - 1|, u the chance that a value of the window is above one of the reference."""
        old, new = numbers(reference), numbers(window)
        pair = _pair(old, new)
        above = pair.above
        words = f"its values are {'higher' if above > 0.5 else 'lower'}: {above:.0%} of the time above one of before"
        most = float(erfc(self.least_effect * np.sqrt(1.5 * worth.both)))  # ranks of m rows spread by 1 / sqrt 3 m
        return Found(abs(2 * above - 1), pair.level(worth), words, most=most)


class Shape:
    """Have some values become more frequent than others? Chi-squared: strong where D is small."""

    least_effect = 0.03
    ranks = False
    slow = False

    def applies(self, layout: Layout) -> bool:
        return isinstance(layout, NumberLayout)

    def tables(self, reference: Column, windows: Sequence[Column], /) -> Counts:
        """(w, b) rows of each window in quantile bins of the reference, b <= 20."""
        return binned([numbers(one) for one in windows], numbers(reference).edges(BINS))

    def find(self, reference: Column, window: Column, worth: Worth, /) -> Found:
        """The effect is the total variation over the bins, of which there are as many as 5 rows each allow."""
        old, new = numbers(reference), numbers(window)
        edges = old.edges(int(np.clip(worth.over(BINS - 1).window // LEAST_EXPECTED, 2, BINS)))
        before, now = binned([old, new], edges)
        together = pooled(before, now, worth)
        effect = float(np.abs(now / max(1, now.sum()) - before / max(1, before.sum())).sum() / 2)
        p = chi_squared(grouped(before, together), grouped(now, together), worth)
        return Found(effect, p, f"{effect:.0%} of rows lie in other ranges than before")


def numbers(column: Column) -> Numbers:
    """Errors: TypeError when the column is not one of numbers."""
    if not isinstance(column, Numbers):
        raise TypeError("a test of numbers was given categories")
    return column


def distance(reference: Numbers, window: Numbers) -> float:
    """D = max |F(x) - G(x)| over all cells."""
    return _pair(reference, window).distance


class _Pair:
    """The cells of a window beside those of a reference."""

    def __init__(self, reference: Numbers, window: Numbers) -> None:
        """`at` (c,): the first cell of the reference that is not below each of the window's; `held`: it is the same
        one. Of the reference's rows those `under` each cell of the window, and those `within`."""
        self.old, self.new = reference, window
        self.at = np.searchsorted(reference.cells, window.cells)
        self.held = np.append(reference.cells, -1)[self.at] == window.cells
        self.under = reference.under[self.at]
        self.within = np.where(self.held, np.append(reference.shares, 0.0)[self.at], 0.0)

    @property
    def distance(self) -> float:
        """Between those cells the window's own share stays and the other rises, so that the largest distance is in one
        of them or just before it."""
        cumulated = np.cumsum(self.new.shares)
        after = self.under + self.within - cumulated
        return float(np.max(np.abs(np.concatenate([self.under - cumulated + self.new.shares, after])), initial=0.0))

    @property
    def above(self) -> float:
        """P(a row of the window > a row of the reference) + half the ties."""
        return float(np.sum((self.under + self.within / 2) * self.new.shares))

    def level(self, worth: Worth) -> float:
        """Two-sided p of the mean normal score of the window's ranks within the reference, under the normal law: its
        variance over rows is that of both samples, ties and all. 1 where most rows are tied, and the window is worth
        fewer than 5 of the others."""
        of, other = worth.window / (worth.window + worth.reference), worth.reference / (worth.window + worth.reference)
        tied = max(
            float(np.max(of * self.new.shares + other * self.within, initial=0.0)),
            other * float(self.old.shares.max(initial=0.0)),
        )
        if tied > 0.5 and worth.window * (1 - tied) < LEAST_EXPECTED:  # the law is far from normal
            return 1.0
        now = np.append(self.old.scores, 0.0)[self.at]
        now[~self.held] = scores(self.under[~self.held])
        old, old_squares = self.old.moments
        new = float(np.sum(self.new.shares * now))
        variance = of * np.sum(self.new.shares * now**2) + other * old_squares - (of * new + other * old) ** 2
        return float(erfc(abs(new - old) / np.sqrt(2 * variance / worth.both)))


@lru_cache(maxsize=2)
def _pair(reference: Numbers, window: Numbers) -> _Pair:
    """Several tests in a row look at the same columns."""
    return _Pair(reference, window)


def p_ks(largest: float, size: float) -> float:
    """P(D >= largest) for samples of harmonic size m: the Kolmogorov law at (sqrt m + .12 + .11 / sqrt m) D
    (Stephens 1970)."""
    root = np.sqrt(max(size, 1e-9))
    return float(kolmogorov((root + 0.12 + 0.11 / root) * largest)) if size >= 1 else 1.0


def binned(windows: Sequence[Numbers], edges: NDArray[np.int64]) -> Counts:
    """(w, len(edges) + 1) rows of each window in each bin. The cells of all windows are looked at as those of one, in
    which each has a stretch of its own."""
    starts = np.arange(len(windows)) * CELLS
    cells = np.concatenate([start + one.cells for start, one in zip(starts, windows, strict=True)])
    below = np.append(0, np.cumsum(np.concatenate([one.counts for one in windows])))
    ends = np.add.outer(starts, np.append(edges, CELLS - 1))
    upto = below[np.searchsorted(cells, ends.ravel(), side="right")]
    return np.asarray(np.diff(upto, prepend=0).reshape(ends.shape))


def pooled(old: Counts, new: Counts, worth: Worth) -> Counts:
    """(c,) the group of each category: those expected in fewer than 5 rows of the window form one, which joins the
    smallest other group if it is still expected in fewer."""
    worth = worth.over(len(old) - 1)
    shares = worth.window * new / max(1, new.sum()) + worth.reference * old / max(1, old.sum())
    expected = shares * worth.window / (worth.window + worth.reference)
    small = expected < LEAST_EXPECTED
    groups = np.where(small, -1, np.arange(len(old)))
    if small.any() and not small.all() and expected[small].sum() < LEAST_EXPECTED:
        groups[small] = np.argmin(np.where(small, np.inf, expected))
    return groups + 1


def grouped(counts: Counts, groups: Counts) -> Counts:
    return np.bincount(groups, weights=counts).astype(np.int64)


def chi_squared(reference: Counts, window: Counts, worth: Worth) -> float:
    """The p-value of X2 = m sum (p - q)^2 / r over bins, r the pooled shares; 1 where there is nothing to compare."""
    held = (reference + window) > 0
    if held.sum() < 2 or not window.sum() or not reference.sum():
        return 1.0
    worth = worth.over(int(held.sum()) - 1)
    p, q = window[held] / window.sum(), reference[held] / reference.sum()
    pooled = (worth.window * p + worth.reference * q) / (worth.window + worth.reference)
    return float(chdtrc(held.sum() - 1, worth.both * np.sum((p - q) ** 2 / pooled)))
