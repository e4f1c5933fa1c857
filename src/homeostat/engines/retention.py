"""Which days of the logs may go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from homeostat.domain.units import show_duration, show_size


@dataclass(frozen=True, slots=True)
class Cut:
    """The days before `before` go, because of `reason`; None: none goes. `over`: bytes above the limit that stay,
    because they are still needed."""

    before: date | None
    reason: str
    over: int


def cut(days: Mapping[date, int], keep_from: date | None, needed_from: date | None, max_size: int, keep_ms: int) -> Cut:
    """`days`: bytes of each day, oldest first. Days before `keep_from` are too old; then the oldest go until the rest
    fits into `max_size`. Those from `needed_from` on stay (None: all of them are needed)."""
    if needed_from is None:
        return Cut(None, "", max(0, sum(days.values()) - max_size))
    loose = [day for day in days if day < needed_from]
    old = [day for day in loose if keep_from is not None and day < keep_from]
    left = sum(days.values()) - sum(days[day] for day in old)
    large = []
    for day in loose[len(old) :]:
        if left > max_size:
            large.append(day)
            left -= days[day]
    gone = [*old, *large]
    reasons = [f"older than {show_duration(keep_ms)}"] if old else []
    reasons += [f"over {show_size(max_size)}"] if large else []
    return Cut(gone[-1] + timedelta(1) if gone else None, " and ".join(reasons), max(0, left - max_size))
