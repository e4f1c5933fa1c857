"""From a topic to a topic: take a batch, have it answered in one tick, write the answers, then be done with it.

At least once, and in effect once: a message that is delivered again has the same prediction id, so that a reader who
keeps the first output of each id sees one answer to every input. A batch is done with when each of its outputs is
confirmed, and not before: a `kill -9` at any line only repeats work.
"""

from __future__ import annotations

import base64
import gc
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import msgspec

from homeostat.domain.errors import Unavailable
from homeostat.domain.message import Message, Output, Standing
from homeostat.ports import Clock, Stream
from homeostat.serving.messages import Request, Response
from homeostat.serving.tick import Engine

WAIT_S = 0.25
"""How long a stop may go unnoticed while there is nothing to do."""
REFRESH_MS, REPORT_MS = 200, 1_000
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
KEPT = 65_536
"""Bytes of a poison message that its dead letter keeps: a letter must fit where a message did."""
POISON = frozenset({400, 422, 500})
"""Statuses that the same message would get again. Every other refusal is about the moment."""
T = TypeVar("T")
_log = logging.getLogger("homeostat.stream")


@dataclass(frozen=True, slots=True)
class Metrics:
    """Counters since the start (`_total`), and gauges. `retried`: how often a step had to be tried again, and
    `waiting_for` why it is just now; `per_second`: messages settled, of the last stretch between two reports."""

    answered_total: int = 0
    dead_total: int = 0
    retried_total: int = 0
    reclaimed_total: int = 0
    rebalances_total: int = 0
    lag: int | None = None
    per_second: float = 0.0
    waiting_for: str = ""


class Loop:
    """One consumer at work. `stop` ends it after the batch in hand; `show` gets the metrics about once a second."""

    def __init__(
        self,
        engine: Engine,
        stream: Stream,
        model: str,
        clock: Clock,
        stop: threading.Event,
        show: Callable[[Metrics], None],
    ) -> None:
        self._engine, self._stream, self._clock, self._stop, self._show = engine, stream, clock, stop, show
        self._path = f"/v1/models/{model}/record"
        self._refresh_ms = 0
        self._shown_ms, self._shown = clock.now_ms(), 0
        self._standing = Standing()
        self._metrics = Metrics()

    def run(self, limit: int) -> Metrics:
        """Until `stop`, in batches of at most `limit` messages. What is not settled then is delivered again, here or
        to another consumer of the group."""
        _calm_collector()
        while not self._stop.is_set():
            taken = self._insist(partial(self._stream.take, limit, WAIT_S))
            if taken:
                self._batch(taken)
            self._report()
        self._report(now=True)
        return self._metrics

    def _batch(self, taken: Sequence[Message]) -> None:
        outputs = self._insist(partial(self._answers, taken))
        if outputs is not None:
            self._insist(partial(self._settle, taken, outputs))
        self._engine.shadow()

    def _answers(self, taken: Sequence[Message]) -> list[Output]:
        """One output a message, in order. Errors: `Unavailable` when one is refused for the moment."""
        self._refresh()
        path = self._path
        requests = [Request("POST", path, one.body, {"idempotency-key": one.place}) for one in taken]
        return list(map(_output, taken, self._engine.answer(requests)))

    def _settle(self, taken: Sequence[Message], outputs: Sequence[Output]) -> None:
        self._stream.settle(taken, outputs)
        dead = sum(output.dead for output in outputs)
        m = self._metrics
        self._metrics = replace(
            m, answered_total=m.answered_total + len(outputs) - dead, dead_total=m.dead_total + dead
        )

    def _insist(self, step: Callable[[], T]) -> T | None:
        """Try until it works, with longer and longer pauses; None when told to stop meanwhile."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                done = step()
            except Unavailable as error:
                m = self._metrics
                self._metrics = replace(m, retried_total=m.retried_total + 1, waiting_for=error.what)
                _log.debug("trying again in %.1f s: %s", pause, error.what)
            else:
                self._metrics = replace(self._metrics, waiting_for="") if self._metrics.waiting_for else self._metrics
                return done
            if not self._rested(pause):
                return None
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _rested(self, pause: float) -> bool:
        """→ False when told to stop."""
        while pause > 0 and not self._stop.is_set():
            self._stream.rest(min(pause, WAIT_S))
            pause -= WAIT_S
            self._report()
        return not self._stop.is_set()

    def _refresh(self) -> None:
        """Follow the releases."""
        now_ms = self._clock.now_ms()
        if now_ms >= self._refresh_ms:
            self._refresh_ms = now_ms + REFRESH_MS
            self._engine.refresh()

    def _report(self, now: bool = False) -> None:
        now_ms, m = self._clock.now_ms(), self._metrics
        passed = now_ms - self._shown_ms
        if passed < REPORT_MS and not now:
            return
        try:
            self._standing = self._stream.standing()
        except Unavailable:  # the next step says so; the numbers stay as they were
            _log.debug("the stream can't say how it stands")
        settled = m.answered_total + m.dead_total
        self._metrics = replace(
            m,
            reclaimed_total=self._standing.reclaimed,
            rebalances_total=self._standing.rebalances,
            lag=self._standing.lag,
            per_second=round(1_000 * (settled - self._shown) / passed, 1) if passed else 0.0,
        )
        self._shown_ms, self._shown = now_ms, settled
        self._show(self._metrics)


class _Named(msgspec.Struct, gc=False):
    id: str


_id = msgspec.json.Decoder(_Named).decode


def _output(message: Message, response: Response) -> Output:
    """Errors: `Unavailable` when the refusal is not the message's own."""
    if response.status == 200:
        return Output(_id(response.body).id, response.body)
    error: dict[str, Any] = msgspec.json.decode(response.body)["error"]
    if response.status in POISON:
        return Output(message.place, msgspec.json.encode(_letter(message, error)), dead=True)
    raise Unavailable(error["message"])


def _letter(message: Message, error: dict[str, Any]) -> dict[str, Any]:
    """What became of a message that nobody can answer: where it lies, why, and what it said, as text where it is."""
    kept = message.body[:KEPT]
    why = {"reason": error["message"], "rule": error.get("rule"), "field": error.get("field")}
    try:
        said = {"message": kept.decode()}
    except UnicodeDecodeError:
        said = {"message_base64": base64.b64encode(kept).decode()}
    cut = {"cut": True} if len(kept) < len(message.body) else {}
    return {"place": message.place, **why, **said, **cut}


def _calm_collector() -> None:
    """As in a worker of the data plane: what is loaded stays, and a batch makes thousands of objects that die with
    it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 20)
