"""Texts: chi-squared over pooled categories. Rare things (missing, without a name): an exact test on their counts."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from homeostat.engines.drift.calibrate import Shares, Worth
from homeostat.engines.drift.counts import Counts, NumberLayout, Numbers
from homeostat.engines.drift.numeric import LEAST_EXPECTED, Distribution, chi_squared, grouped, pooled
from homeostat.engines.drift.outcome import Found
from homeostat.engines.drift.texts import RARE, Categories, Column, Layout, Prose, ProseLayout

RARE_VALUES = "values that the reference does not name"
_NEAR, _FAR = 12, 40  # standard deviations
_EQUAL = 1e-7  # two tails that differ by less are one
RISES = 0.8
"""Of the false alarms of a rare thing, the part of rises: more missing values are damage, fewer seldom are."""
FREQUENT, GROUPS = 24, 16
"""Few bins: each further one makes the wobble less certain."""


class Mix:
    """Have the shares of the values moved? Those of the frequent ones, and of groups that the others are hashed to."""

    least_effect = 0.03
    ranks = False
    slow = True

    def applies(self, layout: Layout) -> bool:
        return not isinstance(layout, NumberLayout)

    def tables(self, reference: Column, windows: Sequence[Column], /) -> Counts:
        """(w, c) rows of each window: by frequent value of the reference, then by group of the others."""
        named = frequent(categories(reference))
        return np.array([tally(categories(one), named, GROUPS) for one in windows])

    def find(self, reference: Column, window: Column, worth: Worth, /) -> Found:
        """The effect is the total variation, half the sum of |p - q|. There are as many groups as 5 rows each allow."""
        named = frequent(categories(reference))
        others = self.tables(reference, [window])[0, len(named) :].sum() / max(1, window.present)
        rows = worth.over(len(named) + GROUPS - 1).window
        groups = 1 << int(np.clip(np.log2(max(1.0, others * rows / LEAST_EXPECTED)), 0, np.log2(GROUPS)))
        old, new = (tally(categories(column), named, groups) for column in (reference, window))
        moved = new / max(1, new.sum()) - old / max(1, old.sum())
        effect = float(np.abs(moved).sum() / 2)
        together = pooled(old, new, worth)
        p = chi_squared(grouped(old, together), grouped(new, together), worth)
        most = int(np.argmax(np.abs(moved)))
        name = named[most] if most < len(named) else "some that are less frequent"
        return Found(effect, p, f"{effect:.0%} of rows changed category, most of all {name} ({moved[most]:+.1%})")


def frequent(reference: Categories) -> list[str]:
    """At most `FREQUENT` values of the reference that are looked at one by one."""
    named = [name for name in reference.counts if not name.startswith(RARE)]
    return sorted(named, key=lambda name: (-reference.counts[name], name))[:FREQUENT]


def tally(column: Categories, named: Sequence[str], groups: int) -> Counts:
    """(len(named) + groups,) rows of each name, and of all others by the hash of their name or bucket."""
    places = {name: place for place, name in enumerate(named)}
    found = np.zeros(len(named) + groups, np.int64)
    for name, rows in column.counts.items():
        found[places[name] if name in places else len(named) + zlib.crc32(name.encode()) % groups] += rows
    return found


class Wording:
    """Are texts that people write made of other pieces? Another language is."""

    least_effect = 0.1
    ranks = False
    slow = False

    def applies(self, layout: Layout) -> bool:
        return isinstance(layout, ProseLayout)

    def tables(self, reference: Column, windows: Sequence[Column], /) -> Counts:
        """(w, c) rows of each window by piece, as `Mix` has them."""
        return Mix().tables(prose(reference).pieces, [prose(one).pieces for one in windows])

    def find(self, reference: Column, window: Column, worth: Worth, /) -> Found:
        """The effect is the total variation of the pieces."""
        found = Mix().find(prose(reference).pieces, prose(window).pieces, worth)
        return Found(
            found.effect, found.p, f"its texts are worded differently: {found.effect:.0%} of their pieces moved"
        )


class Length:
    """Have texts become longer or shorter? As `Distribution` says."""

    least_effect = 0.1
    ranks = False
    slow = False
    _numbers = Distribution()

    def applies(self, layout: Layout) -> bool:
        return isinstance(layout, ProseLayout)

    def tables(self, reference: Column, windows: Sequence[Column], /) -> Counts:
        return self._numbers.tables(prose(reference).length, [prose(one).length for one in windows])

    def find(self, reference: Column, window: Column, worth: Worth, /) -> Found:
        """The effect is D of the lengths."""
        found = self._numbers.find(prose(reference).length, prose(window).length, worth)
        return Found(found.effect, found.p, f"the lengths of its texts: {found.words}")


def prose(column: Column) -> Prose:
    """Errors: TypeError when the column is not one of texts that people write."""
    if not isinstance(column, Prose):
        raise TypeError("a test of texts was given something else")
    return column


def categories(column: Column) -> Categories:
    """Errors: TypeError when the column is not one of categories."""
    if isinstance(column, Prose):
        return column.values
    if isinstance(column, Numbers):
        raise TypeError("a test of categories was given numbers")
    return column


class Rare:
    """Has the share of one rare thing moved? Fisher's exact test: given both totals, the count is hypergeometric."""

    least_effect = 0.01
    ranks = False
    slow = True

    def __init__(self, thing: str) -> None:
        self.thing = thing

    def applies(self, layout: Layout) -> bool:
        return self.thing == "missing" or not isinstance(layout, NumberLayout)

    def tables(self, _reference: Column, windows: Sequence[Column], /) -> Counts:
        """(w, 2) rows that are the thing, and the others."""
        counts = [(self._count(one), one.present + one.missing) for one in windows]
        return np.array([(count, rows - count) for count, rows in counts], np.int64)

    def find(self, reference: Column, window: Column, worth: Worth, /) -> Found:
        """The effect is the change of the share, in either direction."""
        old, new = self.tables(reference, [reference, window])
        before, now = old[0] / max(1, old.sum()), new[0] / max(1, new.sum())
        if not old[0] and not new[0]:
            return Found(0.0, 1.0, f"no row is {self.thing}", np.ones(1))
        sizes = now * worth.window, worth.window, before * worth.reference, worth.reference
        p, law = p_exact(*sizes, self.least_effect)
        return Found(float(abs(now - before)), p, f"{now:.1%} of rows are {self.thing}, {before:.1%} before", law)

    def _count(self, column: Column) -> int:
        if self.thing == "missing":
            return column.missing
        return categories(column).rare


def p_exact(
    count: float, rows: float, other_count: float, other_rows: float, least: float = 0.0
) -> tuple[float, Shares]:
    """→ two-sided p of `count` out of `rows` beside `other_count` out of `other_rows`, and each p-value that counts
    with the same totals can have whose share has moved by `least`. Blaker's p (2000): the chance of a count whose
    smaller tail is no larger, so that a side that can't be as sure costs the other nothing; tails are weighed, for
    rises count more. All are rounded, since rows worth less than themselves are fractions. Counts farther from the
    expected one than 40 standard deviations have no chance that a float can hold."""
    n, others = round(rows), round(other_rows)
    k, drawn = min(round(count), n), min(round(count), n) + min(round(other_count), others)
    mean = n * drawn / max(1, n + others)
    spread = 1 + np.sqrt(mean * (n + others - drawn) / max(1, n + others))
    far = np.clip(abs(k - mean), _NEAR * spread, _FAR * spread) + 1
    low, high = max(0, drawn - others, int(mean - far)), min(drawn, n, int(mean + far))
    if not low <= k <= high:
        return 0.0, np.zeros(0)
    share = _hypergeometric(n, others, drawn, np.arange(low, high, dtype=np.float64))
    tail = np.minimum(np.cumsum(share) / (1 - RISES), np.cumsum(share[::-1])[::-1] / RISES)
    order = np.argsort(tail, kind="stable")  # it rises and falls: two runs to merge
    last = np.searchsorted(tail[order], tail[order] * (1 + _EQUAL), side="right") - 1
    law = np.minimum(1.0, np.cumsum(share[order])[last])
    moved = abs((low + order) / max(1, n) - other_count / max(1.0, other_rows)) >= least
    return float(law[np.flatnonzero(order == k - low)[0]]), law[moved]


def _hypergeometric(n: int, others: int, drawn: int, at: Shares) -> Shares:
    """The chances of the counts `at` and of the next one, of n rows when `drawn` of n + others are the thing: each is
    the one before it times (n - k) (drawn - k) / (k + 1) (others - drawn + k + 1)."""
    steps = np.log((n - at) * (drawn - at)) - np.log((at + 1) * (others - drawn + at + 1))
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    share = np.exp(logs - logs.max())
    return np.asarray(share / share.sum())
