"""Rows that came column by column. They are seen as rows, and kept as they came: many numbers without a Python object
each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import overload

from homeostat.domain.schema import Value
from homeostat.serving.messages import Row

Column = Sequence[Value]


class Columns(Sequence[Row]):
    """`columns`: those of the schema's fields, in its order, n values each. Numbers without a null may be a
    `memoryview`: of doubles ("d") for a field of numbers, of 64-bit integers ("q") for one of integers."""

    __slots__ = ("columns",)

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns[0])

    @overload
    def __getitem__(self, which: int) -> Row: ...

    @overload
    def __getitem__(self, which: slice) -> Columns: ...

    def __getitem__(self, which: int | slice) -> Row | Columns:
        if isinstance(which, slice):
            return Columns([column[which] for column in self.columns])
        return tuple([column[which] for column in self.columns])

    def __iter__(self) -> Iterator[Row]:
        return zip(*self.columns, strict=True)


def joined(parts: Sequence[Sequence[Row]]) -> Sequence[Row]:
    """The rows of all parts, of which there is at least one."""
    if len(parts) == 1:
        return parts[0]
    if type(parts[0]) is Columns:  # rarely
        tables = [part for part in parts if isinstance(part, Columns)]
        if len(tables) == len(parts):
            return Columns([_joined(columns) for columns in zip(*(one.columns for one in tables), strict=True)])
    return list(chain.from_iterable(parts))


def _joined(parts: Sequence[Column]) -> Column:
    views = [part for part in parts if isinstance(part, memoryview)]
    if len(views) < len(parts):
        return list(chain.from_iterable(parts))
    whole = memoryview(b"".join(views))
    return whole.cast("d") if views[0].format == "d" else whole.cast("q")


def columns_of(rows: Sequence[Row]) -> Sequence[Column]:
    """Those of at least one row; where some are longer, those that all have."""
    return rows.columns if type(rows) is Columns else list(zip(*rows, strict=False))
