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
MOST = 100
"""Values of one input that are measured, the most frequent ones: it may be an id."""


def declared(schema: Schema, names: Sequence[str], frame: pl.DataFrame, least: int = LEAST) -> Iterator[Group]:
    """Those that `frame` has at least so many rows of, by name: a column a field."""
    for field in schema.fields:
        if field.name in names and field.name in frame.columns:
            rows = frame[field.name].cast(pl.String).alias("value").value_counts(name="n").filter(pl.col("n") >= least)
            most = rows.sort("n", "value", descending=[True, False]).head(MOST)
            for value in most["value"].sort().to_list():
                yield Group((Condition(field.name, values=() if value is None else (value,), null=value is None),))


def by_segment(
    schema: Schema, names: Sequence[str], metric: str, frame: pl.DataFrame, y: Array, output: Array
) -> Iterator[tuple[Group, Measurement]]:
    """The metric in each of them where it is defined: y (n,), output (n, c)."""
    for group in declared(schema, names, frame):
        inside = group.holds(frame)
        measured = metrics.measure(metric, y[inside], output[inside])
        if np.isfinite(measured.value):
            yield group, measured
