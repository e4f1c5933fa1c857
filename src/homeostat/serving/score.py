"""The stages of a tick between decoding and encoding: check, transform, route, predict, answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from homeostat.domain.prediction import Inputs
from homeostat.domain.rollout import Route, Share
from homeostat.domain.schema import Value
from homeostat.engines.answer import answers, width
from homeostat.engines.routing import arms, kept
from homeostat.engines.transform import codes, matrix, narrow, numbers
from homeostat.ports import Clock
from homeostat.serving.bundles import Loaded
from homeostat.serving.columns import columns_of
from homeostat.serving.limits import Fault, every
from homeostat.serving.messages import Row

OK, ERROR, NONFINITE, TIMEOUT, MEMORY = "ok", "error", "nonfinite", "timeout", "memory"
Index = NDArray[np.intp]
Output = NDArray[np.float64]
_NOBODY: Mapping[int, Sequence[Value]] = {}
_CALLS = 4  # of candidates at a time, those that were given up included
_log = logging.getLogger("homeostat.serving")


@dataclass(frozen=True, slots=True)
class Served:
    """A route with its bundles in memory. The candidate is None when there is none, or when it is not ready: then
    what is assigned to it counts as its failure. So is each of `more`."""

    model: str
    route: Route
    champion: Loaded
    candidate: Loaded | None
    more: tuple[Loaded | None, ...] = ()

    @property
    def loaded(self) -> tuple[Loaded, ...]:
        """What is in memory, the champion last."""
        return (*filter(None, (self.candidate, *self.more)), self.champion)

    @property
    def beside(self) -> tuple[tuple[Share, Loaded | None], ...]:
        """Every arm but the champion's, in the order of their numbers from 1 on."""
        return tuple(zip(self.route.shares, (self.candidate, *self.more), strict=False))

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return sum(one.size for one in self.loaded)

    @property
    def slow(self) -> bool:
        return any(one.slow for one in self.loaded)

    @property
    def typed(self) -> Mapping[str | None, Value]:
        """Labels as text → as the data has them."""
        if self.candidate is None and not self.more:
            return self.champion.typed
        return {text: value for one in self.loaded for text, value in one.typed.items()}

    @property
    def others(self) -> Mapping[int, Sequence[Value]]:
        """Version → its classes, where they are not the champion's."""
        if self.candidate is None and not self.more:
            return _NOBODY
        own = self.champion.schema.classes
        beside = [(share.arm.version, one.schema.classes) for share, one in self.beside if one is not None]
        return {version: classes for version, classes in beside if classes != own}


@dataclass(slots=True)
class Batch:
    """The rows of one tick, column by column; numbers without a null in a `memoryview` of doubles. `x` is what the
    champion sees."""

    columns: Mapping[str, Sequence[Value]]
    ids: list[str]
    keys: list[str | None]
    x: NDArray[np.float32]
    faults: dict[int, Fault] = field(default_factory=dict)

    def of(self, rows: Index) -> NDArray[np.float32]:
        """`x` of ascending rows."""
        return self.x if len(rows) == len(self.x) else self.x[rows]


def gather(loaded: Loaded, rows: Sequence[Row], ids: list[str], keys: list[str | None]) -> Batch:
    """Decoded rows → arrays, and what is wrong with them. What a row has beyond the schema's fields is left out."""
    if loaded.numeric and type(rows) is list:  # the same as below, and quicker
        exact = numbers(rows, len(loaded.places))
        if exact is not None and loaded.limits.sound(exact):
            inputs = Inputs(loaded.places, exact.T.reshape(-1).data, len(rows), {})
            return Batch(inputs, ids, keys, exact.astype(np.float32))
    columns: dict[str, Sequence[Value]] = dict(zip(loaded.places, columns_of(rows), strict=False))
    exact = codes(loaded.schema, columns)
    sound = loaded.limits.sound(exact)
    x = np.ascontiguousarray(exact, np.float32) if sound else narrow(exact)
    faults = loaded.limits.faults(columns, exact, x, sound)
    return Batch(_inputs(loaded, columns, exact) if sound else columns, ids, keys, x, faults)


def _inputs(loaded: Loaded, columns: dict[str, Sequence[Value]], exact: NDArray[np.float64]) -> Inputs:
    """As the log packs them soonest: `exact` is without a null."""
    block, others = exact.T, dict[str, Sequence[Value]]()
    if None in loaded.places.values():
        others = {name: columns[name] for name, place in loaded.places.items() if place is None}
        block = block[[i for i, place in enumerate(loaded.places.values()) if place is not None]]
    return Inputs(loaded.places, block.reshape(-1).data, len(exact), others)


@dataclass(slots=True)
class Attempt:
    """One model's answers to `rows` of the batch: `output` (n, c), `good` says which can be used, `whole` whether all
    can, `status` why the others can't; `us` is how long its call took, or how long it was waited for in vain: what it
    costs to hand a call to another thread is not the model's."""

    rows: Index
    output: Output
    good: NDArray[np.bool_]
    whole: bool
    status: str
    us: int


AGAIN_NS = 20_000_000
"""How long the rows of a failed call may be tried apart."""
Call = Callable[[], Output]
Within = Callable[[Call], Output]
"""Calls a model, for so long and with so much memory as it may take."""


class OutOfRoom(Exception):
    """A candidate's calls have taken more memory than there was for it."""


def patiently(call: Call) -> Output:
    return call()


def attempt(
    loaded: Loaded | None,
    rows: Index,
    x: Callable[[Index], NDArray[np.float32]],
    clock: Clock,
    within: Within = patiently,
) -> Attempt:
    """`x` gives the model's input for the rows, `within` calls the model. Never raises: a model that fails is an
    outcome. A call that fails is made again in halves, as long as that takes no more than `AGAIN_NS`: so a row that the
    model can't take fails alone, and not everybody who was asked about with it."""
    made = _attempted(loaded, x, clock, within, rows)
    if loaded is None or made.status != ERROR or len(rows) == 1:
        return made
    once = partial(_attempted, loaded, x, clock, within)
    _log.error("bundle %s failed on %d rows; they are tried apart", loaded.id[:12], len(rows))
    end_ns = clock.timer_ns() + AGAIN_NS
    return _apart(made, once, lambda: clock.timer_ns() < end_ns)


def _apart(made: Attempt, once: Callable[[Index], Attempt], may: Callable[[], bool]) -> Attempt:
    if made.status != ERROR or len(made.rows) == 1 or not may():
        return made
    middle = len(made.rows) // 2
    one, other = (_apart(once(rows), once, may) for rows in (made.rows[:middle], made.rows[middle:]))
    output, good = np.concatenate([one.output, other.output]), np.concatenate([one.good, other.good])
    status = other.status if one.whole else one.status
    return Attempt(made.rows, output, good, one.whole and other.whole, status, max(one.us, other.us))


def _attempted(
    loaded: Loaded | None, x: Callable[[Index], NDArray[np.float32]], clock: Clock, within: Within, rows: Index
) -> Attempt:
    """One call."""
    n, us, started = len(rows), -1, clock.timer_ns()
    if loaded is None:
        return Attempt(rows, np.full((n, 1), np.nan), np.zeros(n, bool), False, ERROR, 0)

    def call() -> Output:
        nonlocal us
        began = clock.timer_ns()
        try:
            return loaded.model(x(rows))
        finally:
            us = (clock.timer_ns() - began) // 1_000

    output, status = _call(loaded, n, call, within)
    if output is None:
        us = (clock.timer_ns() - started) // 1_000 if us < 0 else us
        return Attempt(rows, np.full((n, width(loaded.schema)), np.nan), np.zeros(n, bool), False, status, us)
    finite = np.isfinite(output)
    if every(finite):  # nearly always
        return Attempt(rows, output, finite[:, 0], True, NONFINITE, us)
    return Attempt(rows, output, np.asarray(finite.all(axis=1)), False, NONFINITE, us)


def _call(loaded: Loaded, n: int, call: Call, within: Within) -> tuple[Output | None, str]:
    try:
        output = within(call)
    except TimeoutError:
        return None, TIMEOUT
    except OutOfRoom:
        return None, MEMORY
    except Exception:  # a model may raise anything
        if n == 1:
            _log.exception("bundle %s failed", loaded.id[:12])
        return None, ERROR
    return (output if output.shape == (n, width(loaded.schema)) else None), ERROR


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
    """What the tick answers, row by row, and the failed attempts with the number of their arm. `kept`: rows that stay
    with the champion by rule, None where there is no rule."""

    arm: NDArray[np.int64]
    kept: NDArray[np.bool_] | None
    version: list[int]
    status: list[str]
    us: list[int]
    score: list[float | None]
    label: list[str | None]
    scores: list[Sequence[float] | None]
    failed: list[tuple[int, Attempt]] = field(default_factory=list)

    @classmethod
    def blank(cls, arm: NDArray[np.int64], kept: NDArray[np.bool_] | None) -> Scored:
        n = len(arm)
        return cls(arm, kept, [0] * n, [ERROR] * n, [0] * n, [None] * n, [None] * n, [None] * n)

    @classmethod
    def whole(cls, loaded: Loaded, version: int, made: Attempt) -> Scored:
        """The champion answered every row."""
        n, given = len(made.rows), answers(loaded.schema, loaded.manifest.threshold, made.output)
        by = np.zeros(n, np.int64), None, [version] * n, [OK] * n, [made.us] * n
        return cls(*by, [*given.score], given.label, given.scores)

    def take(self, loaded: Loaded, version: int, made: Attempt) -> None:
        """Put the attempt's answers in their rows."""
        given = answers(loaded.schema, loaded.manifest.threshold, filled(made))
        for i, (row, good) in enumerate(zip(made.rows.tolist(), made.good.tolist(), strict=True)):
            self.version[row], self.us[row] = version, made.us
            self.status[row] = OK if good else made.status
            if good:
                self.score[row], self.label[row], self.scores[row] = given.score[i], given.label[i], given.scores[i]


def filled(made: Attempt) -> Output:
    """(n, c) with zeros where the output can't be used."""
    return made.output if made.whole else np.where(made.good[:, None], made.output, 0.0)


def score(served: Served, batch: Batch, clock: Clock, within: Callable[[Loaded | None], Within]) -> Scored:
    """One call for each arm, those beside the champion's `within` their time. The champion answers its own rows and
    those on which another failed."""
    route, n = served.route, len(batch.ids)
    if not (route.weight or route.more):  # nearly always
        made = attempt(served.champion, np.arange(n), batch.of, clock)
        if made.whole:
            return Scored.whole(served.champion, route.champion.version, made)
        scored = Scored.blank(np.zeros(n, np.int64), None)
        _champion(served, scored, made)
        return scored
    scored = _assigned(route, batch)
    unanswered = scored.arm == 0
    for number, (share, loaded) in enumerate(served.beside, 1):
        rows: Index = np.flatnonzero(scored.arm == number)
        if not len(rows):
            continue
        made = attempt(loaded, rows, partial(input_of, loaded, served, batch), clock, within(loaded))
        if loaded is not None and made.good.any():
            scored.take(loaded, share.arm.version, made)
        if not made.whole:
            scored.failed.append((number, made))
            unanswered[rows[~made.good]] = True
    rest: Index = np.flatnonzero(unanswered)
    if len(rest):
        _champion(served, scored, attempt(served.champion, rest, batch.of, clock))
    return scored


def _assigned(route: Route, batch: Batch) -> Scored:
    """Whose turn it is, with nothing answered yet."""
    keys = [name if key is None else key for key, name in zip(batch.keys, batch.ids, strict=True)]
    arm = arms(route, keys)
    if not (route.only or route.never):
        return Scored.blank(arm, None)
    stays = kept(route.only, route.never, batch.columns, len(keys))
    return Scored.blank(np.where(stays, 0, arm), stays)


def _champion(served: Served, scored: Scored, made: Attempt) -> None:
    version = served.route.champion.version
    if made.whole or made.status == NONFINITE or made.good.any():
        scored.take(served.champion, version, made)
        return
    for row in made.rows.tolist():  # no output at all
        scored.version[row], scored.status[row], scored.us[row] = version, ERROR, made.us


def input_of(loaded: Loaded | None, served: Served, batch: Batch, rows: Index) -> NDArray[np.float32]:
    """The model's input: the champion's when both have one schema. A field that the champion does not have is null:
    nobody could send it yet."""
    if loaded is None or loaded.schema == served.champion.schema:
        return batch.of(rows)
    absent = (None,) * len(batch.ids)
    columns: Mapping[str, Sequence[Value]] = {name: batch.columns.get(name, absent) for name in loaded.schema.names}
    return matrix(loaded.schema, columns)[rows]
