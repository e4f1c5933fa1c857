"""What is kept of a column of numbers: counts that add up, over cells fixed by the reference.

A number x lies in the cell given by the high 16 bits of the float32 (x - center) / scale, the reference's median
and interquartile range: 65,536 cells, ordered as the numbers are, at most .8 % of the distance from the centre wide.
Infinities have cells of their own at the ends; null and NaN count as missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.engines.drift.calibrate import Shares, scores

Counts = NDArray[np.int64]
CELLS = 65_536
CHUNK = 65_536  # rows: the work on a chunk stays in the processor's cache
_SIGN = 0x8000
_NEGATIVE_INFINITY, _POSITIVE_INFINITY = 0xFFFF - 0xFF80, 0x7F80 + _SIGN
_DENSE = 4_096  # rows, or cells, from which counting all cells is cheaper than sorting


@dataclass(frozen=True, eq=False)
class Numbers:
    """`counts[i]` rows in cell `cells[i]`, ascending and each above 0; `missing` rows have no number. What follows from
    these is kept: a reference is asked again and again."""

    cells: NDArray[np.int64]
    counts: Counts
    missing: int
    _edges: dict[int, NDArray[np.int64]] = field(default_factory=dict, repr=False)

    @cached_property
    def present(self) -> int:
        return int(self.counts.sum())

    @cached_property
    def shares(self) -> Shares:
        """(c,) of the rows, by cell."""
        return np.asarray(self.counts / max(1, self.present))

    @cached_property
    def under(self) -> Shares:
        """(c + 1,) of the rows, those below each cell; the last: below none."""
        shares = np.append(self.shares, 0.0)
        return np.asarray(np.cumsum(shares) - shares)

    @cached_property
    def scores(self) -> Shares:
        """(c,) the normal quantile of each cell's mid-rank."""
        return scores(np.cumsum(self.shares) - self.shares / 2)

    @cached_property
    def moments(self) -> tuple[float, float]:
        """The means over rows of the score and of its square."""
        return float(np.sum(self.shares * self.scores)), float(np.sum(self.shares * self.scores**2))

    @staticmethod
    def total(parts: Sequence[Numbers]) -> Numbers:
        """All of them together."""
        if sum(len(part.cells) for part in parts) >= _DENSE:
            totals = np.zeros(CELLS, np.int64)
            for part in parts:
                totals[part.cells] += part.counts
            cells = np.flatnonzero(totals > 0)  # of booleans: ten times faster
            return Numbers(cells, totals[cells], sum(part.missing for part in parts))
        cells, inverse = np.unique(np.concatenate([part.cells for part in parts]), return_inverse=True)
        counts = np.bincount(inverse, np.concatenate([part.counts for part in parts]), len(cells)).astype(np.int64)
        return Numbers(cells, counts, sum(part.missing for part in parts))

    def edges(self, bins: int) -> NDArray[np.int64]:
        """The last cell of each of at most `bins` bins that hold about equally many rows."""
        if bins not in self._edges:
            ranks = self.present * np.arange(1, bins) / bins
            last = np.searchsorted(np.cumsum(self.counts), ranks)
            self._edges[bins] = np.unique(self.cells[last]) if len(self.cells) else self.cells
        return self._edges[bins]

    def coarse(self, edges: NDArray[np.int64]) -> Numbers:
        """The same over few cells: of each bin that `edges` end, the last one."""
        ends = np.append(edges, CELLS - 1)
        where, inverse = np.unique(np.searchsorted(edges, self.cells), return_inverse=True)
        counts = np.bincount(inverse, self.counts, len(where)).astype(np.int64)
        return Numbers(ends[where], counts, self.missing)


@dataclass(frozen=True, slots=True)
class NumberLayout:
    """Where the cells lie."""

    center: float
    scale: float

    def count(self, column: pl.Series) -> Numbers:
        if len(column) < _DENSE:
            return self.count_each(column, [np.arange(len(column))])[0]
        totals = np.zeros(CELLS, np.int64)
        for part in column.cast(pl.Float64).get_chunks():  # as they lie: to join them would be a copy
            values = part.to_numpy()
            for start in range(0, len(values), CHUNK):
                bits = _high_bits(values[start : start + CHUNK], self.center, self.scale)
                totals += np.bincount(bits.astype(np.intp), minlength=CELLS)  # faster than of 16 bits
        found = np.flatnonzero(totals > 0)  # of booleans: ten times faster
        cells = _cells(found)
        order = np.argsort(cells)
        return next(_numbers(cells[order], totals[found[order]], 1))

    def count_each(self, column: pl.Series, parts: Sequence[NDArray[np.intp]]) -> list[Numbers]:
        """`count` of each of these rows of the column (indices): where each row lies is found once."""
        cells = self.cells(column)
        if any(len(rows) >= _DENSE for rows in parts):
            return [_tallied(cells[rows]) for rows in parts]
        starts = np.repeat(np.arange(len(parts)) * CELLS, [len(rows) for rows in parts])
        found, counts = np.unique(starts + cells[np.concatenate([*parts, np.zeros(0, np.intp)])], return_counts=True)
        return list(_numbers(found, counts, len(parts)))

    def cells(self, column: pl.Series) -> NDArray[np.uint16]:
        """(n,) where each row lies."""
        values = np.asarray(column.cast(pl.Float64).to_numpy(), np.float64)
        return _cells(_high_bits(values, self.center, self.scale)).astype(np.uint16)


def _tallied(cells: NDArray[np.uint16]) -> Numbers:
    totals = np.bincount(cells, minlength=CELLS)
    found = np.flatnonzero(totals > 0)
    return next(_numbers(found, totals[found], 1))


def _high_bits(values: NDArray[np.float64], center: float, scale: float) -> NDArray[np.uint16]:
    with np.errstate(over="ignore"):
        scaled = values - center
        scaled /= scale
        return scaled.astype("<f4").view(np.uint16)[1::2]


def _cells(bits: NDArray[Any]) -> NDArray[Any]:
    """Bit patterns to cells in the order of the numbers: the negative half runs backwards."""
    return np.where(bits & _SIGN, 0xFFFF - bits, bits + _SIGN)


def _numbers(cells: NDArray[np.int64], counts: Counts, parts: int) -> Iterator[Numbers]:
    """Of each part. Cells in order, each once, those of the second part `CELLS` after those of the first; what lies
    beyond the infinities are rows without a number."""
    starts = np.arange(parts + 1) * CELLS
    below, bounds = np.append(0, np.cumsum(counts)), np.searchsorted(cells, starts)
    begins = np.searchsorted(cells, starts[:-1] + _NEGATIVE_INFINITY)
    ends = np.searchsorted(cells, starts[:-1] + _POSITIVE_INFINITY, side="right")
    missing = np.diff(below[bounds]) - (below[ends] - below[begins])
    for start, begin, end, none in zip(starts, begins, ends, missing.tolist(), strict=False):
        yield Numbers(cells[begin:end] - start, counts[begin:end], none)


def layout_of(column: pl.Series) -> NumberLayout:
    """Cells around the column's median, its interquartile range wide."""
    values = column.to_numpy()
    finite = values[np.isfinite(values)]
    if not len(finite):
        return NumberLayout(0.0, 1.0)
    low, center, high = np.quantile(finite, (0.25, 0.5, 0.75))
    return NumberLayout(float(center), float(high - low) or float(finite.std()) or 1.0)
