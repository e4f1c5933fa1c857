"""The logs of predictions and labels: segments first, then Delta tables.

A reader sees the tables and the segments as one, each row once. It looks at the segments before the table: a row
that is compacted meanwhile is seen twice and dropped once, never missed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import polars as pl

from homeostat.domain.prediction import LabelBatch, LogBatch, SignalBatch
from homeostat.stores import frames
from homeostat.stores.days import DayTables
from homeostat.stores.follow import LABELS, PREDICTIONS, SIGNALS, Stream
from homeostat.stores.health import WRITING, Health
from homeostat.stores.segments import Rules, Writer

_PART = 50_000  # rows of a table whose inputs are Python objects at the same time
_FOREVER = (-(2**62), 2**62)
_LATE_NS = 60_000_000_000  # how much later than its stamp a frame may be seen
RULES = Rules()


class SegmentLog:
    """`ports.PredictionLog` in segments under `root`, one folder a worker, and the tables `predictions/<model>`.
    `mask` takes out what must not be logged. Unless it is `strict`, a disk without room costs rows, not answers."""

    def __init__(
        self,
        root: Path,
        worker: str,
        tables: DayTables,
        rules: Rules = RULES,
        mask: Callable[[LogBatch], LogBatch] | None = None,
        strict: bool = True,
    ) -> None:
        self._root, self._tables, self._mask, self._strict = root, tables, mask, strict
        self._health = Health(root / worker, WRITING, strict)
        self._writer = Writer(root / worker, "predictions", rules, self._health.synced)
        self._stream = Stream(root, PREDICTIONS)

    @property
    def lost(self) -> int:
        """Damaged or torn records met so far by this reader."""
        return self._stream.lost

    def append(self, batch: LogBatch) -> None:
        """Errors: OSError when it is strict."""
        payload = frames.pack(self._mask(batch) if self._mask else batch)
        try:
            self._health.begin()
            self._writer.append(payload)
        except OSError as error:
            self._health.bad(error, 0 if self._strict else len(batch.id))
            if self._strict:
                raise
        else:
            self._health.good()

    def read(self, model: str, start_ms: int, end_ms: int, inputs: bool = True, share: float = 1.0) -> pl.DataFrame:
        return self._select(f"predictions/{model}", start_ms, end_ms, inputs=inputs, share=share)

    def waits(self, model: str, end_ms: int) -> bool:
        """Rows from before `end_ms` are not in the table yet."""
        before = pl.col("at_ms") < end_ms
        recent = self._stream.rows(f"predictions/{model}", _FOREVER[0], end_ms)
        return any(not part.filter(before).is_empty() for part in recent)

    def find(self, prediction_id: str) -> pl.DataFrame:
        tables = dict.fromkeys([*self._stream.tables(), *self._tables.names()])
        for which in frames.lookups(prediction_id):
            for table in tables:
                rows = self._select(table, *_FOREVER, which) if table.startswith("predictions/") else None
                if rows is not None and rows.height:
                    return rows
        return frames.shown(frames.flat([]))

    def close(self) -> None:
        """This worker's segment is complete: the next compaction moves it."""
        self._writer.close()

    def _select(
        self,
        table: str,
        start_ms: int,
        end_ms: int,
        which: pl.Expr | None = None,
        inputs: bool = True,
        share: float = 1.0,
    ) -> pl.DataFrame:
        rule = pl.col("at_ms").is_between(start_ms, end_ms, closed="left")
        rule = rule if share >= 1 else rule & frames.part(share)
        recent = [part.filter(rule) for part in self._stream.rows(table, start_ms, end_ms)]
        stored = self._tables.read(table)
        if which is not None:
            recent = [frames.look(part, which) for part in recent]
            stored = None if stored is None else frames.look(stored, which)
        if not inputs:
            recent = [frames.without_inputs(part) for part in recent]
            old = [] if stored is None else [frames.without_inputs(stored.filter(rule)).collect()]
        else:
            found = [] if stored is None else stored.filter(rule).collect().iter_slices(_PART)
            old = list(map(frames.from_table, found))
        rows = frames.stack([*old, *recent]).sort("stamp", maintain_order=True)
        return frames.shown(rows.unique(PREDICTIONS.identity, keep="first", maintain_order=True))


class SegmentLabels:
    """`ports.LabelLog` in segments under `root` and the tables `labels` and `signals`, which keep everything that was
    received. It is always strict: whoever sends labels can send them again. `mask` hides keys of entities as the log
    of predictions hides them."""

    def __init__(
        self,
        root: Path,
        worker: str,
        tables: DayTables,
        rules: Rules = RULES,
        mask: Callable[[SignalBatch], SignalBatch] | None = None,
    ) -> None:
        self._root, self._tables, self._mask = root, tables, mask
        self._writer = Writer(root / worker, "labels", rules)
        self._signals = Writer(root / worker, "signals", rules)
        self._stream, self._signal_stream = Stream(root, LABELS), Stream(root, SIGNALS)

    def append(self, batch: LabelBatch) -> None:
        """Errors: OSError."""
        self._writer.append(frames.pack_labels(batch))

    def read(self, start_ms: int, end_ms: int, ids: pl.Series | None = None) -> pl.DataFrame:
        return frames.last_labels(self._labels(start_ms, end_ms, ids))

    def received(self, start_ms: int, end_ms: int, ids: pl.Series | None = None) -> pl.DataFrame:
        return frames.all_labels(self._labels(start_ms, end_ms, ids))

    def mark(self) -> int:
        return time.time_ns() - _LATE_NS

    def arrived(self, mark: int, start_ms: int) -> pl.DataFrame:
        since = pl.col("stamp") > mark
        recent = [part.filter(since) for part in self._stream.rows("labels", start_ms, _FOREVER[1])]
        return frames.arrived_labels(self._received("labels", [frames.label_rows([]), *recent], start_ms, which=since))

    def append_signals(self, batch: SignalBatch) -> None:
        """Errors: OSError."""
        self._signals.append(frames.pack_signals(self._mask(batch) if self._mask else batch))

    def signals(self, start_ms: int, end_ms: int, name: str = "") -> pl.DataFrame:
        return frames.last_signals(self._signalled(start_ms, end_ms, pl.col("name") == name if name else None))

    def events(self, start_ms: int, end_ms: int) -> pl.DataFrame:
        return frames.all_events(self._signalled(start_ms, end_ms))

    def _labels(self, start_ms: int, end_ms: int, ids: pl.Series | None) -> pl.DataFrame:
        recent = self._stream.rows("labels", start_ms, end_ms)
        which = None if ids is None else pl.col("id").is_in(ids.implode())
        return self._received("labels", [frames.label_rows([]), *recent], start_ms, end_ms, which)

    def _signalled(self, start_ms: int, end_ms: int, which: pl.Expr | None = None) -> pl.DataFrame:
        recent = self._signal_stream.rows("signals", start_ms, end_ms)
        return self._received("signals", [frames.signal_rows([]), *recent], start_ms, end_ms, which)

    def _received(
        self,
        table: str,
        parts: list[pl.DataFrame],
        start_ms: int,
        end_ms: int = _FOREVER[1],
        which: pl.Expr | None = None,
    ) -> pl.DataFrame:
        """The table's rows and `parts`, in order of arrival."""
        rule = pl.col("at_ms").is_between(start_ms, end_ms, closed="left")
        rule = rule if which is None else rule & which
        stored = self._tables.read(table)
        old = (
            []
            if stored is None
            else [frames.since_then(stored, parts[0]).filter(rule).select(parts[0].columns).collect()]
        )
        return pl.concat([*old, *(part.filter(rule) for part in parts)]).sort("stamp", maintain_order=True)

    def close(self) -> None:
        self._writer.close()
        self._signals.close()
