"""Rows as the model sees them. Training and serving call the same function: there is no second code path."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.schema import Field, Kind, Schema, Value

UNKNOWN = -1.0
"""The code of a text that the vocabulary does not hold."""

MANY = 64
"""From so many values on a column may be memory that is looked at: of doubles, or of 64-bit integers."""
Column = Sequence[Value] | pl.Series


def matrix(schema: Schema, columns: Mapping[str, Column]) -> NDArray[np.float32]:
    """(n, k) the model's input, k the fields in the schema's order: see `codes`. Too big a number is infinite."""
    return narrow(codes(schema, columns))


def codes(schema: Schema, columns: Mapping[str, Column]) -> NDArray[np.float64]:
    """(n, k) numbers as they are, false and true as 0 and 1, a text as its index in the field's vocabulary
    (`UNKNOWN` outside it), null as NaN. Errors: KeyError for a missing column, ValueError for text in a number."""
    text = Kind.TEXT
    rows = [
        column if type(column := columns[field.name]) is tuple and field.kind is not text else _code(field, column)
        for field in schema.fields
    ]
    if not rows:
        return np.empty((0, 0))
    if isinstance(rows[0], np.ndarray):
        return np.array(rows, np.float64).T
    n = len(rows[0])
    try:  # a third of the time that numpy takes, and the same numbers
        if n < MANY and len(set(map(len, rows))) == 1:
            packed = struct.pack(f"{len(rows) * n}d", *chain.from_iterable(rows))
        else:
            pack = struct.Struct(f"{n}d").pack
            packed = b"".join([_seen(row) or pack(*row) for row in rows])
    except struct.error:  # a null, or text
        return np.array(rows, np.float64).T
    return np.frombuffer(packed).reshape(len(rows), n).T


def numbers(rows: Sequence[Sequence[Value]], k: int) -> NDArray[np.float64] | None:
    """(n, k) `codes` of rows whose first k values are numbers, one after the other as they came; None where one is not,
    or is null."""
    try:
        packed = struct.pack(f"{len(rows) * k}d", *chain.from_iterable([row[:k] for row in rows]))
    except struct.error:
        return None
    return np.frombuffer(packed).reshape(len(rows), k)


def narrow(x: NDArray[np.float64]) -> NDArray[np.float32]:
    """The same numbers as contiguous float32."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(x, np.float32)


def coded(schema: Schema, columns: Mapping[str, pl.Series]) -> list[NDArray[np.float64]]:
    """k columns (n,) of `codes`, for many rows: what is a column of such numbers already is not copied."""
    return [_code_series(field, columns[field.name]) for field in schema.fields]


def slices(columns: Sequence[NDArray[np.float64]], rows: int) -> Iterator[NDArray[np.float32]]:
    """What `narrow` makes of the k columns, `rows` at a time, each in the memory of the one before: memory that is new
    costs more than to fill it. No number may be too big."""
    n = len(columns[0]) if columns else 0
    x = np.empty((min(n, rows), len(columns)), np.float32)
    for start in range(0, n, rows):
        part = x[: n - start]
        for i, column in enumerate(columns):
            part[:, i] = column[start : start + rows]
        yield part


def _seen(column: object) -> memoryview[Any] | None:
    """The doubles of a column that is memory already."""
    if not isinstance(column, memoryview):
        return None
    return column if column.format == "d" else np.asarray(column).astype(np.float64).data


def _code(field: Field, column: Column) -> Sequence[Value | float] | NDArray[np.float64]:
    if isinstance(column, pl.Series):
        return _code_series(field, column)
    if field.kind is not Kind.TEXT:
        return column
    index: dict[Value, float | None] = {text: float(i) for i, text in enumerate(field.vocabulary)}
    index[None] = None
    return [index.get(value, UNKNOWN) for value in column]


def _code_series(field: Field, column: pl.Series) -> NDArray[np.float64]:
    if field.kind is Kind.TEXT:
        texts = column.cast(pl.String)
        known = (
            texts.replace_strict(
                list(field.vocabulary),
                [float(i) for i in range(len(field.vocabulary))],
                default=UNKNOWN,
                return_dtype=pl.Float64,
            )
            if field.vocabulary
            else pl.Series([UNKNOWN] * len(texts), dtype=pl.Float64)
        )
        column = known.set(texts.is_null(), None)
    numbers = column.cast(pl.Float64)
    return (numbers.fill_null(float("nan")) if numbers.null_count() else numbers).to_numpy()
