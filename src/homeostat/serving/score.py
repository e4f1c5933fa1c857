"""The stages of a tick between decoding and encoding: check, transform, route, predict, answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from homeostat.domain.rollout import Route
from homeostat.domain.schema import Kind, Schema, Value
from homeostat.engines.answer import answers, width
from homeostat.engines.routing import to_candidate
from homeostat.engines.transform import codes, matrix, narrow
from homeostat.ports import Clock
from homeostat.serving.bundles import Loaded
from homeostat.serving.limits import Fault
from homeostat.serving.messages import Row

OK, ERROR, NONFINITE, TIMEOUT = "ok", "error", "nonfinite", "timeout"
Index = NDArray[np.intp]
Output = NDArray[np.float64]
_CALLS = 4  # of candidates at a time, those that were given up included
_log = logging.getLogger("homeostat.serving")


@dataclass(frozen=True, slots=True)
class Served:
    """A route with its bundles in memory. The candidate is None when there is none, or when it is not ready: then
    what is assigned to it counts as its failure."""

    model: str
    route: Route
    champion: Loaded
    candidate: Loaded | None

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return self.champion.size + (self.candidate.size if self.candidate else 0)

    @property
    def slow(self) -> bool:
        return self.champion.slow or (self.candidate is not None and self.candidate.slow)

    @property
    def typed(self) -> Mapping[str | None, Value]:
        """Labels as text → as the data has them."""
        return {**self.candidate.typed, **self.champion.typed} if self.candidate else self.champion.typed


@dataclass(slots=True)
class Batch:
    """The rows of one tick, column by column; numbers without a null are seen through a `memoryview` of doubles. `x` is
    what the champion sees."""

    columns: dict[str, Sequence[Value]]
    ids: list[str]
    keys: list[str | None]
    x: NDArray[np.float32]
    faults: dict[int, Fault] = field(default_factory=dict)


def gather(loaded: Loaded, rows: Sequence[Row], ids: list[str], keys: list[str | None]) -> Batch:
    """Decoded rows → arrays, and what is wrong with them."""
    columns: dict[str, Sequence[Value]] = dict(zip(loaded.schema.names, zip(*rows, strict=True), strict=True))
    exact = codes(loaded.schema, columns)
    x = narrow(exact)
    faults = loaded.limits.faults(columns, exact, x)
    return Batch(columns | _views(loaded.schema, exact), ids, keys, x, faults)


def _views(schema: Schema, exact: NDArray[np.float64]) -> dict[str, Sequence[Value]]:
    """The columns of numbers that have no null, as the log packs them soonest."""
    n, flat = len(exact), exact.T.reshape(-1).data
    gaps = np.asarray(np.isnan(exact).any(axis=0)).tolist()
    fields = enumerate(zip(schema.fields, gaps, strict=True))
    return {f.name: flat[n * i : n * i + n] for i, (f, gap) in fields if f.kind is Kind.NUMBER and not gap}


@dataclass(slots=True)
class Attempt:
    """One call of one model on `rows` of the batch. `good` says which outputs can be used, `status` why the others
    can't; `us` is how long the call took."""

    rows: Index
    output: Output
    good: NDArray[np.bool_]
    status: str
    us: int


Call = Callable[[], Output]


def patiently(call: Call) -> Output:
    return call()


def attempt(
    loaded: Loaded | None,
    rows: Index,
    x: Callable[[Index], NDArray[np.float32]],
    clock: Clock,
    within: Callable[[Call], Output] = patiently,
) -> Attempt:
    """`x` gives the model's input for the rows, `within` calls the model. Never raises: a model that fails is an
    outcome."""
    started = clock.timer_ns()
    output, status = _call(loaded, rows, x, within)
    us = (clock.timer_ns() - started) // 1_000
    if output is None:
        return Attempt(rows, np.full((len(rows), 1), np.nan), np.zeros(len(rows), bool), status, us)
    return Attempt(rows, output, np.asarray(np.isfinite(output).all(axis=1)), NONFINITE, us)


def _call(
    loaded: Loaded | None,
    rows: Index,
    x: Callable[[Index], NDArray[np.float32]],
    within: Callable[[Call], Output],
) -> tuple[Output | None, str]:
    if loaded is None:
        return None, ERROR
    try:
        output = within(lambda: loaded.model(x(rows)))
    except TimeoutError:
        return None, TIMEOUT
    except Exception:  # a model may raise anything
        _log.exception("bundle %s failed", loaded.id[:12])
        return None, ERROR
    return (output if output.shape == (len(rows), width(loaded.schema)) else None), ERROR


class Patience:
    """Waits for a candidate's answer for so long and no longer. A call that goes on is left alone in its thread; while
    too many do, no new one is begun."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._pool = ThreadPoolExecutor(_CALLS, "candidate")
        self._left: set[Future[Output]] = set()

    def __call__(self, call: Call) -> Output:
        """Errors: `TimeoutError`, and the call's own."""
        self._left = {one for one in self._left if not one.done()}
        if len(self._left) >= _CALLS - 1:
            raise TimeoutError
        future = self._pool.submit(call)
        try:
            return future.result(self._timeout_s)
        except TimeoutError:
            self._left.add(future)
            raise


@dataclass(slots=True)
class Scored:
    """What the tick answers, row by row, and the candidate's failed attempts."""

    on_candidate: NDArray[np.bool_]
    version: list[int]
    status: list[str]
    us: list[int]
    score: list[float | None]
    label: list[str | None]
    scores: list[Sequence[float] | None]
    failed: Attempt | None = None

    @classmethod
    def blank(cls, n: int, on_candidate: NDArray[np.bool_]) -> Scored:
        return cls(on_candidate, [0] * n, [ERROR] * n, [0] * n, [None] * n, [None] * n, [None] * n)

    def take(self, loaded: Loaded, version: int, made: Attempt) -> None:
        """Put the attempt's answers in their rows."""
        given = answers(loaded.schema, loaded.manifest.threshold, filled(made))
        n = len(made.rows)
        if n == len(self.status) and made.good.all():  # nearly always
            self.version, self.status, self.us = [version] * n, [OK] * n, [made.us] * n
            self.score, self.label, self.scores = list(given.score), list(given.label), list(given.scores)
            return
        for i, (row, good) in enumerate(zip(made.rows.tolist(), made.good.tolist(), strict=True)):
            self.version[row], self.us[row] = version, made.us
            self.status[row] = OK if good else made.status
            if good:
                self.score[row], self.label[row], self.scores[row] = given.score[i], given.label[i], given.scores[i]


def filled(made: Attempt) -> Output:
    """(n, c) with zeros where the output can't be used."""
    return made.output if made.good.all() else np.where(made.good[:, None], made.output, 0.0)


def score(served: Served, batch: Batch, clock: Clock, within: Callable[[Call], Output]) -> Scored:
    """One call for each arm, the candidate's `within` its time. The champion answers its own rows and those on which
    the candidate failed."""
    route, n = served.route, len(batch.ids)
    if route.candidate is None or not route.weight:  # nearly always
        scored = Scored.blank(n, np.zeros(n, bool))
        _champion(served, scored, attempt(served.champion, np.arange(n), batch.x.__getitem__, clock))
        return scored
    keys = [name if key is None else key for key, name in zip(batch.keys, batch.ids, strict=True)]
    chosen = to_candidate(route.salt, keys, route.weight)
    scored = Scored.blank(n, chosen)
    rest: Index = np.arange(n)
    if chosen.any():
        rows: Index = np.flatnonzero(chosen)
        made = attempt(served.candidate, rows, partial(candidate_input, served, batch), clock, within)
        if served.candidate is not None and made.good.any():
            scored.take(served.candidate, route.candidate.version, made)
        scored.failed = None if made.good.all() else made
        rest = np.flatnonzero(~chosen | np.isin(np.arange(n), rows[~made.good]))
    if len(rest):
        _champion(served, scored, attempt(served.champion, rest, batch.x.__getitem__, clock))
    return scored


def _champion(served: Served, scored: Scored, made: Attempt) -> None:
    version = served.route.champion.version
    if made.status == NONFINITE:
        scored.take(served.champion, version, made)
        return
    for row in made.rows.tolist():  # no output at all
        scored.version[row], scored.status[row], scored.us[row] = version, ERROR, made.us


def candidate_input(served: Served, batch: Batch, rows: Index) -> NDArray[np.float32]:
    """The candidate's input: the champion's when both have one schema. A field that only the candidate has is null:
    nobody could send it yet."""
    candidate = served.candidate
    if candidate is None or candidate.schema == served.champion.schema:
        return batch.x[rows]
    absent = (None,) * len(batch.ids)
    columns: Mapping[str, Sequence[Value]] = {name: batch.columns.get(name, absent) for name in candidate.schema.names}
    return matrix(candidate.schema, columns)[rows]
