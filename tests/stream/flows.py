"""A loop over a stream, run until the topic is empty, with an engine in memory."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

import worlds

from homeostat.domain.message import Message, Output, Standing
from homeostat.ports import Stream
from homeostat.stream import Loop, Metrics

QUICK_S = 0.001


class Watched:
    """A stream whose consumer is told to stop when nothing is left, and whose pauses take no time: `pause` is called
    in their place, with how many there were."""

    def __init__(self, inner: Stream, pause: Callable[[int], None] = lambda _: None) -> None:
        self._inner, self._pause = inner, pause
        self.stop = threading.Event()
        self.rests = 0

    def take(self, limit: int, wait_s: float) -> Sequence[Message]:
        taken = self._inner.take(limit, min(wait_s, QUICK_S))
        if not taken:
            self.stop.set()
        return taken

    def settle(self, taken: Sequence[Message], outputs: Sequence[Output]) -> None:
        self._inner.settle(taken, outputs)

    def rest(self, wait_s: float) -> None:
        del wait_s
        self.rests += 1
        self._pause(self.rests)

    def standing(self) -> Standing:
        return self._inner.standing()

    def close(self) -> None:
        self._inner.close()


def drain(world: worlds.World, stream: Stream, pause: Callable[[int], None] = lambda _: None) -> Metrics:
    """→ the metrics at the end."""
    watched = Watched(stream, pause)
    return Loop(world.engine, watched, "fraud", world.clock, watched.stop, lambda _: None).run(100)


def world() -> worlds.World:
    """Whose first version serves."""
    made = worlds.World()
    made.route(made.bundle(worlds.logistic))
    return made


def record(**changes: Any) -> bytes:
    return json.dumps({**worlds.GOOD, **changes}).encode()
