"""How a model does, and why: what `homeostat monitor report` tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from homeostat.domain.estimate import BLIND
from homeostat.domain.failures import Failures
from homeostat.domain.gate import Measurement


@dataclass(frozen=True, slots=True)
class Stretch:
    """The metric in one window, by labels, and as it was estimated before they came: its value and interval.
    `mature`: the share of its labels that is expected to be there by now, None where no law of delays is known."""

    start_ms: int
    end_ms: int
    measured: Measurement | None
    estimated: tuple[float, float, float] | None
    answers: int
    mature: float | None


@dataclass(frozen=True, slots=True)
class Delays:
    """How long labels take: `labels` of `answers` answers have come; half of those that will are there after `half_ms`,
    95 % after `most_ms` (None: too few labels to say). `horizon_ms` is what the policy says, and `at_horizon` the share
    that is there by then. `share`: of the ids of answers that were looked at, if there are too many."""

    labels: int
    answers: int
    half_ms: int | None
    most_ms: int | None
    horizon_ms: int
    at_horizon: float
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Needs:
    """Field → what the mean loss rises by without it, of the version and of the one `before` it (0: none), and how
    alike their ranks are, in [-1, 1]."""

    importance: Mapping[str, float]
    before: int
    earlier: Mapping[str, float]
    agreement: float | None


@dataclass(frozen=True, slots=True)
class MonitorReport:
    """`value`: what a labelled answer was worth, in the mean; None where the policy does not say. `counted`: windows of
    so many answers, by their number. `segments`: the metric in each declared one that has enough rows for it."""

    model: str
    version: int
    from_ms: int
    until_ms: int
    higher_is_better: bool
    holdout: Measurement | None
    now: Measurement
    calibration: Measurement | None
    windows: tuple[Stretch, ...]
    failures: Failures
    delays: Delays
    needs: Needs
    value: Measurement | None = None
    note: str = BLIND
    counted: Mapping[str, tuple[Stretch, ...]] = field(default_factory=dict)
    segments: Mapping[str, Measurement] = field(default_factory=dict)
