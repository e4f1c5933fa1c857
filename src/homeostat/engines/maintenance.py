"""Stretches that come round, in which nobody is told of an alert."""

from __future__ import annotations

from collections.abc import Iterable

from homeostat.domain.policy import Maintenance
from homeostat.engines import cron

_WAY_OUT = 'Write five cron fields (UTC), as {starts: "0 2 * * SUN", lasts: 2h}.'


def until(rules: Iterable[Maintenance], now_ms: int) -> int:
    """When the last one that `now_ms` lies in ends; 0: it lies in none. Errors: `ConfigError`."""
    ends = [cron.newest(rule.starts, now_ms, "maintenance", _WAY_OUT) + rule.lasts for rule in rules]
    return max((end for end in ends if end > now_ms), default=0)
