"""Where a request's time goes: the data plane's own functions, timed in this process on batches without sockets."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, cast
from unittest.mock import patch

from homeostat.config import read_policy
from homeostat.serving import group, http, limits, record, records, score, tick
from homeostat.stores import frames, segments
from homeostat.wiring.plane import STATE, data_plane

TURNS, REPEATS = 100, 5
_STAGES = (
    ("parse HTTP", http.Connection, "data_received"),
    ("decode", records.Records, "together"),
    ("transform", group, "gather"),
    ("validate", limits.Limits, "faults"),
    ("route", tick, "score"),
    ("model", score, "_call"),
    ("log: rows", record.Page, "answered"),
    ("log: rows", record.Page, "batches"),
    ("log: pack", frames, "pack"),
    ("log: append", segments.Writer, "append"),
    ("encode", group.Group, "encode"),
    ("write HTTP", http.Slot, "answer"),
    ("the tick around them", tick.Engine, "answer"),
)
"""A stage's time is its functions' own: what they spend in another stage's is not counted twice."""


@dataclass
class Shares:
    """`rows`: requests a turn; `us`: microseconds a request by stage; `rest_us`: what the whole server uses beyond
    them, in sockets and the event loop."""

    rows: int
    us: dict[str, float]
    rest_us: float


def shares(root: Path, ask: bytes, cpu_us: float) -> Shares:
    """`ask`: one request as it comes over the wire; `cpu_us`: what a request cost the server in the race."""
    rows = batch_rows(root)
    bare = min(_turns(root, ask, rows) for _ in range(REPEATS))
    with _timed() as spans:
        for _ in range(REPEATS):
            _turns(root, ask, rows)
    total = sum(spans.spent.values())
    us = {stage: bare * spent / total for stage, spent in spans.spent.items()}  # without what the timing costs
    return Shares(rows, us, cpu_us - bare)


def batch_rows(root: Path) -> int:
    """Rows a turn in the race just run: the frames that it left in the log."""
    newest = max(segments.segments(root / STATE / "log", "predictions"), key=lambda path: path.stat().st_mtime)
    scan = segments.Scan()
    scan.feed(newest.read_bytes(), True)
    return round(mean(len(frames.unpack(payload).id) for _, payload in scan.fresh[-2_000:]))


def _turns(root: Path, ask: bytes, rows: int) -> float:
    """Microseconds of CPU time a request, in turns of `rows` requests that come in on as many connections."""
    engine, loop = data_plane(root, read_policy(root)), _Loop()
    engine.refresh()
    hub = http.Hub(engine, http.Limits(), cast(Any, loop))
    connections = [http.Connection(hub) for _ in range(rows)]
    for connection in connections:
        connection.connection_made(cast(Any, _Sink()))
    loop.turn(connections, ask)
    begun = time.thread_time_ns()
    for _ in range(TURNS):
        loop.turn(connections, ask)
    return (time.thread_time_ns() - begun) / 1_000 / TURNS / rows


class _Sink:
    """A transport that leads nowhere."""

    def write(self, data: bytes) -> None:
        if not data.startswith(b"HTTP/1.1 200"):
            raise AssertionError(data)


@dataclass
class _Loop:
    """As much of an event loop as the hub needs."""

    due: list[Callable[[], Any]] = field(default_factory=list)
    time = staticmethod(time.monotonic)

    def call_soon(self, work: Callable[..., Any], *given: Any) -> None:
        self.due.append(lambda: work(*given))

    def turn(self, connections: list[http.Connection], ask: bytes) -> None:
        for connection in connections:
            connection.data_received(ask)
        while self.due:
            self.due.pop(0)()


class _Spans:
    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self._inner = [0]

    def over(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any) -> Any:
            self._inner.append(0)
            begun = time.perf_counter_ns()
            try:
                return function(*given)
            finally:
                took = time.perf_counter_ns() - begun
                self.spent[stage] += took - self._inner.pop()
                self._inner[-1] += took

        return timed


@contextmanager
def _timed() -> Iterator[_Spans]:
    spans = _Spans()
    with ExitStack() as patches:
        for stage, place, name in _STAGES:
            patches.enter_context(patch.object(place, name, spans.over(stage, getattr(place, name))))
        yield spans
