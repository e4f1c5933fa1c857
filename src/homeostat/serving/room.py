"""What a candidate's calls add to the memory of this process, and when that is too much."""

from __future__ import annotations

import logging
from collections.abc import Callable

import psutil

from homeostat.domain.units import show_size
from homeostat.serving.bundles import Loaded
from homeostat.serving.score import Call, OutOfRoom, Output

_log = logging.getLogger("homeostat.serving")


def resident() -> int:
    """Bytes of physical memory that this process holds."""
    return int(psutil.Process().memory_info().rss)


class Room:
    """Of one candidate: how far its calls have raised the highest memory of the process so far. What others added
    before a call is not its own, and what is taken and given back again and again counts once. Threads may share it;
    what two calls at the same time take may fall on either of them."""

    def __init__(self, candidate: Loaded, left: float, memory: Callable[[], int] = resident) -> None:
        """`left`: bytes that its calls may take."""
        self._candidate, self._left, self._memory = candidate, left, memory
        self._peak = self.taken = 0
        self.over = False

    def __call__(self, within: Callable[[Call], Output], call: Call) -> Output:
        """Errors: `OutOfRoom` from the call that takes too much on; those of `within`."""
        if self.over:
            raise OutOfRoom
        self._peak = max(self._peak, self._memory())
        try:
            return within(call)
        finally:
            self._look()

    def _look(self) -> None:
        now = self._memory()
        self.taken += max(now - self._peak, 0)
        self._peak = max(self._peak, now)
        if self.taken > self._left and not self.over:
            self.over = True
            taken, left = show_size(self.taken), show_size(round(self._left))
            _log.warning("bundle %s took %s of memory, %s were left", self._candidate.id[:12], taken, left)
        if self.over:
            raise OutOfRoom
