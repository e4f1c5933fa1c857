"""Columns of a file as the fields of a schema, by the rules that hold for a request."""

from __future__ import annotations

import polars as pl

from homeostat.domain.errors import DataError
from homeostat.domain.schema import NO_VALUE, Field, Kind, Schema
from homeostat.serving.limits import Fault

Faults = dict[int, Fault]
_BOOLEANS = {text: known for known, texts in ((True, ("true", "1")), (False, ("false", "0"))) for text in texts}


def typed(schema: Schema, rows: pl.DataFrame, table: str) -> tuple[dict[str, pl.Series], Faults]:
    """Field by field in its type, null where a value does not fit; and row → its first fault, in the order of the
    fields. Errors: `DataError` for a column that is not there, or holds nothing of its kind."""
    columns: dict[str, pl.Series] = {}
    faults: Faults = {}
    for field in schema.fields:
        if field.name not in rows.columns:
            way_out = f"The model takes: {', '.join(schema.names)}."
            raise DataError(f"the column {field.name!r} is missing", where=table, way_out=way_out)
        given = _given(rows[field.name], field.kind)
        if not _readable(given.dtype, field.kind):
            raise DataError(f"{field.name} holds {given.dtype}, not {field.kind.value}", where=table)
        columns[field.name] = column = _TYPED[field.kind](given)
        _judge(field, given, column, faults)
    return columns, faults


def _given(column: pl.Series, kind: Kind) -> pl.Series:
    """What stands for no value in training is null here too."""
    if isinstance(column.dtype, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    if column.dtype == pl.String and kind is not Kind.TEXT:
        return column.set(column.is_in(NO_VALUE), None)
    return column.fill_nan(None) if column.dtype.is_float() and column.is_nan().any() else column


def _readable(found: pl.DataType, kind: Kind) -> bool:
    """A date is no number, though it could be cast to one; true is no number in a request either."""
    if kind in (Kind.NUMBER, Kind.INTEGER):
        return found.is_numeric() or found in (pl.String, pl.Null)
    return not (found.is_nested() or found in (pl.Binary, pl.Object))


def _judge(field: Field, given: pl.Series, column: pl.Series, faults: Faults) -> None:
    if not column.null_count():
        return
    for row in (column.is_null() & given.is_not_null()).arg_true().to_list():
        told = f"{field.name} holds {given[row]!r}, not {field.kind.value}"
        faults.setdefault(row, Fault(field.name, field.kind.value, told))
    if not field.nullable:
        for row in given.is_null().arg_true().to_list():
            faults.setdefault(row, Fault(field.name, "not null", f"{field.name} must not be null"))


def _number(column: pl.Series) -> pl.Series:
    return column.cast(pl.Float64, strict=False)


def _integer(column: pl.Series) -> pl.Series:
    """2.0 is 2; 2.5 is none."""
    if column.dtype.is_integer():
        return column.cast(pl.Int64, strict=False)
    exact = column.cast(pl.Int64, strict=False) if column.dtype == pl.String else None
    number = column.cast(pl.Float64, strict=False)
    whole = number.set((number != number.floor()) | ~number.is_finite(), None).cast(pl.Int64, strict=False)
    return whole if exact is None else exact.zip_with(exact.is_not_null(), whole)


def _boolean(column: pl.Series) -> pl.Series:
    if column.dtype == pl.Boolean:
        return column
    texts = column.cast(pl.String).str.to_lowercase()
    return texts.replace_strict(_BOOLEANS, default=None, return_dtype=pl.Boolean)


def _text(column: pl.Series) -> pl.Series:
    return column.cast(pl.String)


_TYPED = {Kind.NUMBER: _number, Kind.INTEGER: _integer, Kind.BOOLEAN: _boolean, Kind.TEXT: _text}
