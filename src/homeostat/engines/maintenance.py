"""Stretches that come round, in which nobody is told of an alert."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError

from homeostat.domain.errors import ConfigError
from homeostat.domain.policy import Maintenance


def until(rules: Iterable[Maintenance], now_ms: int) -> int:
    """When the last one that `now_ms` lies in ends; 0: it lies in none. Errors: `ConfigError`."""
    ends = [_newest(rule.starts, now_ms) + rule.lasts for rule in rules]
    return max((end for end in ends if end > now_ms), default=0)


def _newest(expression: str, now_ms: int) -> int:
    """The last tick that is not later than now."""
    after = datetime.fromtimestamp(now_ms // 1_000, UTC) + timedelta(seconds=1)
    try:
        return int(next(CronSim(expression, after, reverse=True)).timestamp() * 1_000)
    except (CronSimError, StopIteration) as error:
        raise ConfigError(
            f"{expression!r} is not a schedule: {error}",
            where="maintenance",
            way_out='Write five cron fields (UTC), as {starts: "0 2 * * SUN", lasts: 2h}.',
        ) from error
