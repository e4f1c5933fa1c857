"""The segments that the policy declares: each value of the inputs that it names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.gate import Measurement
from homeostat.domain.schema import Schema
from homeostat.engines import metrics
from homeostat.engines.groups import Condition, Group

Array = NDArray[np.float64]
LEAST = 40
"""Labelled rows; fewer have no interval."""


def declared(schema: Schema, names: Sequence[str], frame: pl.DataFrame) -> Iterator[Group]:
    """Those that `frame` has rows of: a column a field."""
    for field in schema.fields:
        if field.name in names and field.name in frame.columns:
            values = frame[field.name].cast(pl.String).unique().sort().to_list()
            for value in values:
                yield Group((Condition(field.name, values=() if value is None else (value,), null=value is None),))


def by_segment(
    schema: Schema, names: Sequence[str], metric: str, frame: pl.DataFrame, y: Array, output: Array
) -> Iterator[tuple[Group, Measurement]]:
    """The metric in each of them that has `LEAST` rows and where it is defined: y (n,), output (n, c)."""
    for group in declared(schema, names, frame):
        inside = group.holds(frame)
        if inside.sum() >= LEAST:
            measured = metrics.measure(metric, y[inside], output[inside])
            if np.isfinite(measured.value):
                yield group, measured
