"""The upkeep of the logs: what was served moves into tables, the oldest days go, files are kept few."""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime, timedelta

from homeostat.domain.event import Event
from homeostat.domain.policy import Policy
from homeostat.domain.units import DAY_MS
from homeostat.engines.retention import Cut, cut
from homeostat.ports import Archive, Clock, Journal

KIND = "log.removed"
_log = logging.getLogger("homeostat.log")


class Upkeep:
    """Every method may be killed at any moment, and is simply called again."""

    def __init__(self, policy: Policy, archive: Archive, journal: Journal, clock: Clock) -> None:
        self.policy, self.archive, self.journal, self.clock = policy, archive, journal, clock

    def compact(self) -> int:
        """→ rows that are in the tables now and were not before."""
        moved, lost = self.archive.compact()
        if lost:
            _log.warning("%d damaged records of the log were passed over", lost)
        return moved

    def clean(self) -> Cut:
        """Remove what is too old or too much, merge small files. The journal says it first: a data version that is
        made from the log must know that the log once went further back. → what went, and what could not."""
        now, rule = self.clock.now_ms(), self.policy.log
        days, needed = self.archive.days(), self.policy.look_back_ms
        keep_from = _day(now - rule.retain) if rule.retain else None
        needed_from = _day(now - needed) if needed is not None else None
        made = cut(days, keep_from, needed_from, rule.max_size, rule.retain)
        if made.before is not None:
            self._tell(min(days), made.before, made.reason, now)
            self.archive.remove(made.before)
        self.archive.tidy(_day(now))
        return made

    def _tell(self, first: date, before: date, reason: str, now: int) -> None:
        last = before - timedelta(1)
        text = f"Log: {first} to {last} removed, {reason}." if first < last else f"Log: {first} removed, {reason}."
        body = {"from_ms": _ms(first), "until_ms": _ms(before)}
        key = f"{KIND}:{first}:{before}"
        self.journal.append(Event(now, self.policy.name, KIND, key, str(before), text, body))


def _day(ms: int) -> date:
    """In UTC; the first there is, for what lies before it."""
    return datetime.fromtimestamp(max(ms, 0) / 1_000, UTC).date()


def _ms(day: date) -> int:
    return (day - date(1970, 1, 1)).days * DAY_MS
