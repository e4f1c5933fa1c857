"""Requests that are refused, by field and rule: what the callers send no longer fits the schema, or never did."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from homeostat.domain.gate import Verdict
from homeostat.domain.monitor import Reading
from homeostat.engines.drift.calibrate import Worth, wobble
from homeostat.engines.drift.categorical import p_exact
from homeostat.engines.drift.reference import Profile, Reference
from homeostat.engines.drift.spans import Past

TEST, REQUESTS = "refused", "@requests"
LEAST = 0.01


def causes(window: Profile, past: Sequence[Past]) -> list[str]:
    """What rows were refused for, now or before."""
    return sorted({cause for one in (window, *(old.profile for old in past)) for cause in one.refused})


def refusal(
    reference: Reference, window: Profile, past: Sequence[Past], cause: str, readings: float, false_alarms: float
) -> Reading:
    """Has the share of requests grown that break this rule? Beside the reference, whose rows all kept it, and the
    windows before that it raised no alarm in. Fisher's exact test, corrected for so many `readings` of all spans."""
    subject = cause.partition(": ")[0] if ": " in cause else REQUESTS
    rule = cause.rpartition(": ")[2]
    before = [one.profile for one in past if subject not in one.alarmed]
    tables = np.array([_table(one, cause) for one in before] or [(0, 0)], np.int64)
    count, kept = _table(window, cause)
    old, others = int(tables[:, 0].sum()), int(tables[:, 1].sum()) + reference.profile.rows
    size = Worth(count + kept, old + others, wobble(tables), max(1, len(before)))
    now, then = count / max(1, count + kept), old / max(1, old + others)
    p = size.sure(p_exact(now * size.window, size.window, then * size.reference, size.reference)[0])
    p = min(1.0, readings * p)
    harm = p <= false_alarms and now - then >= LEAST
    words = f"{subject}: {now:.1%} of requests are refused for the rule {rule!r}, {then:.1%} before"
    return Reading(subject, TEST, Verdict.HARM if harm else Verdict.OK, abs(now - then), p, words)


def _table(profile: Profile, cause: str) -> tuple[int, int]:
    """Rows refused for this cause, and all others."""
    count = profile.refused.get(cause, 0)
    return count, profile.rows + sum(profile.refused.values()) - count
