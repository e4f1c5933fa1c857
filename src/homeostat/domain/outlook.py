"""What is to be expected of an open release: when each lane decides, and what the rule will do then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from homeostat.domain.gate import Verdict
from homeostat.domain.rollout import Move

FUTURES = 200
"""So many are tried for a forecast."""


class Assumed(StrEnum):
    """What a forecast takes for true. AS_NOW: the candidate is what it looks like today. AT_MARGIN: it is exactly as
    bad as the policy still tolerates (quality), or as the step's bound (rates of bad events)."""

    AS_NOW = "as now"
    AT_MARGIN = "as the margin"


@dataclass(frozen=True, slots=True)
class Forecast:
    """One lane under one assumption. `value`: the ratio of rates or mean difference that is assumed. `verdict` is what
    comes first in most of the futures that were tried, `chance` the share of those in which it does; UNKNOWN: nothing
    within a year. `more` events or labels are needed until then, and it comes at `at_ms`: medians, with the 10th and
    90th percentiles in `few`, `many`, `early_ms`, `late_ms`."""

    lane: str
    assumed: Assumed
    value: float
    verdict: Verdict
    chance: float
    more: int | None = None
    few: int | None = None
    many: int | None = None
    at_ms: int | None = None
    early_ms: int | None = None
    late_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """New events or labels of a lane a day, at the present traffic."""

    lane: str
    per_day: float


@dataclass(frozen=True, slots=True)
class Turn:
    """The next move that is not "hold", if every lane does as its forecast says; None: there is none within a year."""

    assumed: Assumed
    at_ms: int | None
    move: Move | None


@dataclass(frozen=True, slots=True)
class Outlook:
    """`requests_per_day`: how many the candidate sees now. Lanes of which nothing can be said have no forecast."""

    now_ms: int
    requests_per_day: float
    paces: Sequence[Pace]
    forecasts: Sequence[Forecast]
    turns: Sequence[Turn]

    def forecast(self, lane: str, assumed: Assumed) -> Forecast | None:
        return next((one for one in self.forecasts if (one.lane, one.assumed) == (lane, assumed)), None)

    def turn(self, assumed: Assumed) -> Turn | None:
        return next((one for one in self.turns if one.assumed is assumed), None)
