"""The logs of predictions and labels: segments first, then Delta tables.

A reader sees the tables and the segments as one, each row once. It looks at the segments before the table: a row
that is compacted meanwhile is seen twice and dropped once, never missed.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

import polars as pl

from homeostat.domain.prediction import LabelBatch, LogBatch
from homeostat.ports import Tables
from homeostat.stores import frames
from homeostat.stores.segments import CLOSED, Scan, Writer, close_orphans, segments

SEGMENT_BYTES = 64 << 20
_CHUNKS = 64  # after so many polls with news a segment's frame is laid out afresh
B = TypeVar("B")
_ROW = ("id", "role")
_LABEL = ("id", "label", "at_ms")


class _Stream(Generic[B]):
    """All segments of one stream, decoded once: a poll costs a `stat` for each file and the decoding of what is new."""

    def __init__(
        self,
        root: Path,
        name: str,
        decode: Callable[[bytes], B],
        group: Callable[[B], str],
        frame: Callable[[Sequence[tuple[int, B]]], pl.DataFrame],
    ) -> None:
        self._root, self._name, self._decode, self._group, self._frame = root, name, decode, group, frame
        self._scans: dict[str, Scan] = {}
        self._rows: dict[str, dict[str, pl.DataFrame]] = {}
        self.lost = 0

    def rows(self, group: str) -> list[pl.DataFrame]:
        """What each segment holds for the group, in no order."""
        self._poll()
        return [parts[group] for parts in self._rows.values() if group in parts]

    def closed(self) -> list[tuple[Path, dict[str, pl.DataFrame]]]:
        """The segments that no one writes to any more, and their rows by group."""
        close_orphans(self._root, self._name)
        paths = [path for path in segments(self._root, self._name) if path.suffix == CLOSED]
        self._poll()  # after the list: what is on it no longer grows
        return [(path, self._rows.get(_stem(path), {})) for path in paths]

    def _poll(self) -> None:
        seen = {_stem(path) for path in segments(self._root, self._name) if self._take(path)}
        for stem in self._scans.keys() - seen:  # compacted and deleted
            self._scans.pop(stem)
            self._rows.pop(stem, None)

    def _take(self, path: Path) -> bool:
        """Decode what is new in one file. → False when it is gone: closed meanwhile, or compacted."""
        scan = self._scans.setdefault(_stem(path), Scan())
        try:
            path = path if path.exists() else path.with_suffix(CLOSED)
            if path.stat().st_size > scan.at:
                with path.open("rb") as file:
                    file.seek(scan.at)
                    lost = scan.lost
                    scan.feed(file.read(), path.suffix == CLOSED)
                    self.lost += scan.lost - lost
        except FileNotFoundError:
            return False
        if scan.fresh:
            self._keep(_stem(path), [(stamp, self._decode(payload)) for stamp, payload in scan.fresh])
            scan.fresh = []
        return True

    def _keep(self, stem: str, fresh: Sequence[tuple[int, B]]) -> None:
        parts = self._rows.setdefault(stem, {})
        for group in dict.fromkeys(self._group(batch) for _, batch in fresh):
            new = self._frame([(stamp, batch) for stamp, batch in fresh if self._group(batch) == group])
            rows = pl.concat([parts[group], new], how="diagonal_relaxed") if group in parts else new
            parts[group] = rows.rechunk() if rows.n_chunks() > _CHUNKS else rows


def _stem(path: Path) -> str:
    """What names a segment, open or closed."""
    return str(path.with_suffix(""))


class SegmentLog:
    """`ports.PredictionLog` in segments under `root`, one folder a worker, and the tables `predictions/<model>`."""

    def __init__(self, root: Path, worker: str, tables: Tables, limit: int = SEGMENT_BYTES) -> None:
        self._root, self._tables = root, tables
        self._writer = Writer(root / worker, "predictions", limit)
        self._stream = _Stream(root, "predictions", frames.unpack, lambda batch: batch.model, frames.flat)
        self._models = root / "models"
        self._known: set[str] = set()

    @property
    def lost(self) -> int:
        """Damaged or torn frames met so far."""
        return self._stream.lost

    def append(self, batch: LogBatch) -> None:
        if batch.model not in self._known:  # `find` must know which tables there are
            self._models.mkdir(parents=True, exist_ok=True)
            (self._models / batch.model).touch()
            self._known.add(batch.model)
        self._writer.append(frames.pack(batch))

    def read(self, model: str, start_ms: int, end_ms: int) -> pl.DataFrame:
        return self._select(model, pl.col("at_ms").is_between(start_ms, end_ms, closed="left"))

    def find(self, prediction_id: str) -> pl.DataFrame:
        models = sorted(path.name for path in self._models.glob("*"))
        for model in models:
            rows = self._select(model, pl.col("id") == prediction_id)
            if rows.height:
                return rows
        return frames.shown(frames.flat([]))

    def _select(self, model: str, rule: pl.Expr) -> pl.DataFrame:
        recent = [part.filter(rule) for part in self._stream.rows(model)]
        stored = _stored(self._tables, f"predictions/{model}", rule)
        parts = recent if stored is None else [frames.from_table(stored), *recent]
        rows = frames.stack(parts).sort("stamp", maintain_order=True)
        return frames.shown(rows.unique(_ROW, keep="first", maintain_order=True))

    def close(self) -> None:
        """Close this worker's segment, so that the next `compact` moves it."""
        self._writer.close()

    def compact(self) -> int:
        """Move all closed segments into the tables, each (id, role) once, then delete them. → rows moved. A crash
        between the two leaves rows that the next call finds in the table already."""
        moved = 0
        with _alone(self._root):
            done = self._stream.closed()
            for model in sorted({model for _, parts in done for model in parts}):
                rows = frames.stack([parts[model] for _, parts in done if model in parts])
                moved += _move(self._tables, f"predictions/{model}", frames.to_table(rows), _ROW)
            _delete(path for path, _ in done)
        return moved


class SegmentLabels:
    """`ports.LabelLog` in segments under `root` and the table `labels`, which keeps every label ever received."""

    def __init__(self, root: Path, worker: str, tables: Tables, limit: int = SEGMENT_BYTES) -> None:
        self._root, self._tables = root, tables
        self._writer = Writer(root / worker, "labels", limit)
        self._stream: _Stream[LabelBatch] = _Stream(
            root, "labels", frames.unpack_labels, lambda _: "", frames.label_rows
        )

    def append(self, batch: LabelBatch) -> None:
        self._writer.append(frames.pack_labels(batch))

    def read(self, start_ms: int, end_ms: int) -> pl.DataFrame:
        rule = pl.col("at_ms").is_between(start_ms, end_ms, closed="left")
        recent = [part.filter(rule) for part in self._stream.rows("")]
        stored = _stored(self._tables, "labels", rule)
        parts = [part for part in (stored, *recent) if part is not None]
        rows = pl.concat([frames.label_rows([]), *parts]) if parts else frames.label_rows([])
        return frames.last_labels(rows.sort("stamp", maintain_order=True))

    def close(self) -> None:
        self._writer.close()

    def compact(self) -> int:
        """As `SegmentLog.compact`; the same label of the same id at the same time is one row."""
        with _alone(self._root):
            done = self._stream.closed()
            parts = [part for _, found in done for part in found.values()]
            moved = _move(self._tables, "labels", pl.concat(parts), _LABEL) if parts else 0
            _delete(path for path, _ in done)
        return moved


def _stored(tables: Tables, name: str, rule: pl.Expr) -> pl.DataFrame | None:
    if tables.version(name) is None:
        return None
    rows = tables.read(name).filter(rule).collect()
    return rows if rows.height else None


def _move(tables: Tables, name: str, rows: pl.DataFrame, identity: tuple[str, ...]) -> int:
    """Append the rows whose identity is new; the first of equals, in order of arrival."""
    new = rows.sort("stamp", maintain_order=True).unique(identity, keep="first", maintain_order=True)
    if tables.version(name) is not None:
        span = pl.col("id").is_in(new["id"].implode())
        known = tables.read(name).select(identity).filter(span).collect()
        new = new.join(known, on=identity, how="anti", maintain_order="left")
    if new.height:
        tables.append(name, new)
    return new.height


def _delete(paths: Iterator[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One compactor at a time, over all processes."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "compact.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
