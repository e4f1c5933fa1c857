"""Batches of the logs as bytes, and as frames of polars.

Inside the store each input is a column of its own (`in.<field>`), so that frames of different schemas lie side by
side; readers get them back as the struct `inputs`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from itertools import chain
from operator import attrgetter
from typing import Any, TypeVar

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.prediction import (
    EVENT_COLUMNS,
    LABEL_COLUMNS,
    LOG_COLUMNS,
    SIGNAL_COLUMNS,
    Inputs,
    LabelBatch,
    LogBatch,
    SignalBatch,
)

STAMP = "stamp"
TRACE = "trace"
"""A column only where a row has one."""
_LONG = 16
_FLOATS, _EQUAL, _BLOCK = 1, 2, 3  # columns as msgpack extensions
Block = NDArray[np.float64]
IN = "in."
_FLAT: dict[str, pl.DataType | type[pl.DataType]] = {
    "id": pl.String,
    "key": pl.String,
    "at_ms": pl.Int64,
    "release": pl.String,
    "version": pl.Int64,
    "arm": pl.String,
    "role": pl.String,
    "weight": pl.Int64,
    "status": pl.String,
    "model_us": pl.Int64,
    "score": pl.Float64,
    "label": pl.String,
    "scores": pl.List(pl.Float64),
}
_LABELS: dict[str, pl.DataType | type[pl.DataType]] = {
    "id": pl.String,
    "label": pl.String,
    "at_ms": pl.Int64,
    "source": pl.String,
}
_SIGNALS: dict[str, pl.DataType | type[pl.DataType]] = {
    "id": pl.String,
    "name": pl.String,
    "value": pl.Float64,
    "at_ms": pl.Int64,
    "key": pl.String,
}
_ONCE = frozenset({"model", "at_ms", "release", "weight", "inputs", TRACE})  # not a value a row, or not always
_EACH = [field.name for field in fields(LogBatch) if field.name not in _ONCE]
_each = attrgetter(*_EACH)

_TRACE_ID = re.compile(r"[0-9a-f]{32}").fullmatch

Rows = TypeVar("Rows", pl.DataFrame, pl.LazyFrame)
Stamped = tuple[int, LogBatch]
Marked = tuple[int, LabelBatch]
Signalled = tuple[int, SignalBatch]


def _pack(values: Sequence[Any], floats: Callable[..., bytes]) -> Any:
    """A long column of floats travels as raw float64: quicker than a number at a time, and as exact. One of equal
    values travels as their number and the value. A column holds values of one type, and nulls."""
    if isinstance(values, memoryview):
        if values.format == "d":
            return msgspec.msgpack.Ext(_FLOATS, values)
        values = values.tolist()
    n = len(values)
    if n >= _LONG:
        first = values[0]
        if type(first) is float:
            try:
                return msgspec.msgpack.Ext(_FLOATS, floats(*values))
            except struct.error:  # a null
                pass
        elif not isinstance(first, list) and values[-1] == first and values.count(first) == n:
            return msgspec.msgpack.Ext(_EQUAL, msgspec.msgpack.encode((n, first)))
    return list(values)


def _hook(code: int, data: memoryview) -> Any:
    if code == _FLOATS:
        return np.frombuffer(data, "<f8").tolist()
    if code == _EQUAL:
        n, value = msgspec.msgpack.decode(data)
        return [value] * n
    return np.frombuffer(data, "<f8") if code == _BLOCK else msgspec.msgpack.Ext(code, bytes(data))


def pack(batch: LogBatch) -> bytes:
    n, columns = len(batch.id), _each(batch)
    floats = struct.Struct(f"<{n}d").pack
    return msgspec.msgpack.encode(
        {
            "model": batch.model,
            "at_ms": batch.at_ms,
            "release": batch.release,
            "weight": batch.weight,
            **dict(zip(_EACH, columns if n < _LONG else [_pack(column, floats) for column in columns], strict=True)),
            **_packed(batch.inputs, floats),
            **({TRACE: batch.trace} if batch.trace else {}),
        }
    )


def _packed(inputs: Mapping[str, Sequence[Any]], floats: Callable[..., bytes]) -> dict[str, Any]:
    """Numbers in one block stay in it; `order`: of all columns."""
    if isinstance(inputs, Inputs):
        others = {name: _pack(values, floats) for name, values in inputs.others.items()}
        block = msgspec.msgpack.Ext(_BLOCK, inputs.block)
        return {"order": list(inputs.places), "block": block, "inputs": others}
    return {"inputs": {name: _pack(values, floats) for name, values in inputs.items()}}


def unpack(payload: bytes) -> LogBatch:
    read = msgspec.msgpack.decode(payload, ext_hook=_hook)
    block = read.pop("block", None)
    if block is not None:
        read["inputs"] = _unblocked(read.pop("order"), block.reshape(-1, len(read["id"])), read["inputs"])
    return LogBatch(**read)


def _unblocked(order: Sequence[str], block: Block, others: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    rows = iter(block.tolist())
    return {name: others[name] if name in others else next(rows) for name in order}


def pack_labels(batch: LabelBatch) -> bytes:
    return msgspec.msgpack.encode({name: list(getattr(batch, name)) for name in _LABELS})


def unpack_labels(payload: bytes) -> LabelBatch:
    return LabelBatch(**msgspec.msgpack.decode(payload))


def pack_signals(batch: SignalBatch) -> bytes:
    return msgspec.msgpack.encode({name: list(getattr(batch, name)) for name in _SIGNALS})


def unpack_signals(payload: bytes) -> SignalBatch:
    return SignalBatch(**msgspec.msgpack.decode(payload))


def flat(batches: Sequence[Stamped]) -> pl.DataFrame:
    """(rows, columns of the log, `in.*` and `stamp`) in the order of the batches."""
    sizes = [len(batch.id) for _, batch in batches]
    columns: dict[str, Any] = {name: _joined([getattr(batch, name) for _, batch in batches]) for name in _EACH}
    for name in ("at_ms", "release", "weight"):
        columns[name] = _repeated([getattr(batch, name) for _, batch in batches], sizes)
    columns["scores"] = [None if row is None else list(row) for row in columns["scores"]]
    frame = pl.DataFrame({name: pl.Series(name, columns[name], kind) for name, kind in _FLAT.items()})
    names = dict.fromkeys(chain.from_iterable(batch.inputs for _, batch in batches))
    inputs = [pl.Series(IN + name, _input(name, batches, sizes), strict=False) for name in names]
    stamps = pl.Series(STAMP, _repeated([stamp for stamp, _ in batches], sizes), pl.Int64)
    return frame.with_columns(*inputs, stamps, *_traces(batches, sizes))


def _traces(batches: Sequence[Stamped], sizes: Sequence[int]) -> list[pl.Series]:
    if not any(batch.trace for _, batch in batches):
        return []
    given = [batch.trace or [None] * n for (_, batch), n in zip(batches, sizes, strict=True)]
    return [pl.Series(TRACE, _joined(given), pl.String)]


def _joined(columns: Sequence[Sequence[Any]]) -> list[Any]:
    return list(chain.from_iterable(columns))


def _repeated(values: Sequence[Any], sizes: Sequence[int]) -> list[Any]:
    return _joined([[value] * n for value, n in zip(values, sizes, strict=True)])


def _input(name: str, batches: Sequence[Stamped], sizes: Sequence[int]) -> list[Any]:
    return _joined([batch.inputs.get(name, [None] * n) for (_, batch), n in zip(batches, sizes, strict=True)])


def stack(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """All rows of all parts; columns that only some have are null in the others."""
    return pl.concat([part for part in parts if part.height] or [flat([])], how="diagonal_relaxed")


def part(share: float) -> pl.Expr:
    """The rows of about so many of the ids: whether one is among them hangs on nothing but the id."""
    return pl.col("id").hash(0) < pl.lit(int(share * 2**64), pl.UInt64)


def shown(rows: pl.DataFrame) -> pl.DataFrame:
    """`LOG_COLUMNS`: the inputs gathered in their struct. A field that is null in every row has type Null."""
    inputs = [name for name in rows.columns if name.startswith(IN)]
    if not inputs:
        return rows.with_columns(pl.Series("inputs", [None] * rows.height, pl.Struct([]))).select(LOG_COLUMNS)
    packed = pl.struct(pl.col(name).alias(name[len(IN) :]) for name in inputs)
    return rows.select(*LOG_COLUMNS[:-1], packed.alias(LOG_COLUMNS[-1]))


def to_table(rows: pl.DataFrame) -> pl.DataFrame:
    """As the Delta table stores it: the inputs as one JSON text, exact to the last bit, so that a model whose schema
    changes keeps one table."""
    inputs = [pl.col(name).alias(name[len(IN) :]) for name in rows.columns if name.startswith(IN)]
    text = pl.struct(inputs).struct.json_encode() if inputs else pl.lit("{}")  # none: requests that were shed
    return rows.select(*_FLAT, STAMP, text.alias("inputs"), *_there(rows))


def from_table(rows: pl.DataFrame) -> pl.DataFrame:
    """The inverse of `to_table`."""
    texts = rows["inputs"].to_list()
    records: list[dict[str, Any]] = msgspec.json.decode(f"[{','.join(texts)}]")
    names = dict.fromkeys(chain.from_iterable(records))
    inputs = [pl.Series(IN + name, [record.get(name) for record in records], strict=False) for name in names]
    return rows.select(*_FLAT, STAMP, *_there(rows)).with_columns(*inputs)


def _there(rows: pl.DataFrame) -> list[str]:
    return [TRACE] if TRACE in rows.columns else []


def lookups(name: str) -> Sequence[pl.Expr]:
    """The rows that somebody may mean by `name`, the likeliest first: a prediction id, the id of a trace."""
    own = pl.col("id") == name
    return (own, pl.col(TRACE) == name) if _TRACE_ID(name) else (own,)


def look(rows: Rows, which: pl.Expr) -> Rows:
    """One of `lookups` in rows that may be in no trace."""
    there = TRACE in rows.collect_schema()
    return (rows if there else rows.with_columns(pl.lit(None, pl.String).alias(TRACE))).filter(which)


Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)


def without_inputs(rows: Frame) -> Frame:
    """As `flat`, without `in.*`."""
    return rows.select(*_FLAT, STAMP)


def label_rows(batches: Sequence[Marked]) -> pl.DataFrame:
    """(rows, `LABEL_COLUMNS` and `stamp`)."""
    return _stamped(batches, _LABELS)


def signal_rows(batches: Sequence[Signalled]) -> pl.DataFrame:
    """(rows, `SIGNAL_COLUMNS` and `stamp`)."""
    return _stamped(batches, _SIGNALS)


def _stamped(
    batches: Sequence[Marked] | Sequence[Signalled], kinds: Mapping[str, pl.DataType | type[pl.DataType]]
) -> pl.DataFrame:
    sizes = [len(batch.id) for _, batch in batches]
    columns = {name: _joined([getattr(batch, name) for _, batch in batches]) for name in kinds}
    frame = pl.DataFrame({name: pl.Series(name, columns[name], kind) for name, kind in kinds.items()})
    return frame.with_columns(pl.Series(STAMP, _repeated([stamp for stamp, _ in batches], sizes), pl.Int64))


def since_then(stored: pl.LazyFrame, rows: pl.DataFrame) -> pl.LazyFrame:
    """A table as `rows` has its columns: it may be older than one of them."""
    there = stored.collect_schema()
    return stored.with_columns(
        pl.lit(None, rows.schema[name]).alias(name) for name in rows.columns if name not in there
    )


def all_labels(rows: pl.DataFrame) -> pl.DataFrame:
    """`LABEL_COLUMNS`, from rows in order of arrival: all, in order of time."""
    return arrived_labels(rows if rows["at_ms"].is_sorted() else rows.sort("at_ms", maintain_order=True))


def arrived_labels(rows: pl.DataFrame) -> pl.DataFrame:
    """`LABEL_COLUMNS`, in the order of the rows."""
    named = rows if not rows["source"].null_count() else rows.with_columns(pl.col("source").fill_null(""))
    return named[list(LABEL_COLUMNS)]


def last_labels(rows: pl.DataFrame) -> pl.DataFrame:
    """`LABEL_COLUMNS`: the last of each id."""
    return all_labels(rows).filter(pl.col("id").is_last_distinct())


def all_events(rows: pl.DataFrame) -> pl.DataFrame:
    """`EVENT_COLUMNS`, from rows in order of arrival: all, in order of time."""
    return rows.sort("at_ms", maintain_order=True).select(EVENT_COLUMNS)


def last_signals(rows: pl.DataFrame) -> pl.DataFrame:
    """`SIGNAL_COLUMNS`: the last of each id and name."""
    known = all_events(rows.filter(pl.col("id") != ""))
    return known.unique(["id", "name"], keep="last", maintain_order=True).select(SIGNAL_COLUMNS)
