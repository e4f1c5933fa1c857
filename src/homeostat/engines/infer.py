"""What the data looks like: task, input schema, the ranges that new data should keep to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from homeostat.domain.errors import DataError
from homeostat.domain.schema import Field, Kind, Schema, Task, Value

_FEW = 20  # a text with at most this many values is a closed list
_CLASSES = 20  # whole numbers with at most this many values are classes


def task_of(target: pl.Series) -> Task:
    """Two values: binary; text, booleans or few whole numbers 0..19: multiclass; else regression.

    Errors: `DataError` when there is only one value.
    """
    values = target.drop_nulls().unique()
    if len(values) < 2:
        held = f"only {values[0]!r}" if len(values) else "nothing"
        raise DataError(
            f"the target {target.name!r} holds {held}: there is nothing to learn",
            way_out="Choose another --target, or data with at least two different values.",
        )
    if len(values) == 2:
        return Task.BINARY
    if target.dtype == pl.String:
        return Task.MULTICLASS
    whole = target.dtype.is_integer()
    return (
        Task.MULTICLASS
        if whole and len(values) <= _CLASSES and set(values) <= set(range(_CLASSES))
        else Task.REGRESSION
    )


def classes_of(target: pl.Series, task: Task) -> tuple[Value, ...]:
    """The target's values, sorted; () for regression."""
    return () if task is Task.REGRESSION else tuple(target.drop_nulls().unique().sort().to_list())


def kind_of(dtype: pl.DataType) -> Kind:
    if dtype.is_integer():
        return Kind.INTEGER
    if dtype.is_float():
        return Kind.NUMBER
    return Kind.BOOLEAN if dtype == pl.Boolean else Kind.TEXT


@dataclass(frozen=True, slots=True)
class ColumnRule:
    """What `init` writes down for one column."""

    name: str
    kind: Kind
    nullable: bool
    low: float | None = None
    high: float | None = None
    values: tuple[str, ...] | None = None


def column_rule(column: pl.Series) -> ColumnRule:
    """A number's range is widened by its own width on each side (by the number itself, where there is only one), but
    a column that is never negative stays so. An infinite number leaves its side open."""
    kind, nullable = kind_of(column.dtype), column.null_count() > 0
    if kind is Kind.BOOLEAN:
        return ColumnRule(column.name, kind, nullable)
    values = column.drop_nulls()
    if kind is Kind.TEXT:
        few = tuple(values.unique().sort().to_list())
        return ColumnRule(column.name, kind, nullable, values=few if 0 < len(few) <= _FEW else None)
    if not len(values):
        return ColumnRule(column.name, kind, nullable)
    return ColumnRule(column.name, kind, nullable, *_range(float(str(values.min())), float(str(values.max()))))


def _range(low: float, high: float) -> tuple[float | None, float | None]:
    width = (high - low) or abs(high) or 1.0
    floor, top = (max(low - width, 0.0) if low >= 0 else low - width), high + width
    return (floor if math.isfinite(low) and math.isfinite(floor) else None), (top if math.isfinite(top) else None)


def schema_of(frame: pl.DataFrame, names: Sequence[str], task: Task, target: str, checks: Any = None) -> Schema:
    """The input schema: kinds and vocabularies from the training rows; where there is a pandera schema `checks`,
    its nullability, ranges and lists of values."""
    rules = {name: _rule_of(checks.columns[name]) for name in names if checks and name in checks.columns}
    fields = tuple(_field(frame[name], rules.get(name)) for name in names)
    return Schema(fields, task, target, classes_of(frame[target], task))


@dataclass(frozen=True, slots=True)
class _Rule:
    nullable: bool
    low: float | None
    high: float | None
    values: tuple[str, ...] | None


def _rule_of(column: Any) -> _Rule:
    """A pandera column's own words. Open bounds (gt, lt) count as closed: a request at the bound is rare, and
    training data never holds it."""
    low = high = values = None
    for check in column.checks:
        said = check.statistics or {}
        low = next((said[name] for name in ("min_value",) if said.get(name) is not None), low)
        high = next((said[name] for name in ("max_value",) if said.get(name) is not None), high)
        values = said.get("allowed_values", values)
    return _Rule(bool(column.nullable), low, high, tuple(map(str, values)) if values is not None else None)


def _field(column: pl.Series, rule: _Rule | None) -> Field:
    kind = kind_of(column.dtype)
    values = rule.values if rule and kind is Kind.TEXT else None
    vocabulary = _vocabulary(column, values or ()) if kind is Kind.TEXT else ()
    if rule is None:
        return Field(column.name, kind, column.null_count() > 0, vocabulary=vocabulary)
    return Field(column.name, kind, rule.nullable, rule.low, rule.high, values, vocabulary)


def _vocabulary(texts: pl.Series, listed: Sequence[str]) -> tuple[str, ...]:
    """The values that come again, or that the checks list. One that came once would have a code of its own in training
    and none in serving, where it hardly comes again: the model would learn what no request shows."""
    known = texts.filter(texts.is_duplicated() | texts.is_in(listed))
    return tuple(known.drop_nulls().unique().sort().to_list())
