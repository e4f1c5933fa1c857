"""Texts: chi-squared over pooled categories. Rare things (missing, without a name): an exact test on their counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import gammaln

from homeostat.engines.drift.calibrate import Worth
from homeostat.engines.drift.counts import Counts, NumberLayout, Numbers
from homeostat.engines.drift.numeric import LEAST_EXPECTED, Distribution, chi_squared
from homeostat.engines.drift.outcome import Found
from homeostat.engines.drift.texts import RARE, Categories, Column, Layout, Prose, ProseLayout


class Mix:
    """Have the shares of the categories moved?"""

    least_effect = 0.03
    ranks = False
    slow = True

    def applies(self, layout: Layout) -> bool:
        return not isinstance(layout, NumberLayout)

    def table(self, reference: Column, window: Column, /) -> Counts:
        """(c,) rows of the window by category."""
        return tally(window, names(reference, window))

    def find(self, reference: Column, window: Column, worth: Worth, /) -> Found:
        """The effect is the total variation, half the sum of |p - q|."""
        every = names(reference, window)
        old, new = tally(reference, every), tally(window, every)
        moved = new / max(1, new.sum()) - old / max(1, old.sum())
        effect = float(np.abs(moved).sum() / 2)
        groups = pooled(old, new, worth)
        p = chi_squared(_grouped(old, groups), _grouped(new, groups), worth)
        most = int(np.argmax(np.abs(moved)))
        name = RARE_VALUES if every[most].startswith(RARE) else every[most]
        return Found(effect, p, f"{effect:.0%} of rows changed category, most of all {name} ({moved[most]:+.1%})")


class Wording:
    """Are texts that people write made of other pieces? Another language is."""

    least_effect = 0.1
    ranks = False
    slow = False

    def applies(self, layout: Layout) -> bool:
        return isinstance(layout, ProseLayout)

    def table(self, reference: Column, window: Column, /) -> Counts:
        """(c,) rows of the window by piece."""
        old, new = prose(reference).pieces, prose(window).pieces
        return tally(new, names(old, new))

    def find(self, reference: Column, window: Column, worth: Worth, /) -> Found:
        """The effect is the total variation of the pieces."""
        found = Mix().find(prose(reference).pieces, prose(window).pieces, worth)
        return Found(found.effect, found.p, f"its texts are worded differently: {found.effect:.0%} of pieces of words moved")


class Length:
    """Have texts become longer or shorter? As `Distribution` says."""

    least_effect = 0.1
    ranks = False
    slow = False
    _numbers = Distribution()

    def applies(self, layout: Layout) -> bool:
        return isinstance(layout, ProseLayout)

    def table(self, reference: Column, window: Column, /) -> Counts:
        return self._numbers.table(prose(reference).length, prose(window).length)

    def find(self, reference: Column, window: Column, worth: Worth, /) -> Found:
        """The effect is D of the lengths."""
        found = self._numbers.find(prose(reference).length, prose(window).length, worth)
        return Found(found.effect, found.p, f"the lengths of its texts: {found.words}")


RARE_VALUES = "values that the reference does not name"


def prose(column: Column) -> Prose:
    """Errors: TypeError when the column is not one of texts that people write."""
    if not isinstance(column, Prose):
        raise TypeError("a test of texts was given something else")
    return column


def names(reference: Column, window: Column) -> list[str]:
    """Every category of either, in one order."""
    return sorted({*categories(reference).counts, *categories(window).counts, RARE})


def tally(column: Column, every: Sequence[str]) -> Counts:
    """(c,) rows by category, in the order of `every`."""
    return np.array([categories(column).counts.get(name, 0) for name in every], np.int64)


def categories(column: Column) -> Categories:
    """Errors: TypeError when the column is not one of categories."""
    if isinstance(column, Prose):
        return column.values
    if isinstance(column, Numbers):
        raise TypeError("a test of categories was given numbers")
    return column


def pooled(old: Counts, new: Counts, worth: Worth) -> Counts:
    """(c,) the group of each category: those expected in fewer than 5 rows of the window form one, which joins the
    smallest other group if it is still expected in fewer."""
    shares = worth.window * new / max(1, new.sum()) + worth.reference * old / max(1, old.sum())
    expected = shares * worth.window / (worth.window + worth.reference)
    small = expected < LEAST_EXPECTED
    groups = np.where(small, -1, np.arange(len(old)))
    if small.any() and not small.all() and expected[small].sum() < LEAST_EXPECTED:
        groups[small] = np.argmin(np.where(small, np.inf, expected))
    return groups + 1


def _grouped(counts: Counts, groups: Counts) -> Counts:
    return np.bincount(groups, weights=counts).astype(np.int64)


class Rare:
    """Has the share of one rare thing moved? Fisher's exact test: given both totals, the count is hypergeometric."""

    least_effect = 0.01
    ranks = False
    slow = True

    def __init__(self, thing: str) -> None:
        self.thing = thing

    def applies(self, layout: Layout) -> bool:
        return self.thing == "missing" or not isinstance(layout, NumberLayout)

    def table(self, _reference: Column, window: Column, /) -> Counts:
        """(2,) rows that are the thing, and the others."""
        count = self._count(window)
        return np.array([count, window.present + window.missing - count], np.int64)

    def find(self, reference: Column, window: Column, worth: Worth, /) -> Found:
        """The effect is the change of the share, in either direction."""
        old, new = self.table(reference, reference), self.table(reference, window)
        before, now = old[0] / max(1, old.sum()), new[0] / max(1, new.sum())
        p = p_exact(now * worth.window, worth.window, before * worth.reference, worth.reference)
        return Found(float(abs(now - before)), p, f"{now:.1%} of rows are {self.thing}, {before:.1%} before")

    def _count(self, column: Column) -> int:
        if self.thing == "missing":
            return column.missing
        return categories(column).rare


def p_exact(count: float, rows: float, other_count: float, other_rows: float) -> float:
    """Two-sided p, twice the smaller tail, of `count` out of `rows` beside `other_count` out of `other_rows`; each
    is rounded, since rows worth less than themselves are fractions."""
    n, others = round(rows), round(other_rows)
    k, drawn = min(round(count), n), min(round(count), n) + min(round(other_count), others)
    low, high = max(0, drawn - others), min(drawn, n)
    at = np.arange(low, high + 1)
    log_p = _choose(n, at) + _choose(others, drawn - at) - _choose(n + others, np.array(drawn))
    share = np.exp(log_p)
    return min(1.0, 2 * float(min(share[at <= k].sum(), share[at >= k].sum())))


def _choose(n: int, k: Counts) -> Counts:
    """log of n over k."""
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))
