"""Profiles of rows: of the reference when a bundle is made, of each window when it has passed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.schema import Kind, Schema, Task
from homeostat.domain.units import DAY_MS
from homeostat.engines.drift import TESTS
from homeostat.engines.drift.calibrate import wobble
from homeostat.engines.drift.counts import (
    Calibration,
    CategoryLayout,
    Layout,
    NumberLayout,
    Profile,
    Reference,
)

__all__ = ["PREDICTION", "Profile", "Reference", "profile", "reference"]

PREDICTION = "@prediction"
"""The subject under which the model's answers are profiled, beside the fields of the schema."""
KNOWN = 1_000
"""Categories counted by name: the most frequent ones of the reference."""
_NUMERIC = (Kind.NUMBER, Kind.INTEGER)
_LEAST_WINDOWS, _PARTS = 5, 10


def reference(
    schema: Schema,
    frame: pl.DataFrame,
    output: NDArray[np.float64],
    windows_ms: Sequence[int] = (DAY_MS, 7 * DAY_MS),
) -> Reference:
    """What ordinary rows look like: the n rows of a prepared frame with the model's output (n, c) on them.

    The wobble is measured between whole windows of each length, aligned to UTC days; where the frame holds fewer
    than 5 of them, between 10 equal parts of it.
    """
    columns = _columns(schema, frame, output)
    layouts = {name: _layout(column) for name, column in columns.items()}
    everything = _profile(layouts, columns)
    events = frame[EVENT_MS].to_numpy()
    calibrations = {}
    for length in windows_ms:
        parts = [_profile(layouts, {k: c.gather(i) for k, c in columns.items()}) for i in _windows(events, length)]
        calibrations[length] = _calibration(layouts, everything, parts)
    return Reference(layouts, everything, calibrations)


def profile(reference: Reference, frame: pl.DataFrame, output: NDArray[np.float64]) -> Profile:
    """Counts of the reference's fields in `frame` (n rows), and of the model's output (n, c) on them."""
    fields = {name: frame[name] for name in reference.layouts if name != PREDICTION}
    answer = isinstance(reference.layouts[PREDICTION], CategoryLayout)
    return _profile(reference.layouts, {**fields, PREDICTION: _answers(output, answer)})


def _columns(schema: Schema, frame: pl.DataFrame, output: NDArray[np.float64]) -> dict[str, pl.Series]:
    numeric = {field.name: field.kind in _NUMERIC for field in schema.fields}
    fields = {name: frame[name].cast(pl.Float64 if numeric[name] else pl.String) for name in schema.names}
    return {**fields, PREDICTION: _answers(output, schema.task is Task.MULTICLASS)}


def _answers(output: NDArray[np.float64], classes: bool) -> pl.Series:
    """The probability of the second class, or the value; with more classes, which one is the likeliest."""
    if classes:
        return pl.Series(np.argmax(output, axis=1)).cast(pl.String)
    return pl.Series(output[:, -1])


def _layout(column: pl.Series) -> Layout:
    if column.dtype == pl.String:
        frequent = column.drop_nulls().value_counts(sort=True).head(KNOWN)
        return CategoryLayout(tuple(sorted(frequent.to_series(0).to_list())))
    values = column.to_numpy()
    finite = values[np.isfinite(values)]
    if not len(finite):
        return NumberLayout(0.0, 1.0)
    low, center, high = np.quantile(finite, (0.25, 0.5, 0.75))
    return NumberLayout(float(center), float(high - low) or float(finite.std()) or 1.0)


def _profile(layouts: Mapping[str, Layout], columns: Mapping[str, pl.Series]) -> Profile:
    rows = len(next(iter(columns.values()), ()))
    return Profile(rows, {name: layout.count(columns[name]) for name, layout in layouts.items()})


def _windows(events: NDArray[np.int64], length: int) -> list[NDArray[np.intp]]:
    """Row numbers of each whole window. The first and the last are cut by the frame's ends unless it starts and
    ends with them, so they are left out."""
    number = events // length
    inner = np.flatnonzero((number > number.min(initial=0)) & (number < number.max(initial=0)))
    starts = np.flatnonzero(np.diff(number[inner])) + 1
    whole = [part for part in np.split(inner, starts) if len(part)]
    return whole if len(whole) >= _LEAST_WINDOWS else np.array_split(np.arange(len(events)), _PARTS)


def _calibration(layouts: Mapping[str, Layout], everything: Profile, parts: Sequence[Profile]) -> Calibration:
    found = {}
    for subject, layout in layouts.items():
        old = everything.columns[subject]
        for name, test in TESTS.items():
            if test.applies(layout):
                found[f"{name}:{subject}"] = wobble(np.array([test.table(old, p.columns[subject]) for p in parts]))
    return Calibration(len(parts), found)
