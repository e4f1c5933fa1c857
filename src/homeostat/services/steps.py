"""The steps of one run: each is made once for its key, and told of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from homeostat.domain.run import Step
from homeostat.ports import MISSING, Clock, Progress, StepCache

T = TypeVar("T")


class Steps:
    """`total` is how many steps the run has in all, for the progress bar."""

    def __init__(self, cache: StepCache, clock: Clock, progress: Progress, total: int) -> None:
        self._cache, self._clock, self._progress, self._total = cache, clock, progress, total
        self._done: list[Step] = []

    @property
    def done(self) -> tuple[Step, ...]:
        return tuple(self._done)

    def __call__(self, name: str, key: str, make: Callable[[], T]) -> T:
        """The result for the key: from the cache, or made now and kept."""
        self._progress(len(self._done), max(self._total, len(self._done)), name)
        started = self._clock.timer_ns()
        kept = self._cache.get(key)
        result: T = make() if kept is MISSING else kept
        if kept is MISSING:
            self._cache.put(key, result)
        wall_ms = (self._clock.timer_ns() - started) // 1_000_000
        self._done.append(Step(name, key, kept is not MISSING, wall_ms))
        return result
