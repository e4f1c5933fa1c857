"""Numbers: Kolmogorov-Smirnov over the cells, normal scores of ranks (van der Waerden), and chi-squared over 20 bins of
the reference's quantiles. Each has its own calibration, and counts as a test of its own where p is corrected."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, erfc, kolmogorov

from homeostat.engines.drift.calibrate import Shares, Worth, normal_scores
from homeostat.engines.drift.counts import Counts, NumberLayout, Numbers
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

    def table(self, reference: Column, window: Column, /) -> Counts:
        """(b,) rows of the window in quantile bins of the reference, b <= 5: few, since what moves D is broad, and
        each further bin makes the wobble less certain."""
        return binned(numbers(window), numbers(reference).edges(BROAD))

    def find(self, reference: Column, window: Column, worth: Worth, /) -> Found:
        """The effect is D, the largest distance between the distribution functions."""
        old, new = numbers(reference), numbers(window)
        under, within = _beside(old, new)
        largest = _distance(under, within, new)
        middle = "higher" if _above(under, within, new) > 0.5 else "lower"
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

    def table(self, reference: Column, window: Column, /) -> Counts:
        """(b,) rows of the window in quantile bins of the reference, b <= 256: fine, for the ends count most."""
        return binned(numbers(window), numbers(reference).edges(FINE))

    def find(self, reference: Column, window: Column, worth: Worth, /) -> Found:
        """The effect is |2 u - 1|, u the chance that a value of the window is above one of the reference."""
        old, new = numbers(reference), numbers(window)
        above = _above(*_beside(old, new), new)
        words = f"its values are {'higher' if above > 0.5 else 'lower'}: {above:.0%} of the time above one of before"
        return Found(abs(2 * above - 1), p_level(old, new, worth), words)


class Shape:
    """Have some values become more frequent than others? Chi-squared: strong where D is small."""

    least_effect = 0.03
    ranks = False
    slow = False

    def applies(self, layout: Layout) -> bool:
        return isinstance(layout, NumberLayout)

    def table(self, reference: Column, window: Column, /) -> Counts:
        """(b,) rows of the window in quantile bins of the reference, b <= 20."""
        return binned(numbers(window), numbers(reference).edges(BINS))

    def find(self, reference: Column, window: Column, worth: Worth, /) -> Found:
        """The effect is the total variation over the bins, of which there are as many as 5 rows each allow."""
        old, new = numbers(reference), numbers(window)
        edges = old.edges(int(np.clip(worth.over(BINS - 1).window // LEAST_EXPECTED, 2, BINS)))
        before, now = binned(old, edges), binned(new, edges)
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
    return _distance(*_beside(reference, window), window)


def _beside(reference: Numbers, window: Numbers) -> tuple[Shares, Shares]:
    """→ (c,) of the reference the share of rows below each cell of the window, and in it."""
    at = np.searchsorted(reference.cells, window.cells)
    counts = np.append(reference.counts, 0) / max(1, reference.present)
    held = np.append(reference.cells, -1)[at] == window.cells
    return (np.cumsum(counts) - counts)[at], np.where(held, counts[at], 0.0)


def _distance(under: Shares, within: Shares, window: Numbers) -> float:
    """Between those cells the window's own share stays and the other rises, so that the largest distance is in one of
    them or just before it."""
    cumulated = np.cumsum(window.counts) / max(1, window.present)
    before = cumulated - window.counts / max(1, window.present)
    return float(np.max(np.abs(np.concatenate([under - before, under + within - cumulated])), initial=0.0))


def _above(under: Shares, within: Shares, window: Numbers) -> float:
    """P(a row of the window > a row of the reference) + half the ties."""
    return float(np.sum((under + within / 2) * window.counts) / max(1, window.present))


def p_ks(largest: float, size: float) -> float:
    """P(D >= largest) for samples of harmonic size m: the Kolmogorov law at (sqrt m + .12 + .11 / sqrt m) D
    (Stephens 1970)."""
    root = np.sqrt(max(size, 1e-9))
    return float(kolmogorov((root + 0.12 + 0.11 / root) * largest)) if size >= 1 else 1.0


def p_level(reference: Numbers, window: Numbers, worth: Worth) -> float:
    """Two-sided p of the mean normal score of the window's ranks within the reference, under the normal law: its
    variance over rows is that of both samples, ties and all. 1 where most rows are tied, and the window is worth fewer
    than 5 of the others."""
    both = Numbers.total([reference, window])
    new, old = _share(window, both), _share(reference, both)
    share = (new * worth.window + old * worth.reference) / max(worth.window + worth.reference, 1e-9)
    tied = float(share.max(initial=0.0))
    if tied > 0.5 and worth.window * (1 - tied) < LEAST_EXPECTED:  # the law is far from normal
        return 1.0
    scores = normal_scores(old)
    variance = float(np.sum(share * scores**2) - np.sum(share * scores) ** 2)
    return float(erfc(abs(np.sum(scores * (new - old))) / np.sqrt(2 * variance / worth.both)))


def _share(part: Numbers, every: Numbers) -> Shares:
    """(cells,) the share of the part's rows in each cell of `every`."""
    found = np.zeros(len(every.cells))
    found[np.searchsorted(every.cells, part.cells)] = part.counts
    return found / max(1, part.present)


def binned(numbers: Numbers, edges: NDArray[np.int64]) -> Counts:
    """(len(edges) + 1,) rows in each bin."""
    where = np.searchsorted(edges, numbers.cells)
    return np.bincount(where, weights=numbers.counts, minlength=len(edges) + 1).astype(np.int64)


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
