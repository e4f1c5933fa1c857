"""The logs in memory: for rehearsals and tests. An append is one list entry; frames are made when somebody reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import polars as pl

from homeostat.domain.prediction import LabelBatch, LogBatch, SignalBatch
from homeostat.stores import frames

_CHUNKS = 64  # after so many reads with news the frame is laid out afresh


class _Grown:
    """A frame that grows at its end, and is asked for stretches of time. What is shown of it, `show` makes row by row:
    once, not for each stretch."""

    def __init__(self, empty: pl.DataFrame, show: Callable[[pl.DataFrame], pl.DataFrame] = lambda rows: rows) -> None:
        self.frame, self._ordered, self._show = empty, True, show
        self._shown = show(empty)

    def add(self, fresh: pl.DataFrame) -> None:
        alike = fresh.schema == self.frame.schema  # else the older rows have other columns, or types
        self.frame = self.frame.vstack(fresh) if alike else frames.stack([self.frame, fresh])
        self._shown = self._shown.vstack(self._show(fresh)) if alike else self._show(self.frame)
        if self.frame.n_chunks() > _CHUNKS:
            self.frame, self._shown = self.frame.rechunk(), self._shown.rechunk()
        self._ordered = self._ordered and self.frame["at_ms"].tail(fresh.height + 1).is_sorted()

    def between(self, start_ms: int, end_ms: int) -> pl.DataFrame:
        """Two binary searches while time only went forward, a scan otherwise."""
        if not self._ordered:
            return self._shown.filter(pl.col("at_ms").is_between(start_ms, end_ms, closed="left"))
        start, end = np.searchsorted(self.frame["at_ms"].to_numpy(), (start_ms, end_ms)).tolist()
        return self._shown.slice(start, max(end - start, 0))


class _Rows:
    """Rows of one model in order of arrival, each (id, role) once."""

    def __init__(self) -> None:
        self.waiting: list[frames.Stamped] = []
        self._seen: set[tuple[str, str]] = set()
        self._grown = _Grown(frames.flat([]), frames.shown)

    def all(self) -> _Grown:
        if self.waiting:
            fresh = frames.flat(self.waiting)
            self.waiting = []
            self._grown.add(fresh.filter(pl.Series([self._new(*pair) for pair in fresh.select("id", "role").rows()])))
        return self._grown

    def _new(self, identity: str, role: str) -> bool:
        before = len(self._seen)
        self._seen.add((identity, role))
        return len(self._seen) > before


class MemoryLog:
    """`ports.PredictionLog`."""

    def __init__(self) -> None:
        self._models: dict[str, _Rows] = {}
        self._count = 0

    def append(self, batch: LogBatch) -> None:
        self._count += 1
        if batch.model not in self._models:
            self._models[batch.model] = _Rows()
        self._models[batch.model].waiting.append((self._count, batch))

    def read(self, model: str, start_ms: int, end_ms: int, inputs: bool = True, share: float = 1.0) -> pl.DataFrame:
        del inputs  # they are there
        rows = self._models.get(model)
        found = rows.all().between(start_ms, end_ms) if rows else frames.shown(frames.flat([]))
        return found if share >= 1 else found.filter(frames.part(share))

    def find(self, prediction_id: str) -> pl.DataFrame:
        for which in frames.lookups(prediction_id):
            for rows in self._models.values():
                found = frames.look(rows.all().frame, which)
                if found.height:
                    return frames.shown(found)
        return frames.shown(frames.flat([]))


class MemoryCounts:
    """`ports.Counted` of a log in memory, which goes into no table."""

    def read(self, _model: str, _start_ms: int, _end_ms: int, /) -> Mapping[int, bytes] | None:
        return None

    def waits(self, _model: str, _end_ms: int, /) -> bool:
        return False


class MemoryLabels:
    """`ports.LabelLog`."""

    def __init__(self) -> None:
        self._waiting: list[frames.Marked] = []
        self._grown = _Grown(frames.label_rows([]))
        self._signals: list[frames.Signalled] = []

    def append(self, batch: LabelBatch) -> None:
        self._waiting.append((0, batch))

    def read(self, start_ms: int, end_ms: int, ids: pl.Series | None = None) -> pl.DataFrame:
        return frames.last_labels(self._between(start_ms, end_ms, ids))

    def received(self, start_ms: int, end_ms: int, ids: pl.Series | None = None) -> pl.DataFrame:
        return frames.all_labels(self._between(start_ms, end_ms, ids))

    def mark(self) -> int:
        return self._all().frame.height

    def arrived(self, mark: int, start_ms: int) -> pl.DataFrame:
        return frames.arrived_labels(self._all().frame.slice(mark).filter(pl.col("at_ms") >= start_ms))

    def _between(self, start_ms: int, end_ms: int, ids: pl.Series | None) -> pl.DataFrame:
        found = self._all().between(start_ms, end_ms)
        return found if ids is None else found.filter(pl.col("id").is_in(ids.implode()))

    def _all(self) -> _Grown:
        if self._waiting:
            self._grown.add(frames.label_rows(self._waiting))
            self._waiting = []
        return self._grown

    def append_signals(self, batch: SignalBatch) -> None:
        self._signals.append((0, batch))

    def signals(self, start_ms: int, end_ms: int, name: str = "") -> pl.DataFrame:
        found = self._signalled(start_ms, end_ms)
        return frames.last_signals(found.filter(pl.col("name") == name) if name else found)

    def events(self, start_ms: int, end_ms: int) -> pl.DataFrame:
        return frames.all_events(self._signalled(start_ms, end_ms))

    def _signalled(self, start_ms: int, end_ms: int) -> pl.DataFrame:
        rows = frames.signal_rows(self._signals)
        return rows.filter(pl.col("at_ms").is_between(start_ms, end_ms, closed="left"))
