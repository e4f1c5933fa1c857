"""Groups of rows that lose alike: the leaves of a shallow tree, each a few conditions that people can read.

A split is the one with the largest reduction of the losses' variance, in units of it (Breiman et al., Classification
and Regression Trees, 1984); the values of a text are ordered by their mean loss first, which finds the best of all
their splits in two (Fisher 1958). With several samples (before and now) the reductions are summed, so that a place is
found where any of them loses otherwise. A split must be sure: chi-squared, Bonferroni over all cuts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import chdtri

from homeostat.domain.schema import Field, Kind
from homeostat.engines.report.words import number

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Codes = NDArray[np.int64]
DEPTH, QUANTILES, LISTED = 3, 32, 32
NAMED = 5
"""Values of a text that a sentence names."""
LEAST = 20
"""Rows on each side of a split, at least; and a fiftieth of all."""
ALPHA = 0.05
NUMERIC = (Kind.NUMBER, Kind.INTEGER)


@dataclass(frozen=True, slots=True)
class Condition:
    """low <= number < high (None: open), or a text among `values` (with `other`: not among them). `null`: rows without
    a value belong to it."""

    field: str
    low: float | None = None
    high: float | None = None
    values: tuple[str, ...] | None = None
    other: bool = False
    null: bool = False

    def holds(self, column: pl.Series) -> Mask:
        """(n,) for which rows."""
        gap = column.is_null().to_numpy()
        if self.values is not None:
            inside = column.cast(pl.String).is_in(list(self.values)).fill_null(False).to_numpy() != self.other
            return np.where(gap, self.null, inside)
        numbers = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
        within = numbers == numbers
        within &= numbers >= self.low if self.low is not None else True
        within &= numbers < self.high if self.high is not None else True
        return np.where(np.isnan(numbers), self.null, within)

    def __and__(self, also: Condition) -> Condition:
        """Both, of one field."""
        null = self.null and also.null
        if self.values is None or also.values is None:
            lows = [one.low for one in (self, also) if one.low is not None]
            highs = [one.high for one in (self, also) if one.high is not None]
            nothing = () if () in (self.values, also.values) else None  # only rows without a value
            return Condition(self.field, max(lows, default=None), min(highs, default=None), nothing, null=null)
        mine, its = set(self.values), set(also.values)
        both = {
            (False, False): mine & its,
            (False, True): mine - its,
            (True, False): its - mine,
            (True, True): mine | its,
        }[self.other, also.other]
        return Condition(self.field, values=tuple(sorted(both)), other=self.other and also.other, null=null)

    def __str__(self) -> str:
        if self.values is not None:
            return self._listed()
        low, high = (None if edge is None else number(edge) for edge in (self.low, self.high))
        if low is not None and high is not None:
            return f"{self.field} from {low} to below {high}"
        said = f"{self.field} below {high}" if high is not None else f"{self.field} from {low} on"
        if low is None and high is None:
            return f"{self.field} is there"
        return said + (" or missing" if self.null else "")

    def _listed(self) -> str:
        names = _some(self.values or ())
        if not names:
            return f"{self.field} is missing"
        verb = "is not" if self.other else "is"
        return f"{self.field} {verb} {names}" + (" or is missing" if self.null and not self.other else "")


def _some(values: Sequence[str]) -> str:
    """All of a few; of many the first, and how many more there are."""
    if len(values) <= NAMED:
        return ", ".join(values)
    return f"{', '.join(values[:NAMED])} and {len(values) - NAMED} more"


@dataclass(frozen=True, slots=True)
class Group:
    """Rows for which every condition holds; without one: all."""

    conditions: tuple[Condition, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(condition.field for condition in self.conditions)

    def holds(self, frame: pl.DataFrame) -> Mask:
        """(n,) for which rows of `frame`, which has a column a field."""
        inside = np.ones(len(frame), bool)
        for condition in self.conditions:
            inside &= condition.holds(frame[condition.field])
        return inside

    def narrowed(self, by: Condition) -> Group:
        known = {condition.field: condition for condition in self.conditions}
        known[by.field] = known[by.field] & by if by.field in known else by
        return Group(tuple(known.values()))

    def __str__(self) -> str:
        return " and ".join(map(str, self.conditions)) or "all rows"


@dataclass(frozen=True, slots=True)
class _Binned:
    """A field's rows in bins (n,). Numbers: bin b lies below edges[b], the last bin is null; texts: `names` with None
    for null and "" in the last place for any other."""

    field: str
    codes: Codes
    bins: int
    edges: Array
    names: tuple[str | None, ...] | None


def groups(fields: Sequence[Field], frame: pl.DataFrame, losses: Array, samples: Codes | None = None) -> list[Group]:
    """The leaves, which share the rows out among them. `frame`: a column a field, n rows; `losses` (n,); `samples`
    (n,): 0, 1, … for rows of several samples (one, by default)."""
    samples = np.zeros(len(losses), np.int64) if samples is None else samples
    binned = [_bin(field, frame[field.name]) for field in fields]
    least = max(LEAST, len(losses) // 50)
    rows = _Rows(binned, losses, samples, int(samples.max(initial=0)) + 1, least)
    return list(_grow(rows, np.arange(len(losses)), Group(), DEPTH))


def _bin(field: Field, column: pl.Series) -> _Binned:
    if field.kind in NUMERIC:
        values = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
        finite = values[np.isfinite(values)]
        edges = np.unique(np.quantile(finite, np.arange(1, QUANTILES) / QUANTILES)) if len(finite) else np.zeros(0)
        codes = np.searchsorted(edges, values, side="right")
        codes[np.isnan(values)] = len(edges) + 1
        return _Binned(field.name, codes, len(edges) + 2, edges, None)
    texts = column.cast(pl.String)
    frequent = texts.drop_nulls().value_counts(name="n").sort("n", texts.name, descending=[True, False]).head(LISTED)
    known = frequent[texts.name].to_list()
    places = texts.replace_strict(known, range(len(known)), default=len(known) + 1, return_dtype=pl.Int64)
    places = places.set(texts.is_null(), len(known))
    return _Binned(field.name, places.to_numpy(), len(known) + 2, np.zeros(0), (*known, None, ""))


@dataclass(frozen=True, slots=True)
class _Rows:
    binned: Sequence[_Binned]
    losses: Array
    samples: Codes
    many: int
    least: int

    @property
    def sure(self) -> float:
        """What a split must gain."""
        return float(chdtri(self.many, ALPHA / max(1, sum(one.bins - 1 for one in self.binned))))


def _grow(rows: _Rows, here: NDArray[np.intp], group: Group, depth: int) -> Iterator[Group]:
    best = max((_best(rows, one, here) for one in rows.binned), key=lambda found: found[0], default=None)
    if depth == 0 or best is None or best[0] < rows.sure:
        yield group
        return
    _, one, left, sides = best
    inside = left[one.codes[here]]
    for side, part in zip(sides, (here[inside], here[~inside]), strict=True):
        yield from _grow(rows, part, group.narrowed(side), depth - 1)


_Found = tuple[float, _Binned, Mask, tuple[Condition, Condition]]


def _best(rows: _Rows, one: _Binned, here: NDArray[np.intp]) -> _Found:
    """The best cut of one field: its gain, which bins lie left of it, and the two conditions."""
    cells = one.codes[here] * rows.many + rows.samples[here]
    shape = one.bins, rows.many
    n, sums = (
        np.asarray(np.bincount(cells, weight, one.bins * rows.many).reshape(shape), np.float64)
        for weight in (None, rows.losses[here])
    )
    order = np.arange(one.bins) if one.names is None else np.argsort(_means(n, sums), kind="stable")
    gains = _gains(n[order], sums[order], _variances(rows, here), rows.least)
    cut = int(np.argmax(gains)) if len(gains) else 0
    left = np.zeros(one.bins, bool)
    left[order[: cut + 1]] = True
    return float(gains[cut]) if len(gains) else 0.0, one, left, _sides(one, cut, left)


def _means(n: Array, sums: Array) -> Array:
    return np.asarray(sums.sum(axis=1) / np.maximum(n.sum(axis=1), 1))


def _variances(rows: _Rows, here: NDArray[np.intp]) -> Array:
    """(samples,) of the losses of these rows."""
    found = [rows.losses[here[rows.samples[here] == sample]] for sample in range(rows.many)]
    return np.array([max(float(losses.var()), 1e-12) if len(losses) else np.inf for losses in found])


def _gains(n: Array, sums: Array, variances: Array, least: int) -> Array:
    """(bins - 1,) what each cut takes from the sum of squares, in variances, summed over the samples."""
    left_n, left = n.cumsum(axis=0)[:-1], sums.cumsum(axis=0)[:-1]
    right_n, right = n.sum(axis=0) - left_n, sums.sum(axis=0) - left
    whole = sums.sum(axis=0) ** 2 / np.maximum(n.sum(axis=0), 1)
    between = left**2 / np.maximum(left_n, 1) + right**2 / np.maximum(right_n, 1) - whole
    large = (left_n.sum(axis=1) >= least) & (right_n.sum(axis=1) >= least)
    return np.where(large, (between / variances).sum(axis=1), 0.0)


def _sides(one: _Binned, cut: int, left: Mask) -> tuple[Condition, Condition]:
    if one.names is None:
        if cut >= len(one.edges):  # all numbers against null
            return Condition(one.field), Condition(one.field, values=(), null=True)
        edge = float(one.edges[cut])
        return Condition(one.field, high=edge), Condition(one.field, low=edge, null=True)
    return _texts(one.field, one.names, left), _texts(one.field, one.names, ~left)


def _texts(field: str, names: Sequence[str | None], inside: Mask) -> Condition:
    """The side that holds any other value is told by what it is not."""
    here = {name for name, is_in in zip(names, inside, strict=True) if is_in}
    other, null = bool(inside[-1]), None in here
    listed = {name for name in names[:-1] if name is not None and (name in here) != other}
    return Condition(field, values=tuple(sorted(listed)), other=other, null=null)


def placed(found: Sequence[Group], frame: pl.DataFrame) -> Codes:
    """(n,) the place of the group that each row lies in."""
    where = np.zeros(len(frame), np.int64)
    for place, group in enumerate(found):
        where[group.holds(frame)] = place
    return where


def halves(n: int) -> Mask:
    """(n,) rows in order of time, half of which find groups, for the other half to measure them: every second of 20
    stretches, since neighbours are alike."""
    return np.asarray(np.arange(n) * 20 // max(n, 1) % 2 == 0)


def plain(group: Group, nullable: Mapping[str, bool]) -> Group:
    """Without a word about missing values where there can be none."""
    return Group(tuple(replace(one, null=one.null and nullable.get(one.field, True)) for one in group.conditions))
