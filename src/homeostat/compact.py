"""The compactor: the upkeep of a project's logs, in a process of its own. It may be killed at any moment."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Never

from homeostat.domain.errors import Refused
from homeostat.domain.units import show_size
from homeostat.ports import Clock
from homeostat.services.upkeep import Upkeep

PAUSE_S = 20.0
CLEAN_MS = 3_600_000
_log = logging.getLogger("homeostat.compact")

Told = Callable[[Exception | None], None]
"""Hears what is wrong, or that nothing is."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """`rows` moved into the tables; `removed`: why days went, "" when none did."""

    rows: int
    removed: str


class Compactor:
    """`failed` hears when it can't work, `large` when there is more than the policy allows and none may go."""

    def __init__(self, upkeep: Upkeep, failed: Told, large: Told, clock: Clock) -> None:
        self._upkeep, self._failed, self._large, self._clock = upkeep, failed, large, clock
        self._cleaned_ms = 0

    def follow(self) -> Never:
        """Over and over. What fails is told and tried again."""
        os.nice(10)  # answers come first
        while True:
            try:
                self.turn()
            except Refused as error:
                _log.error("%s", error)
            time.sleep(PAUSE_S)

    def turn(self) -> Compacted:
        """Compact; once an hour, clean. Errors: `Refused`."""
        try:
            moved = self._upkeep.compact()
            removed = self._clean() if self._clock.now_ms() - self._cleaned_ms >= CLEAN_MS else ""
        except Exception as error:  # of the file system, of Delta, of the database
            self._failed(error)
            why = str(error).split("\n")[0]
            raise Refused(f"the log can't be compacted: {why}", way_out="Nothing is lost: segments wait.") from error
        self._failed(None)
        return Compacted(moved, removed)

    def _clean(self) -> str:
        made = self._upkeep.clean()
        excess = f"{show_size(made.over)} above log.max_size are still needed; raise it, or shorten train.window"
        self._large(Refused(excess) if made.over else None)
        self._cleaned_ms = self._clock.now_ms()
        return made.reason
