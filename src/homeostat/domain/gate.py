"""Measurements and verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """`unknown`: not enough evidence. `invalid`: could not be measured. Neither is ever read as a pass."""

    OK = "ok"
    HARM = "harm"
    UNKNOWN = "unknown"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Measurement:
    """A metric with its 95 % interval [low, high] over `n` rows."""

    metric: str
    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.metric} {self.value:.3g} [{self.low:.3g}, {self.high:.3g}], n = {self.n:,}"


@dataclass(frozen=True, slots=True)
class GateResult:
    """What a gate said, in words: what was measured against what."""

    name: str
    verdict: Verdict
    reason: str
    measurement: Measurement | None = None
