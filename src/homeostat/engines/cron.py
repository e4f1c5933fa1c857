"""Times that come round, as five cron fields (UTC) say it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError

from homeostat.domain.errors import ConfigError


def newest(expression: str, now_ms: int, where: str, way_out: str) -> int:
    """The last tick that is not later than now. Errors: `ConfigError` at `where`, with the `way_out`."""
    after = datetime.fromtimestamp(now_ms // 1_000, UTC) + timedelta(seconds=1)
    try:
        return int(next(CronSim(expression, after, reverse=True)).timestamp()) * 1_000
    except (CronSimError, StopIteration) as error:
        raise ConfigError(f"{expression!r} is not a schedule: {error}", where=where, way_out=way_out) from error
