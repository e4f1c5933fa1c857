"""How often the watching may be wrong in a week in which nothing happens."""

from __future__ import annotations

from collections.abc import Mapping

from homeostat.domain.policy import MonitorPolicy
from homeostat.domain.units import DAY_MS
from homeostat.engines.change import ORDINARY, Rule
from homeostat.engines.suspicion import ALPHA

WEEK_MS = 7 * DAY_MS


def weekly(policy: MonitorPolicy, rule: Rule = ORDINARY, counted: int = 0, sources: int = 1) -> Mapping[str, float]:
    """What is watched → the false alarms that it may raise a week, at most. Drift: each window of each length has
    `false_alarms`, over all columns and tests together; `counted`: windows of so many rows that the last week had.
    Performance: one in `threshold` days (`engines.change`). Labels: of each of the `sources` the noise is judged once a
    day and, where there are others, the loss (`engines.suspicion`). Broken columns are told by marks, not by chance."""
    windows = counted + sum(WEEK_MS / length for length in policy.windows)
    judged = WEEK_MS / DAY_MS * sources * (1 if sources == 1 else 2)
    return {
        "drift": windows * policy.false_alarms,
        "performance": WEEK_MS / DAY_MS / rule.threshold,
        "labels": judged * ALPHA,
    }
