"""What the data plane counts: a few additions a tick, into a sheet that every worker can read.

Labels are model, release, version, role, status, queue and worker: none is a caller's word. What the edge and batch
jobs have answered stands under `edge` and `batch`, without the version that they name.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from homeostat.domain.prediction import UNRELEASED, LogBatch, Role
from homeostat.ports import SHEET_BYTES, Shared
from homeostat.serving.sheet import WIDTH, Row, Sheet

METRICS = "/metrics"
"""The path of a scrape."""
SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets; one more is without a bound, and after it stands the sum."""
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024)
STATUSES = (200, 400, 404, 405, 408, 413, 415, 422, 431, 500, 503)
"""Of answers; what is none of these is counted as the last but one."""
_SCORED = (Role.ANSWER, Role.SHADOW, Role.FAILED)
OUTCOMES = (
    *((role.value, status) for role in _SCORED for status in ("ok", "error", "nonfinite", "timeout", "memory")),
    (Role.REJECTED.value, "rejected"),
    (Role.SHED.value, "shed"),
)
"""Role and status of a row of the log."""
_SUM = len(SECONDS) + 1
OUTCOME, CALL = 0, len(OUTCOMES)
"""Where things stand in the row of a model's version: counts by outcome, times of model calls."""
STATUS, TIME = 0, len(STATUSES)
"""In that of a release: counts by status, times of requests."""
TICK, SIZE, LIMIT, WAITING = 0, _SUM + 1, WIDTH - 2, WIDTH - 1
"""In that of a queue: times of ticks, requests in them, how many may wait and how many do."""
READY, LABELS = 0, 1
"""In that of a model: 1, 0 or `UNKNOWN`, and how many were taken."""
UNKNOWN = -1.0
CONNECTIONS, ROUTING = 0, 1
"""In that of the worker: connections that are open, the version of the routing document that it follows."""
_US = tuple(1e6 * bound for bound in SECONDS)
_OUTCOME = {outcome: OUTCOME + i for i, outcome in enumerate(OUTCOMES)}
_FAILED = _OUTCOME[Role.ANSWER.value, "error"]  # whatever else there may be: counting fails no answer
_STATUS = {status: STATUS + i for i, status in enumerate(STATUSES)}
Counted = list[tuple[str, str, int, int]]
"""Model, release, status and number of requests that were answered alike."""


def key(kind: str, *labels: str | int) -> str:
    """Of a row: `rows` by model, release and version, `requests` by model and release, `queue`, `model`, `worker`."""
    return msgspec.json.encode([kind, *labels]).decode()


def _lasting(name: str) -> bool:
    return not name.startswith(('["rows"', '["requests"'))


class Alone:
    """`ports.Shared` for one process that nobody asks."""

    def __init__(self) -> None:
        self._memory = bytearray(SHEET_BYTES)

    def own(self) -> Any:
        return self._memory

    def all(self) -> Sequence[tuple[str, int | None, Any]]:
        return [("plane", os.getpid(), self._memory)]


class Meter:
    """Adds up. `rows` is called with the log's lock held, `tick` and `refused` on the event loop, the rest anywhere."""

    def __init__(self, shared: Shared | None = None) -> None:
        self.shared = shared or Alone()
        self._sheet = Sheet(self.shared.own(), _lasting)
        self._rows = dict[tuple[str, str, int], Row]()
        self._requests = dict[tuple[str, str], Row]()
        self._lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        """Of a life before this one the counts stay; states do not."""
        for name, row in self._sheet.rows.items():
            kind = msgspec.json.decode(name, type=list[Any])[0]
            for place in {"queue": (LIMIT, WAITING), "model": (READY,), "worker": (CONNECTIONS, ROUTING)}.get(kind, ()):
                row[place] = UNKNOWN if place == READY and kind == "model" else 0.0

    # The log

    def rows(self, batch: LogBatch) -> None:
        """What was logged. The rows of one call of a model share its time."""
        versions, roles, statuses, us = batch.version, batch.role, batch.status, batch.model_us
        n, version, role, status = len(versions), versions[0], roles[0], statuses[0]
        if n == 1 or (versions.count(version) == n == roles.count(role) == statuses.count(status)):  # nearly always
            row = self._rows.get((batch.model, batch.release, version)) or self._row(batch, version)
            row[_OUTCOME.get((role, status), _FAILED)] += n
            if us[0]:
                row[CALL + bisect_left(_US, us[0])] += 1.0
                row[CALL + _SUM] += us[0] / 1e6
            return
        for (version, role, status), some in Counter(zip(versions, roles, statuses, strict=True)).items():
            self._row(batch, version)[_OUTCOME.get((role, status), _FAILED)] += some
        for version, _, one in set(zip(versions, roles, us, strict=True)):
            if one:
                row = self._row(batch, version)
                row[CALL + bisect_left(_US, one)] += 1.0
                row[CALL + _SUM] += one / 1e6

    def _row(self, batch: LogBatch, version: int) -> Row:
        """An edge may name any version and bundle it likes."""
        model, release = batch.model, batch.release
        if release.startswith(UNRELEASED):
            return self._at(key("rows", model, release.partition(":")[0], ""))
        row = self._rows[model, release, version] = self._at(key("rows", model, release, version))
        return row

    def _at(self, name: str) -> Row:
        """A new row may be somebody's old one: what was found before is looked up anew."""
        if name not in self._sheet.rows:
            self._rows.clear()
            self._requests.clear()
        return self._sheet.row(name)

    # Ticks

    def tick(self, queue: str, answered: int, seconds: float, counted: Counted, waited: float) -> None:
        """So many requests were answered in `seconds`. The first of them had come `waited` seconds ago; its time counts
        for all: none took longer."""
        row = self._sheet.rows.get(queue) or self._at(queue)
        row[TICK + bisect_left(SECONDS, seconds)] += 1.0
        row[TICK + _SUM] += seconds
        row[SIZE + bisect_left(SIZES, answered)] += 1.0
        row[SIZE + len(SIZES) + 1] += answered
        bucket = TIME + bisect_left(SECONDS, waited)
        for model, release, status, n in counted:
            row = self._requests.get((model, release)) or self._release(model, release)
            row[_STATUS.get(status, _OTHER)] += n
            if model:
                row[bucket] += n
                row[TIME + _SUM] += n * waited

    def refused(self, status: int, n: int = 1, model: str = "", release: str = "") -> None:
        """Answered without a tick."""
        self._release(model, release)[_STATUS.get(status, _OTHER)] += n

    def _release(self, model: str, release: str) -> Row:
        row = self._requests[model, release] = self._at(key("requests", model, release))
        return row

    # The rest

    def follows(self, routing: int, ready: Mapping[str, bool]) -> None:
        """The version of the routing document, and which of its models can answer."""
        self._at(key("worker"))[ROUTING] = routing
        gone = {name: UNKNOWN for name in self._sheet.rows if name.startswith('["model"')}
        for name, state in (gone | {key("model", model): float(good) for model, good in ready.items()}).items():
            self._at(name)[READY] = state

    def labels(self, model: str, n: int) -> None:
        with self._lock:
            self._at(key("model", model))[LABELS] += n

    def states(self, connections: int, queues: Mapping[str, tuple[int, int]]) -> None:
        """Once a second. `queues`: how many requests may wait in each, and how many do."""
        self._at(key("worker"))[CONNECTIONS] = connections
        for queue, (limit, waiting) in queues.items():
            row = self._at(queue)
            row[LIMIT], row[WAITING] = limit, waiting


_OTHER = _STATUS[500]
