"""Windows of so many answers, however long they take."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.monitor import Window
from homeostat.domain.policy import Policy
from homeostat.domain.units import DAY_MS, MINUTE_MS
from homeostat.ports import PredictionLog
from homeostat.services.champion import Champion
from homeostat.services.scored import scored_by

SETTLE_MS = MINUTE_MS
"""A row may be in the log so long after its time. The log is read no more often than that, either."""


class Counts:
    """The times of a champion's answers that are in no window yet are kept: each row is read once for all counts."""

    def __init__(self, policy: Policy, log: PredictionLog) -> None:
        self.policy, self.log = policy, log
        self._version = 0
        self._since: dict[int, int] = {}
        self._times: NDArray[np.int64] = np.empty(0, np.int64)
        self._read_ms = 0

    def begin(self, champion: Champion, count: int, since_ms: int) -> None:
        """Windows of so many answers follow each other from here on."""
        if self._version != champion.arm.version:
            self._version, self._since = champion.arm.version, {}
        self._since[count] = since_ms
        self._times, self._read_ms = np.empty(0, np.int64), min(self._since.values())

    def next(self, champion: Champion, count: int, now_ms: int) -> Window | None:
        """The oldest that is whole and not `done`. Answers of one millisecond are in one window: it may hold more than
        `count`."""
        while (end_ms := self._whole(count)) is None:
            if now_ms - SETTLE_MS - self._read_ms < SETTLE_MS:
                return None
            self._extend(champion, min(self._read_ms + DAY_MS, now_ms - SETTLE_MS))
        return Window(self._since[count], end_ms, 0, count)

    def done(self, window: Window) -> None:
        """The next of its series begins where it ended."""
        self._since[window.count] = window.end_ms

    def _whole(self, count: int) -> int | None:
        """Where the next window of so many answers ends."""
        first = int(np.searchsorted(self._times, self._since[count]))
        return int(self._times[first + count - 1]) + 1 if len(self._times) >= first + count else None

    def _extend(self, champion: Champion, until_ms: int) -> None:
        rows = scored_by(self.log.read(self.policy.name, self._read_ms, until_ms, False), champion.arm.version)
        held = self._times[self._times >= min(self._since.values())]
        self._times = np.concatenate([held, rows.select(pl.col("at_ms")).to_series().to_numpy()])
        self._read_ms = until_ms
