"""What is kept of the looks at a release: enough for its course over time, in bounded space.

A pass that moves nothing is recorded when the traffic, a verdict or the size of an E is another one, and else ever more
seldom: four times while the step's age doubles. The key says all that, so that the journal keeps the first of a kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from math import floor, log2, log10
from typing import Any

from homeostat.domain.event import LOOK, Event
from homeostat.domain.rollout import Lane, Rollout, Seen
from homeostat.domain.units import MINUTE_MS

FLOOR = 0.01
"""Below this E speaks against harm, and how far does not matter."""


def look(rollout: Rollout, seen: Seen, reason: str) -> Event:
    """A look that moved nothing; `reason`: why the release holds."""
    age = floor(4 * log2(1 + max(seen.now_ms - rollout.step_ms, 0) / MINUTE_MS))
    traffic = f"{seen.weight}{'s' if seen.shadow else ''}"
    key = f"{rollout.id}:look:{rollout.revision}:{traffic}:{age}:{','.join(map(_size, seen.lanes))}"
    return Event(seen.now_ms, rollout.model, LOOK, key, rollout.id, reason, saw(seen))


def saw(seen: Seen) -> Mapping[str, Any]:
    """The body of an event: what a pass saw."""
    return {"weight": seen.weight, "requests": seen.requests, "lanes": [asdict(lane) for lane in seen.lanes]}


def _size(lane: Lane) -> str:
    """Verdict, and E in half powers of ten between `FLOOR` and the threshold."""
    e = min(max(lane.evidence, FLOOR), max(lane.threshold, FLOOR))
    return f"{lane.verdict.value[0]}{'b' if lane.bounded else ''}{floor(2 * log10(e))}"
