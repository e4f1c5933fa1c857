"""Where requests wait for their tick: one queue is worked off on the event loop, one beside it in a thread."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial

from homeostat.serving.compression import SMALL, packed
from homeostat.serving.limit import Limit
from homeostat.serving.messages import Refusal, Request, Response, Waiting, refused
from homeostat.serving.meter import Counted, key
from homeostat.serving.tick import Engine, Later

_LATER = 256  # ticks whose shadow is still to be scored; beyond that the oldest are let go
_TOLD = math.log(1.5)  # how much the limit has moved when it is told
_TOLD_S = 10.0
_log = logging.getLogger("homeostat.load")


class Queue:
    """All that wait are answered together, in one tick; those that come meanwhile, in the next. `pool`: one thread
    that the ticks run in; without it they run on the loop."""

    def __init__(
        self, name: str, engine: Engine, loop: asyncio.AbstractEventLoop, limit: Limit, pool: Executor | None = None
    ) -> None:
        self._name, self._engine, self._loop, self._pool = name, engine, loop, pool
        self.limit = limit
        self._waiting: list[Waiting] = []
        self._later: Later = deque(maxlen=_LATER)
        self._busy = False
        self._told, self._told_s = limit.value, 0.0
        self.name, self._since, self._spent = key("queue", name), 0.0, 0.0

    @property
    def state(self) -> tuple[int, int]:
        """How many may wait, and how many do."""
        return self.limit.value, len(self._waiting)

    def take(self, request: Waiting) -> bool:
        """False when too many wait. Questions about health and the like are always taken: they are few, and cost
        little."""
        if len(self._waiting) >= self.limit.value and request.method != "GET":
            return False
        if not self._waiting:
            self._since = time.perf_counter()
        self._waiting.append(request)
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._flush)
        return True

    def _flush(self) -> None:
        requests, self._waiting = self._waiting, []
        counted: Counted = []
        self._do(partial(self._answers, requests, counted), partial(self._answered, requests, counted, self._since))

    def _do(self, work: Callable[[], list[Response]], then: Callable[[list[Response]], None]) -> None:
        if self._pool is None:
            then(work())
        else:
            done = self._loop.run_in_executor(self._pool, work)
            done.add_done_callback(lambda one: then(one.result()))

    def _answers(self, requests: Sequence[Request], counted: Counted) -> list[Response]:
        started = time.perf_counter()
        try:
            answers = self._engine.answer(requests, self._later, counted)
            responses = [
                answer if len(answer.body) < SMALL else packed(request, answer)
                for request, answer in zip(requests, answers, strict=True)
            ]
        except Exception:  # a defect of ours must not leave callers without an answer
            _log.exception("a tick failed")
            responses = [refused(Refusal(500, "the request got no answer")) for _ in requests]
            counted[:] = [("", "", 500, len(requests))]
        self._spent = time.perf_counter() - started
        return responses

    def _answered(
        self, requests: Sequence[Waiting], counted: Counted, since: float, responses: Sequence[Response]
    ) -> None:
        for request, response in zip(requests, responses, strict=True):
            request.answer(response)
        waited = time.perf_counter() - since
        self._loop.call_soon(self._settle, len(requests), counted, waited)  # the answers leave before that

    def _settle(self, answered: int, counted: Counted, waited: float) -> None:
        """Count what was answered, and go on."""
        self.limit.seen(answered, 1e6 * self._spent)
        self._engine.meter.tick(self.name, answered, self._spent, counted, waited)
        self._tell()
        self._next()

    def _next(self) -> None:
        """Callers first; shadow while nobody waits."""
        self._busy = bool(self._waiting or self._later)
        if self._busy:
            self._loop.call_soon(self._flush if self._waiting else self._shadow)

    def _shadow(self) -> None:
        if self._waiting:
            self._flush()
        else:
            self._do(self._scored, lambda _: self._next())

    def _scored(self) -> list[Response]:
        self._engine.shadow(self._later, 1)
        return []

    def _tell(self) -> None:
        """A limit that has moved much is told, with its reason."""
        limit, now = self.limit, self._loop.time()
        if now - self._told_s > _TOLD_S and abs(math.log(limit.value / self._told)) > _TOLD:
            why = f"a tick costs {limit.fixed_us:.0f} us and {limit.each_us:.1f} us a request"
            _log.info("%s: at most %d requests wait, %d before: %s", self._name, limit.value, self._told, why)
            self._told, self._told_s = limit.value, now
