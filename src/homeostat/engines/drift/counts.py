"""What is kept of a column: counts that add up, over cells fixed by the reference.

A number x lies in the cell given by the high 16 bits of the float32 (x - center) / scale, the reference's median
and interquartile range: 65,536 cells, ordered as the numbers are, at most .8 % of the distance from the centre wide.
Infinities have cells of their own at the ends; null and NaN count as missing.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.errors import Corrupt

Counts = NDArray[np.int64]
CELLS = 65_536
OTHER = "\x00other"
"""Where every text is counted that the reference does not know by name."""
_SIGN = 0x8000
_NEGATIVE_INFINITY, _POSITIVE_INFINITY = 0xFFFF - 0xFF80, 0x7F80 + _SIGN
_CHUNK = 65_536  # rows: the work on a chunk stays in the processor's cache
_DENSE = 4_096  # rows from which counting all cells is cheaper than sorting


@dataclass(frozen=True, slots=True)
class Numbers:
    """`counts[i]` rows in cell `cells[i]`, ascending and each above 0; `missing` rows have no number."""

    cells: NDArray[np.int64]
    counts: Counts
    missing: int

    @property
    def present(self) -> int:
        return int(self.counts.sum())

    def __add__(self, other: Numbers) -> Numbers:
        cells, inverse = np.unique(np.concatenate([self.cells, other.cells]), return_inverse=True)
        counts = np.zeros(len(cells), np.int64)
        np.add.at(counts, inverse, np.concatenate([self.counts, other.counts]))
        return Numbers(cells, counts, self.missing + other.missing)


@dataclass(frozen=True, slots=True)
class Categories:
    """Rows by text; `missing` rows have none."""

    counts: Mapping[str, int]
    missing: int

    @property
    def present(self) -> int:
        return sum(self.counts.values())

    def __add__(self, other: Categories) -> Categories:
        names = sorted({*self.counts, *other.counts})
        merged = {name: self.counts.get(name, 0) + other.counts.get(name, 0) for name in names}
        return Categories(merged, self.missing + other.missing)


Column = Numbers | Categories


def add(one: Column, other: Column) -> Column:
    """Errors: TypeError, numbers and categories do not add up."""
    if isinstance(one, Numbers) and isinstance(other, Numbers):
        return one + other
    if isinstance(one, Categories) and isinstance(other, Categories):
        return one + other
    raise TypeError("numbers and categories do not add up")


@dataclass(frozen=True, slots=True)
class NumberLayout:
    """Where the cells lie."""

    center: float
    scale: float

    def count(self, column: pl.Series) -> Numbers:
        values = np.asarray(column.cast(pl.Float64).to_numpy(), np.float64)
        dense = len(values) >= _DENSE
        totals = np.zeros(CELLS, np.int64)
        found = np.zeros(0, np.uint16)
        for start in range(0, len(values), _CHUNK):
            found = _high_bits(values[start : start + _CHUNK], self.center, self.scale)
            if dense:
                totals += np.bincount(found, minlength=CELLS)
        cells, counts = (np.flatnonzero(totals), totals[totals > 0]) if dense else np.unique(found, return_counts=True)
        return _ordered(cells.astype(np.int64), counts.astype(np.int64))


def _high_bits(values: NDArray[np.float64], center: float, scale: float) -> NDArray[np.uint16]:
    with np.errstate(over="ignore"):
        scaled = ((values - center) / scale).astype("<f4")
    return scaled.view(np.uint16)[1::2]


def _ordered(bits: NDArray[np.int64], counts: Counts) -> Numbers:
    """Bit patterns to cells in the order of the numbers: the negative half runs backwards."""
    cells = np.where(bits & _SIGN, 0xFFFF - bits, bits + _SIGN)
    number = (cells >= _NEGATIVE_INFINITY) & (cells <= _POSITIVE_INFINITY)
    order = np.argsort(cells[number])
    return Numbers(cells[number][order], counts[number][order], int(counts[~number].sum()))


@dataclass(frozen=True, slots=True)
class CategoryLayout:
    """The texts counted by name; all others are counted as one."""

    known: tuple[str, ...]

    def count(self, column: pl.Series) -> Categories:
        tally = column.cast(pl.String).value_counts(name="rows")
        counts = dict.fromkeys((*self.known, OTHER), 0)
        missing = 0
        for name, rows in tally.iter_rows():
            if name is None:
                missing += rows
            else:
                counts[name if name in counts else OTHER] += rows
        return Categories({name: rows for name, rows in counts.items() if rows}, missing)


Layout = NumberLayout | CategoryLayout


@dataclass(frozen=True, slots=True)
class Profile:
    """What is kept of a stretch of rows: the counts of each column. Profiles of the same reference add up."""

    rows: int
    columns: Mapping[str, Column]

    def __add__(self, other: Profile) -> Profile:
        merged = {name: add(column, other.columns[name]) for name, column in self.columns.items()}
        return Profile(self.rows + other.rows, merged)


@dataclass(frozen=True, slots=True)
class Calibration:
    """How much windows of the reference differ beyond chance: `wobble` by `test:subject`, over `windows` of them."""

    windows: int
    wobble: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reference:
    """What ordinary rows look like, and how much ordinary windows of a length (ms) wobble."""

    layouts: Mapping[str, Layout]
    profile: Profile
    calibrations: Mapping[int, Calibration]

    def calibration(self, window_ms: int) -> Calibration:
        """That of the longest calibrated length within `window_ms`, else of the shortest: shorter windows wobble
        more, so the choice errs towards silence."""
        fitting = [length for length in self.calibrations if length <= window_ms]
        return self.calibrations[max(fitting) if fitting else min(self.calibrations)]

    def to_bytes(self) -> bytes:
        """Compressed MessagePack; only cells that hold a row are written. The same reference, the same bytes."""
        layouts = {name: _layout_out(layout) for name, layout in self.layouts.items()}
        columns = {name: _column_out(column) for name, column in self.profile.columns.items()}
        calibrations = [(length, c.windows, c.wobble) for length, c in self.calibrations.items()]
        return zlib.compress(msgspec.msgpack.encode((layouts, self.profile.rows, columns, calibrations)))

    @staticmethod
    def from_bytes(data: bytes) -> Reference:
        """Errors: `Corrupt` when the bytes are not a reference."""
        try:
            layouts, rows, columns, calibrations = msgspec.msgpack.decode(zlib.decompress(data))
            return Reference(
                {name: _layout_in(plain) for name, plain in layouts.items()},
                Profile(rows, {name: _column_in(plain) for name, plain in columns.items()}),
                {length: Calibration(windows, wobble) for length, windows, wobble in calibrations},
            )
        except (zlib.error, msgspec.MsgspecError, AttributeError, ValueError, TypeError) as error:
            raise Corrupt("a reference profile can't be read", where=str(error)) from error


def _layout_out(layout: Layout) -> list[Any]:
    return [layout.center, layout.scale] if isinstance(layout, NumberLayout) else [layout.known]


def _layout_in(plain: list[Any]) -> Layout:
    return NumberLayout(*plain) if len(plain) == 2 else CategoryLayout(tuple(plain[0]))


def _column_out(column: Column) -> list[Any]:
    if isinstance(column, Categories):
        return [column.missing, column.counts]
    return [column.missing, column.cells.astype("<u2").tobytes(), column.counts.astype("<i8").tobytes()]


def _column_in(plain: list[Any]) -> Column:
    if len(plain) == 2:
        return Categories(plain[1], plain[0])
    cells, counts = np.frombuffer(plain[1], "<u2"), np.frombuffer(plain[2], "<i8")
    return Numbers(cells.astype(np.int64), counts.astype(np.int64), plain[0])
