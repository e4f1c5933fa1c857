"""Following segments: what was appended, by whichever process, as frames of polars."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Generic, TypeVar

import polars as pl

from homeostat.domain.prediction import LabelBatch, LogBatch, SignalBatch
from homeostat.stores import frames
from homeostat.stores.segments import CLOSED, Scan, segments

B = TypeVar("B", LogBatch, LabelBatch, SignalBatch)
_CHUNKS = 64  # after so many polls with news a segment's frame is laid out afresh
_SLICE = 4 << 20  # bytes of records that are Python objects at the same time
KEPT = 256 << 20  # bytes of closed segments' rows that are kept from one read to the next
_YEAR_10000_MS = 253_402_300_800_000
_PLAIN = (pl.Int64, pl.Float64, pl.Boolean, pl.String, pl.Null, pl.Int128)
_ONCE: dict[type, tuple[str, ...]] = {LogBatch: ("model", "at_ms", "release", "weight", "inputs", "trace")}
_NAME = re.compile(r"labels|signals|predictions/(?!\.)[^/\0]+").fullmatch
_log = logging.getLogger("homeostat.log")

Record = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Format(Generic[B]):
    """The records of a stream. `table` names where a batch goes; `identity`: rows equal in these columns are one row;
    `day`: the day that a row is kept under; `stored`: a frame as its table has it."""

    stream: str
    unpack: Callable[[bytes], B]
    table: Callable[[B], str]
    frame: Callable[[Sequence[tuple[int, B]]], pl.DataFrame]
    stored: Callable[[pl.DataFrame], pl.DataFrame]
    identity: tuple[str, ...]
    day: pl.Expr

    def read(self, records: Sequence[Record]) -> tuple[dict[str, pl.DataFrame], int]:
        """→ a frame a table, and how many records make no sense: a checksum says that a record is as it was written,
        not that this version can read it."""
        parts: dict[str, list[pl.DataFrame]] = {}
        lost = 0
        for some in _slices(records):
            try:
                made = self._frames(some)
            except Exception:  # whatever is wrong with it: look at each record alone
                made, bad = self._one_by_one(some)
                lost += bad
            for name, frame in made:
                parts.setdefault(name, []).append(frame)
        return {name: pl.concat(found, how="diagonal_relaxed") for name, found in parts.items()}, lost

    def _one_by_one(self, records: Sequence[Record]) -> tuple[list[tuple[str, pl.DataFrame]], int]:
        made, lost = [], 0
        for record in records:
            try:
                made += self._frames([record])
            except Exception:  # this record is lost, and no other
                _log.exception("a record of the log makes no sense")
                lost += 1
        return made, lost

    def _frames(self, records: Sequence[Record]) -> list[tuple[str, pl.DataFrame]]:
        """Errors: anything."""
        tables: dict[str, list[tuple[int, B]]] = {}
        for stamp, payload in records:
            batch = self.unpack(payload)
            _even(batch)
            tables.setdefault(self.table(batch), []).append((stamp, batch))
        made = [(name, self.frame(batches)) for name, batches in tables.items()]
        for name, frame in made:
            _sound(name, frame)
        return made


def _slices(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    start = size = 0
    for i, (_, payload) in enumerate(records):
        size += len(payload)
        if size >= _SLICE:
            yield records[start : i + 1]
            start, size = i + 1, 0
    if start < len(records):
        yield records[start:]


def _even(batch: LogBatch | LabelBatch | SignalBatch) -> None:
    """Errors: ValueError unless all columns are equally long."""
    columns = [getattr(batch, one.name) for one in fields(batch) if one.name not in _ONCE.get(type(batch), ())]
    if isinstance(batch, LogBatch):
        columns += [*batch.inputs.values(), *filter(len, [batch.trace])]
    if len({len(column) for column in columns}) > 1:
        raise ValueError("its columns are not equally long")


def _sound(name: str, frame: pl.DataFrame) -> None:
    """Errors: ValueError when the rows could not be stored, or not be found again."""
    if not _NAME(name):
        raise ValueError("it is of no model")
    times = frame["at_ms"]
    if frame["id"].null_count() or times.null_count() or not times.is_between(-_YEAR_10000_MS, _YEAR_10000_MS).all():
        raise ValueError("it has no id, or no time")
    if any(kind not in _PLAIN for column, kind in frame.schema.items() if column.startswith(frames.IN)):
        raise ValueError("an input is no plain value")


@dataclass(slots=True)
class _Seen:
    """One segment: how far it is read, the times that its rows of each table lie in, and these rows; None: they are
    read again when somebody asks for such times."""

    scan: Scan = field(default_factory=Scan)
    times: dict[str, tuple[int, int]] = field(default_factory=dict)
    rows: dict[str, pl.DataFrame] | None = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(int(part.estimated_size()) for part in (self.rows or {}).values())

    def add(self, fresh: dict[str, pl.DataFrame]) -> None:
        for table, new in fresh.items():
            first, last = self.times.get(table, (_YEAR_10000_MS, -_YEAR_10000_MS))
            times = new["at_ms"].to_numpy()
            self.times[table] = int(times.min(initial=first)), int(times.max(initial=last))
            if self.rows is not None:
                self.rows[table] = _joined(self.rows.get(table), new)

    def meets(self, table: str, start_ms: int, end_ms: int) -> bool:
        first, last = self.times.get(table, (end_ms, end_ms))
        return first < end_ms and last >= start_ms


def _joined(old: pl.DataFrame | None, new: pl.DataFrame) -> pl.DataFrame:
    rows = new if old is None else pl.concat([old, new], how="diagonal_relaxed")
    return rows.rechunk() if rows.n_chunks() > _CHUNKS else rows


class Stream(Generic[B]):
    """All segments of one stream. A poll costs a `stat` for each file and the decoding of what is new. Of closed
    segments no more than `kept` bytes of rows stay in memory: they wait for a compactor, and there may be none."""

    def __init__(self, root: Path, form: Format[B], kept: int = KEPT) -> None:
        self._root, self._kept = root, kept
        self._form: Format[B] = form
        self._seen: dict[str, _Seen] = {}
        self.lost = 0

    def rows(self, table: str, start_ms: int, end_ms: int) -> list[pl.DataFrame]:
        """What each segment holds for the table, in no order; of segments that reach into [start_ms, end_ms)."""
        self._poll()
        found = [
            (seen.rows or self._again(stem)).get(table)
            for stem, seen in self._seen.items()
            if seen.meets(table, start_ms, end_ms)
        ]
        self._forget()
        return [rows for rows in found if rows is not None]

    def tables(self) -> list[str]:
        self._poll()
        return sorted({table for seen in self._seen.values() for table in seen.times})

    def _poll(self) -> None:
        there = {_stem(path) for path in segments(self._root, self._form.stream) if self._take(path)}
        self._seen = {stem: seen for stem, seen in self._seen.items() if stem in there}

    def _take(self, path: Path) -> bool:
        """Decode what is new in one file. → False when it is gone: compacted."""
        seen = self._seen.setdefault(_stem(path), _Seen())
        try:
            path = path if path.exists() else path.with_suffix(CLOSED)
            if path.stat().st_size > seen.scan.at:
                fresh, lost = load(path, self._form, seen.scan)
                seen.add(fresh)
                self.lost += lost
        except FileNotFoundError:
            return False
        return True

    def _again(self, stem: str) -> dict[str, pl.DataFrame]:
        try:
            return load(Path(stem + CLOSED), self._form, Scan())[0]
        except FileNotFoundError:  # compacted meanwhile, so that its rows are in the table
            return {}

    def _forget(self) -> None:
        closed = [seen for stem, seen in self._seen.items() if seen.rows and Path(stem + CLOSED).exists()]
        size = sum(seen.size for seen in closed)
        for seen in closed:
            if size <= self._kept:
                return
            size -= seen.size
            seen.rows = None


def load(path: Path, form: Format[B], scan: Scan) -> tuple[dict[str, pl.DataFrame], int]:
    """What is new in the file since `scan`. → a frame a table, and how many records were lost. Errors:
    FileNotFoundError."""
    before = scan.lost
    with path.open("rb") as file:
        file.seek(scan.at)
        scan.feed(file.read(), path.suffix == CLOSED)
    fresh, scan.fresh = scan.fresh, []
    made, lost = form.read(fresh)
    return made, lost + scan.lost - before


def _stem(path: Path) -> str:
    """What names a segment, open or closed."""
    return str(path.with_suffix(""))


_DAY_OF_ANSWER = pl.from_epoch("at_ms", "ms").dt.date()
_DAY_OF_ARRIVAL = pl.from_epoch(pl.col(frames.STAMP) // 1_000_000, "ms").dt.date()

PREDICTIONS: Format[LogBatch] = Format(
    "predictions",
    frames.unpack,
    lambda batch: f"predictions/{batch.model}",
    frames.flat,
    frames.to_table,
    ("id", "role"),
    _DAY_OF_ANSWER,
)
LABELS: Format[LabelBatch] = Format(
    "labels",
    frames.unpack_labels,
    lambda _: "labels",
    frames.label_rows,
    lambda rows: rows,
    ("id", "label", "at_ms", "source"),
    _DAY_OF_ARRIVAL,  # a label's own time is the sender's to choose: one day may bring labels of a hundred
)

SIGNALS: Format[SignalBatch] = Format(
    "signals",
    frames.unpack_signals,
    lambda _: "signals",
    frames.signal_rows,
    lambda rows: rows,
    ("id", "key", "name", "value", "at_ms"),
    _DAY_OF_ARRIVAL,
)
