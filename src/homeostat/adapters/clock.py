"""Time: the machine's, or one that is set by hand."""

from __future__ import annotations

import time


class SystemClock:
    """`ports.Clock` of the machine."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def timer_ns(self) -> int:
        return time.perf_counter_ns()

    def cpu_ns(self) -> int:
        return time.process_time_ns()


class SimulatedClock:
    """`ports.Clock` that stands still until it is moved, and never goes back. Nothing takes any time on it, so a
    rehearsal measures no durations."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def timer_ns(self) -> int:
        return 0

    def cpu_ns(self) -> int:
        return 0

    def move_to(self, now_ms: int) -> None:
        self._now_ms = max(self._now_ms, now_ms)
