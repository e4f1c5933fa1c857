"""The loop in numbers, for machines that watch it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class LogFigures:
    """What is not in the log's tables yet: segments that are closed, their bytes, how old the oldest is. `failing`:
    cause → whether it holds; `lost`: rows that living processes answered without a record."""

    segments: int = 0
    bytes: int = 0
    lag_ms: int = 0
    failing: Mapping[str, bool] = field(default_factory=dict)
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one model. `alerts`: kind → open ones; `releases`: status → how many; `weights`: version → its share of the
    traffic, 0 to 1, under `release`; `lanes`: lane → what it said when the open release was looked at last;
    `trainings`: outcome → how many ever; `label_ms`: when the newest label came; `held`: source of labels → whether
    those that it gives now are held back."""

    alerts: Mapping[str, int]
    releases: Mapping[str, int]
    release: str
    weights: Mapping[int, float]
    lanes: Mapping[str, str]
    trainings: Mapping[str, int]
    label_ms: int | None
    held: Mapping[str, bool]
    log: LogFigures
