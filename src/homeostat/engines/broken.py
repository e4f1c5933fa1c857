"""Broken columns, told apart from drift: an upstream fault leaves marks that the world does not.

A value that repeats for several times as long as it ever did, values that fit again once divided by a unit's factor,
a column that is suddenly empty, one value that fills the gaps, a category under a new name. What a column does of
itself is its habit, measured on the rows that the champion has learned from, so that a column that is constant for
days in ordinary life is no fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.quarantine import Fault
from homeostat.domain.schema import Kind, Schema, Value
from homeostat.domain.units import DAY_MS, show_duration

Mask = NDArray[np.bool_]
HABITS = "habits.json"
"""The file of a bundle that holds them."""
LEAST_ROWS = 20
"""Fewer rows prove no fault."""
LONGER, STRANGER = 4.0, 1.5
"""How many times as long as its longest run before a value must repeat: one that was there before, one that never was.
On 13 months of electricity prices and two years of bicycle hire the longest run of a month is up to 3.1 times the
longest of the three months before it."""
LEAST_CHANGES = 5
"""A column that changed less often has not shown how long it stays."""
MOST = 0.5
"""Of a window's rows: so many must be empty, or hold the same value."""
FILLED, RARER = 0.2, 20
"""Of the rows that one value must fill, and how many times as rare it must have been before."""
OUTSIDE, INSIDE = 0.1, 0.9
"""Of the values, so few may lie where they used to, and so many must once their unit is turned back."""
APART = 0.5
"""As far as a day of a year may lie from the year."""
QUANTILES = (0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
DISTINCT = 10
"""Different values that a unit must show in: a month that turns from 12 to 1 is no tenth of itself."""
FACTORS = tuple(float(f"{f:g}") for one in (10, 60, 100, 1_000, 3_600, 1_000_000) for f in (one, 1 / one))
RENAMED = 0.05
"""Of the rows that a category must have held to be missed."""
KNOWN = 1_000
"""Categories whose shares are kept: the most frequent."""
PARTIAL = ("default", "renamed")
"""Faults that show in some rows only, and last while they show at all."""
STRAY = 3
"""Rows of a fault that one row without it outweighs, where a stretch is told from the rows beside it."""


@dataclass(frozen=True, slots=True)
class Habit:
    """What one column does in ordinary life. `run`, `run_ms`: the most rows, and the longest time, with one value;
    `changes`: how often it had another. `missing`, `top`, `zeros`: of the rows of a day, the largest shares that were
    empty, that had one value, and that were 0. Numbers: `bounds` holds their `QUANTILES`; texts: `shares`
    how much of all rows each had."""

    run: int
    run_ms: int
    changes: int
    missing: float
    top: float
    zeros: float = 0.0
    bounds: tuple[float, ...] = ()
    shares: Mapping[str, float] = field(default_factory=dict)

    @property
    def spread(self) -> bool:
        """Is it a number that takes more than one value?"""
        return len(self.bounds) > 1 and self.bounds[1] < self.bounds[-2]

    def knows(self, value: Value) -> bool:
        """May this value have been there before?"""
        if isinstance(value, float) and self.bounds:
            return self.bounds[0] <= value <= self.bounds[-1] and (value != 0 or self.zeros > 0)
        return not self.shares or str(value) in self.shares or len(self.shares) >= KNOWN


def habits(schema: Schema, frame: pl.DataFrame) -> dict[str, Habit]:
    """Of each input, from the rows of a prepared frame in order of time. No row: none."""
    if frame.is_empty():
        return {}
    at_ms = frame[EVENT_MS].to_numpy()
    return {one.name: _habit(plain(frame[one.name], one.kind), at_ms) for one in schema.fields}


def plain(column: pl.Series, kind: Kind) -> pl.Series:
    """Numbers as floats, null where there is none; everything else as text."""
    if kind not in (Kind.NUMBER, Kind.INTEGER):
        return column.cast(pl.String)
    values = column.cast(pl.Float64)
    without = int(np.isnan(values.to_numpy()).sum())  # a null is NaN there
    return values.fill_nan(None) if without > values.null_count() else values


def _habit(column: pl.Series, at_ms: NDArray[np.int64]) -> Habit:
    starts, ends = runs(column)
    lasted = at_ms[ends - 1] - at_ms[starts] if len(starts) else np.zeros(1, np.int64)
    days = pl.DataFrame({"day": at_ms // DAY_MS, "value": column})
    by_day = days.group_by("day").agg(pl.len().alias("rows"), pl.col("value").null_count().alias("none"))
    top = days.drop_nulls().group_by("day", "value").len().join(by_day, on="day").filter(pl.col("rows") >= LEAST_ROWS)
    share = pl.col("len") / pl.col("rows")
    text = column.dtype == pl.String
    return Habit(
        run=int((ends - starts).max(initial=0)),
        run_ms=int(lasted.max(initial=0)),
        changes=max(0, len(starts) - 1),
        missing=_largest(by_day, pl.col("none") / pl.col("rows")),
        top=_largest(top, share),
        zeros=0.0 if text else _largest(top.filter(pl.col("value") == 0), share),
        bounds=() if text else _bounds(column),
        shares=_shares(column) if text else {},
    )


def _largest(frame: pl.DataFrame, share: pl.Expr) -> float:
    found = frame.select(share.max()).item() if len(frame) else None
    return float(found or 0.0)


def _bounds(column: pl.Series) -> tuple[float, ...]:
    values = column.drop_nulls().to_numpy()
    return tuple(float(q) for q in np.quantile(values, QUANTILES)) if len(values) else ()


def _shares(column: pl.Series) -> dict[str, float]:
    frequent = column.drop_nulls().value_counts(sort=True).head(KNOWN)
    return {name: rows / len(column) for name, rows in frequent.iter_rows()}


def runs(column: pl.Series) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where each run of one value (n rows, nulls left out of the runs) starts and ends, as [start, end)."""
    if column.dtype == pl.Float64:
        values = column.to_numpy()  # nulls are NaN, which differs from itself
        changed = np.ones(len(values), bool)
        changed[1:] = values[1:] != values[:-1]
    else:
        changed = (column != column.shift(1)).fill_null(True).to_numpy()
    starts = np.flatnonzero(changed)
    ends = np.append(starts[1:], len(column)) if len(column) else starts
    held = column.is_not_null().to_numpy()[starts]
    return starts[held], ends[held]


def reach_ms(known: Mapping[str, Habit], windows_ms: Sequence[int]) -> int:
    """How far back rows must be looked at: two of the shortest windows, and any run that is too long, with one of the
    shortest windows before it; no more than the longest one and that."""
    needed = [int(LONGER * habit.run_ms) for habit in known.values() if habit.changes >= LEAST_CHANGES]
    return min(windows_ms) + max(min(windows_ms), *(one for one in needed if one <= max(windows_ms)), 0)


def faults(known: Mapping[str, Habit], rows: pl.DataFrame, at_ms: NDArray[np.int64], from_ms: int) -> Iterator[Fault]:
    """At most one a column: what is wrong with the rows since `from_ms`, in the light of those before them. `rows`
    (n): the inputs as `plain` gives them, in order of time, at `at_ms` (n,)."""
    first = int(np.searchsorted(at_ms, from_ms))
    for name, habit in known.items():
        column = rows[name]
        for kind in KINDS:
            fault = kind(name, habit, column, at_ms, first)
            if fault is not None:
                yield fault
                break


def _empty(name: str, habit: Habit, column: pl.Series, at_ms: NDArray[np.int64], first: int) -> Fault | None:
    """Most rows have no value."""
    new = column[first:]
    share = new.null_count() / max(1, len(new))
    if len(new) < LEAST_ROWS or share < max(MOST, 5 * habit.missing):
        return None
    words = f"{share:.0%} of rows have no value; at most {habit.missing:.1%} on any day before"
    return _fault(name, "missing", words, None, column, at_ms)


def _unit(name: str, habit: Habit, column: pl.Series, at_ms: NDArray[np.int64], first: int) -> Fault | None:
    """Hardly a value lies where they used to, and nearly all do once they are divided by one factor."""
    if not habit.spread:
        return None
    values = _numbers(column[first:])
    if len(values) < LEAST_ROWS or len(np.unique(values)) < DISTINCT:
        return None
    still = _within(habit, values)
    if still > OUTSIDE:
        return None
    factor = min(FACTORS, key=lambda one: _apart(habit, values / one))
    inside = _within(habit, values / factor)
    if inside < INSIDE or _apart(habit, values / factor) > APART:
        return None
    by = f"multiplied by {factor:g}" if factor > 1 else f"divided by {1 / factor:g}"
    words = f"its values look {by}: {inside:.0%} would lie where they used to, {still:.0%} do"
    found = _fault(name, "unit", words, factor, column, at_ms, habit)
    before = _numbers(column.filter(pl.Series(at_ms < found.from_ms)))
    return found if len(before) and _within(habit, before) >= MOST else None  # what grows without end does not jump


def _numbers(column: pl.Series) -> NDArray[np.float64]:
    """Those that are there, of a column as `plain` gives it."""
    values = column.to_numpy()
    return values[~np.isnan(values)] if column.null_count() else values


def _apart(habit: Habit, values: NDArray[np.float64]) -> float:
    """D: how far the shares of the values at or below the reference's quantiles are from what they were."""
    below = np.searchsorted(np.sort(values), habit.bounds, side="right") / len(values)
    return float(np.abs(below - QUANTILES).max())


def _within(habit: Habit, values: NDArray[np.float64]) -> float:
    """The share between the 1st and the 99th percentile."""
    return float(np.mean((values >= habit.bounds[1]) & (values <= habit.bounds[-2])))


def _stuck(name: str, habit: Habit, column: pl.Series, at_ms: NDArray[np.int64], first: int) -> Fault | None:
    """One value repeats for several times as long as any did before, in rows and in time."""
    if habit.changes < LEAST_CHANGES:
        return None
    starts, ends = runs(column)
    new = ends > first
    if not new.any():
        return None
    longest = int(np.argmax(np.where(new, ends - starts, 0)))
    begin, end = int(starts[longest]), int(ends[longest])
    value: Value = column[begin]
    factor = LONGER if habit.knows(value) else STRANGER
    lasted = int(at_ms[end - 1] - at_ms[begin])
    least = max(LEAST_ROWS, MOST * (len(column) - first), factor * habit.run)  # a clipped value fills some hours a day
    if end - begin < least or lasted < factor * habit.run_ms:
        return None
    before = f"at most {habit.run} in {show_duration(habit.run_ms)} before"
    words = f"it has been {_said(value)} for {end - begin} rows in {show_duration(lasted)}; {before}"
    return _fault(name, "zero" if value == 0 else "stuck", words, value, column, at_ms)


def _filled(name: str, habit: Habit, column: pl.Series, at_ms: NDArray[np.int64], first: int) -> Fault | None:
    """One number fills so many rows that no number ever did: a default in place of what is missing."""
    new = column[first:]
    if column.dtype == pl.String or len(new) - new.null_count() < LEAST_ROWS:
        return None
    values, rows = np.unique(_numbers(new), return_counts=True)
    value, share = float(values[np.argmax(rows)]), int(rows.max()) / len(new)
    before = habit.zeros if value == 0 else habit.top if habit.knows(value) else 0.0
    if share < FILLED or share < RARER * before or share < LONGER * habit.top:
        return None
    words = f"{share:.0%} of rows are {_said(value)}; no value had more than {habit.top:.0%} on any day before"
    return _fault(name, "default", words, value, column, at_ms)


def _renamed(name: str, habit: Habit, column: pl.Series, at_ms: NDArray[np.int64], first: int) -> Fault | None:
    """A category is gone, and one that never was there has about its share."""
    new = column[first:]
    if column.dtype != pl.String or len(new) < LEAST_ROWS or len(habit.shares) >= KNOWN:
        return None
    now = {str(value): rows / len(new) for value, rows in new.drop_nulls().value_counts().iter_rows()}
    gone = {one: share for one, share in habit.shares.items() if share >= RENAMED and one not in now}
    gone = {one: share for one, share in gone.items() if (1 - share) ** len(new) < 1e-6}
    strange = {one: share for one, share in sorted(now.items()) if one not in habit.shares and share >= RENAMED}
    pairs = [(old, one) for old, share in gone.items() for one, other in strange.items() if 0.5 <= other / share <= 2]
    if not pairs:
        return None
    old, one = min(pairs, key=lambda pair: abs(gone[pair[0]] - strange[pair[1]]))
    words = f"{old!r} is gone ({gone[old]:.0%} of rows before), and {one!r} is new ({strange[one]:.0%})"
    return _fault(name, "renamed", words, one, column, at_ms)


KINDS: Sequence[Callable[[str, Habit, pl.Series, NDArray[np.int64], int], Fault | None]] = (
    _empty,
    _unit,
    _stuck,
    _filled,
    _renamed,
)


def _said(value: Value) -> str:
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


def _fault(
    name: str,
    kind: str,
    words: str,
    value: Value,
    column: pl.Series,
    at_ms: NDArray[np.int64],
    habit: Habit | None = None,
) -> Fault:
    """With the stretch of the rows that it covers; `until_ms` None where it goes on to the last row."""
    bounds = (habit.bounds[1], habit.bounds[-2]) if habit else (0.0, 0.0)
    made = Fault(name, kind, words, value, *bounds)
    marks = marked(made, column)
    begin, end = (int(np.argmax(marks)), 0) if kind in PARTIAL else stretch(marks)
    until = None if end == len(column) or kind in PARTIAL else int(at_ms[end - 1]) + 1
    return replace(made, from_ms=int(at_ms[begin]), until_ms=until)


def marked(fault: Fault, column: pl.Series) -> Mask:
    """(n,) which rows show it."""
    if fault.kind == "missing":
        found = column.is_null()
    elif fault.kind == "unit":
        found = ~column.is_between(fault.low, fault.high)
    else:
        found = column == fault.value
    return found.fill_null(fault.kind == "missing").to_numpy().astype(np.bool_)


def stretch(marks: Mask) -> tuple[int, int]:
    """[begin, end) of the rows with the largest sum, a marked row counting 1 and another -`STRAY`: where the fault
    lies. A stray row without it does not cut it in two."""
    sums = np.concatenate([[0], np.cumsum(np.where(marks, 1, -STRAY))])
    lowest = np.minimum.accumulate(sums)
    end = int(np.argmax(sums - lowest))
    return int(np.argmin(sums[: end + 1])), end


def lasts(fault: Fault, column: pl.Series, at_ms: NDArray[np.int64]) -> int | None:
    """Until when (ms) a fault that is known went on in these later rows, at least one; None: it still does."""
    marks = marked(fault, column)
    if fault.kind in PARTIAL:
        last = int(np.flatnonzero(marks)[-1]) + 1 if marks.any() else 0
        end = len(marks) if marks.mean() >= RENAMED else last
    else:
        end = int(np.argmax(np.concatenate([[0], np.cumsum(np.where(marks, 1, -STRAY))])))
    return None if end == len(marks) else int(at_ms[end - 1]) + 1 if end else int(at_ms[0])


def healthy(rows: pl.DataFrame, faults: Iterable[Fault], at_ms: NDArray[np.int64], sure: bool = True) -> pl.DataFrame:
    """The rows (n), at `at_ms` (n,), without the stretches in which a column was broken. Not `sure`: they may have
    been mended since, so that a stretch goes only where most of its rows still show the fault."""
    gone = np.zeros(len(rows), np.bool_)
    for fault in faults:
        within = (at_ms >= fault.from_ms) & (at_ms < (np.inf if fault.until_ms is None else fault.until_ms))
        if within.any() and (sure or _shown(fault, rows.filter(pl.Series(within)))):
            gone |= within
    return rows.filter(pl.Series(~gone)) if gone.any() else rows


def _shown(fault: Fault, rows: pl.DataFrame) -> bool:
    if fault.column not in rows.columns:
        return False
    column = rows[fault.column]
    least = RENAMED if fault.kind in PARTIAL else MOST
    return float(marked(fault, plain(column, Kind.NUMBER if column.dtype.is_numeric() else Kind.TEXT)).mean()) >= least
