"""Profiles of rows: of the reference when a bundle is made, of each window when it has passed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.schema import Kind, Schema, Value
from homeostat.domain.units import DAY_MS
from homeostat.engines.drift import TESTS, seasons
from homeostat.engines.drift.calibrate import wobble
from homeostat.engines.drift.counts import Counts, NumberLayout, layout_of
from homeostat.engines.drift.reference import Calibration, Profile, Reference, Season
from homeostat.engines.drift.spans import SPANS
from homeostat.engines.drift.texts import Column, Layout, layout_of_texts

__all__ = ["PREDICTION", "Profile", "Reference", "Windows", "profile", "reference", "reference_of"]

PREDICTION = "@prediction"
"""The subject under which the model's answers are profiled, beside the fields of the schema."""
_NUMERIC = (Kind.NUMBER, Kind.INTEGER)
_LEAST_WINDOWS, _PARTS = 5, 10
_LEAST_RUNS = 4  # of merged windows that do not overlap, so that their wobble is measured
_MOST_WINDOWS = 1_000  # the newest ones: more tell little more about the wobble

Array = NDArray[np.float64]
Index = NDArray[np.intp]
Slots = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Rows:
    """The columns of the reference's rows. Of those that are `halved` the layout was chosen on every second row, and
    the others are counted: what is frequent by chance alone would look rarer in every window."""

    columns: Mapping[str, pl.Series]
    layouts: Mapping[str, Layout]
    halved: frozenset[str]

    def profiles(self, parts: Sequence[Index]) -> list[Profile]:
        counted = {name: self._counted(name, parts) for name in self.layouts}
        return [
            Profile(len(rows), {name: counts[i] for name, counts in counted.items()}) for i, rows in enumerate(parts)
        ]

    def _counted(self, name: str, parts: Sequence[Index]) -> Sequence[Column]:
        layout, column = self.layouts[name], self.columns[name]
        if isinstance(layout, NumberLayout):
            return layout.count_each(column, parts)
        halved = name in self.halved
        return [layout.count(column.gather(rows[rows % 2 == 1] if halved else rows)) for rows in parts]


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of one length in order of time; a length below 0: of so many rows. `starts_ms` None: there are too few of
    them, and these are parts of the whole, or they have so many rows."""

    length_ms: int
    starts_ms: NDArray[np.int64] | None
    profiles: Sequence[Profile]

    def tables(self, whole: Profile, name: str, subject: str) -> Counts:
        """(w, b) what the test sees of the column in each of them."""
        return TESTS[name].tables(whole.columns[subject], [one.columns[subject] for one in self.profiles])


def reference(
    schema: Schema,
    frame: pl.DataFrame,
    output: Array,
    windows_ms: Sequence[int] = (DAY_MS, 7 * DAY_MS),
    windows_rows: Sequence[int] = (),
) -> Reference:
    """What ordinary rows look like: the n rows of a prepared frame with the model's output (n, c) on them.

    The wobble is measured between whole windows of each length, aligned to UTC days; where the frame holds fewer
    than 5 of them, between 10 equal parts of it. Of merged windows, between all runs of so many. Windows of so many
    rows are rows that follow each other, and have no season.
    """
    columns = _columns(schema, frame, output)
    found = {name: _layout(column) for name, column in columns.items()}
    layouts = {name: layout for name, (layout, _) in found.items()}
    rows = _Rows(columns, layouts, frozenset(name for name, (_, chosen) in found.items() if chosen))
    events = frame[EVENT_MS].to_numpy()
    span_ms = int(np.ptp(events)) if len(events) else 0
    windows = [_windows(rows, events, length) for length in windows_ms]
    windows += [_counted(rows, len(frame), count) for count in windows_rows]
    return reference_of(layouts, rows.profiles([np.arange(len(frame))])[0], windows, span_ms)


def reference_of(
    layouts: Mapping[str, Layout],
    whole: Profile,
    windows: Sequence[Windows],
    span_ms: int,
) -> Reference:
    """The same of rows that are counted already: the `whole` of them, over `span_ms`, and windows of each length."""
    alone: dict[int, Calibration] = {}
    merged: dict[int, Calibration] = {}
    found: list[Season] = []
    for some in windows:
        cycles = _cycles(some, span_ms)
        calibrations, better = _calibrated(whole, some, layouts, cycles)
        merged |= calibrations
        alone[some.length_ms] = calibrations[some.length_ms]
        found += [_season(whole, some, cycle, cycles[cycle], wobbles) for cycle, wobbles in better.items() if wobbles]
    return Reference(layouts, whole, dict(sorted((merged | alone).items())), tuple(found))


def profile(
    reference: Reference,
    frame: pl.DataFrame,
    output: Array,
    refused: Mapping[str, int] = MappingProxyType({}),
    classes: Sequence[Value] = (),
) -> Profile:
    """Counts of the reference's fields in `frame`, and of the model's output (n, c); n rows are what the profile is of.
    They need not be the same rows. `refused`: rows that no model saw, by what they broke. `classes`: of the schema."""
    columns = {name: frame[name] for name in reference.layouts if name != PREDICTION}
    columns[PREDICTION] = answered(output, classes)
    counts = {name: layout.count(columns[name]) for name, layout in reference.layouts.items()}
    return Profile(len(output), counts, dict(refused))


def _columns(schema: Schema, frame: pl.DataFrame, output: Array) -> dict[str, pl.Series]:
    numeric = {field.name: field.kind in _NUMERIC for field in schema.fields}
    fields = {name: frame[name].cast(pl.Float64 if numeric[name] else pl.String) for name in schema.names}
    return {**fields, PREDICTION: answered(output, schema.classes)}


def answered(output: Array, classes: Sequence[Value]) -> pl.Series:
    """(n,) the probability of the second class, or the value; with more classes, the name of the likeliest."""
    if len(classes) > 2:
        return pl.Series([str(known) for known in classes]).gather(np.argmax(output, axis=1))
    return pl.Series(output[:, -1])


def _layout(column: pl.Series) -> tuple[Layout, bool]:
    """→ the layout, and whether it was chosen on every second row."""
    if column.dtype != pl.String:
        return layout_of(column), False
    layout, chosen = layout_of_texts(column)
    return (layout_of_texts(column.gather_every(2))[0], True) if chosen else (layout, False)


def _windows(rows: _Rows, events: NDArray[np.int64], length: int) -> Windows:
    """The whole ones, the newest of them. The first and the last are cut by the frame's ends unless it starts and ends
    with them, so they are left out."""
    number = events // length
    inner = np.flatnonzero((number > number.min(initial=0)) & (number < number.max(initial=0)))
    begins = np.flatnonzero(np.diff(number[inner])) + 1
    whole = [part for part in np.split(inner, begins) if len(part)][-_MOST_WINDOWS:]
    if len(whole) < _LEAST_WINDOWS:
        parts = np.array_split(np.arange(len(events)), _PARTS)
        return Windows(length, None, rows.profiles(parts))
    starts = np.array([number[part[0]] * length for part in whole])
    return Windows(length, starts, rows.profiles(whole))


def _counted(rows: _Rows, n: int, count: int) -> Windows:
    """Windows of so many rows that follow each other, the newest of them."""
    ends = np.arange(n, 0, -count)[::-1][-_MOST_WINDOWS:]
    whole = [np.arange(end - count, end) for end in ends if end >= count]
    if len(whole) < _LEAST_WINDOWS:
        whole = np.array_split(np.arange(n), _PARTS)
    return Windows(-count, None, rows.profiles(whole))


def _cycles(windows: Windows, span_ms: int) -> dict[str, Slots]:
    """The slot (w,) of each window, by the cycles that they can have and that have enough windows in a slot."""
    if windows.starts_ms is None or not any(one.rows for one in windows.profiles):
        return {}
    fitting = seasons.cycles(windows.length_ms, span_ms)
    found = {cycle: seasons.slots(cycle, windows.starts_ms, windows.length_ms) for cycle in fitting}
    return {cycle: slots for cycle, slots in found.items() if _of_slot(slots) >= seasons.LEAST}


def _of_slot(slots: Slots) -> float:
    """Windows of an ordinary slot."""
    return float(np.median(np.unique(slots, return_counts=True)[1]))


def _calibrated(
    whole: Profile, windows: Windows, layouts: Mapping[str, Layout], cycles: Mapping[str, Slots]
) -> tuple[dict[int, Calibration], dict[str, dict[str, float]]]:
    """By length: of these windows, and of as many merged ones as there are enough of. By cycle: the wobble within its
    slots, where a test tells more there than beside all windows."""
    n, rows = len(windows.profiles), float(np.mean([one.rows for one in windows.profiles]))
    spans = [k for k in SPANS if k == 1 or n >= _LEAST_RUNS * k]
    plain: dict[int, dict[str, float]] = {k: {} for k in spans}
    better: dict[str, dict[str, float]] = {cycle: {} for cycle in cycles}
    for subject, name in _asked(layouts):
        key, table, ranks = f"{name}:{subject}", windows.tables(whole, name, subject), TESTS[name].ranks
        for k in spans:
            plain[k][key] = wobble(table, k, ranks=ranks)
        if not seasons.seasonal(whole.columns[subject]) or name not in seasons.TESTED:
            continue
        for cycle, slots in cycles.items():
            here = wobble(table, 1, slots, ranks)
            chance = (1 if ranks else table.shape[1] - 1) / rows
            if seasons.gains(chance, plain[1][key] * (1 + 1 / n), here * (1 + 1 / _of_slot(slots))):
                better[cycle][key] = here
    return {k * windows.length_ms: Calibration(n / k, plain[k]) for k in spans}, better


def _asked(layouts: Mapping[str, Layout]) -> Iterator[tuple[str, str]]:
    return ((subject, name) for subject, one in layouts.items() for name in TESTS if TESTS[name].applies(one))


def _season(whole: Profile, windows: Windows, cycle: str, slots: Slots, wobbles: Mapping[str, float]) -> Season:
    subjects = frozenset(key.partition(":")[2] for key in wobbles)
    of_slot: dict[int, list[Profile]] = {int(slot): [] for slot in np.unique(slots)}
    for one, slot in zip(windows.profiles, slots.tolist(), strict=True):
        of_slot[slot].append(one)
    kept = {slot: seasons.kept(Profile.total(some), whole, subjects) for slot, some in of_slot.items()}
    return Season(cycle, windows.length_ms, kept, {slot: len(some) for slot, some in of_slot.items()}, wobbles)
