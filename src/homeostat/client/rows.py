"""Rows as a caller has them, as records that JSON can carry. Frames are known by what they can do: neither pandas nor
polars is imported. A value is never told in an error."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any, Protocol, runtime_checkable

from homeostat.domain.errors import DataError

Record = Mapping[str, Any]
_MISSING = frozenset({"NAType", "NaTType"})  # of pandas


@runtime_checkable
class PolarsFrame(Protocol):
    """What is used of a polars frame."""

    def to_dicts(self) -> list[dict[str, Any]]: ...


@runtime_checkable
class PandasFrame(Protocol):
    """What is used of a pandas frame; its index is left out."""

    def to_dict(self, orient: Any) -> Any: ...


Frame = PolarsFrame | PandasFrame
Rows = Record | Sequence[Record] | Frame
Labels = Mapping[str, Any] | Sequence[Record] | Frame


def records(rows: Sequence[Record] | Frame) -> list[dict[str, Any]]:
    """Errors: `DataError` that names record and field of a value that can't be sent."""
    return [_record(i, one) for i, one in enumerate(_listed(rows))]


def labels(given: Labels) -> list[dict[str, Any]]:
    """`{id: label}`, or records with `id`, `label` and, if known, `source` and `at`."""
    if isinstance(given, Mapping):
        return records([{"id": name, "label": label} for name, label in given.items()])
    return known(given)


def known(given: Sequence[Record] | Frame) -> list[dict[str, Any]]:
    """Records without the members of which nothing is known."""
    optional = ("at", "source", "id", "key")
    found = records(given)
    return [{name: value for name, value in one.items() if name not in optional or value is not None} for one in found]


def _listed(rows: Sequence[Record] | Frame) -> Iterable[Any]:
    if isinstance(rows, PolarsFrame):
        return rows.to_dicts()
    if isinstance(rows, PandasFrame):
        listed: list[dict[str, Any]] = rows.to_dict("records")
        return listed
    if isinstance(rows, Sequence):
        return rows
    raise DataError(f"a {type(rows).__name__} can't be sent", way_out="Send dicts, or a polars or pandas frame.")


def _record(i: int, record: Any) -> dict[str, Any]:
    if not isinstance(record, Mapping):
        raise DataError(f"a {type(record).__name__} is not a record", where=f"record {i}", way_out="Send dicts.")
    return {str(name): _plain(i, name, value) for name, value in record.items()}


def _plain(i: int, name: Any, value: Any) -> Any:
    """As JSON can have it: a number of numpy as Python's, a time as its text. NaN stays: it is written as null."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, float) and math.isinf(value):
        raise DataError(f"{name} must be finite", where=f"record {i}")
    if value is None or isinstance(value, str | int | float):
        return value
    if type(value).__name__ in _MISSING:
        return None
    if isinstance(value, date):
        return value.isoformat()
    raise DataError(f"{name}: a {type(value).__name__} can't be sent", where=f"record {i}")
