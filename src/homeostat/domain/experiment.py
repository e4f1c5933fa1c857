"""An experiment: what it compares (Experiment), and what it says so far (Result)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from homeostat.domain.bundle import Version
from homeostat.domain.gate import Verdict
from homeostat.domain.policy import ExperimentPolicy, SignalPolicy
from homeostat.domain.units import ALL


@dataclass(frozen=True, slots=True)
class Split:
    """The shares of the arms in basis points, the champion's first, from a moment on."""

    at_ms: int
    shares: tuple[int, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Experiment:
    """The record of one, as it was begun. `id` is E1, E2, … within the model; `weight` the share of each variant in
    basis points, to begin with; `later`: what followed, where shares follow the results; `ended_ms` and `outcome` are
    None and "" while it runs."""

    id: str
    name: str
    model: str
    rules: ExperimentPolicy
    champion: Version
    variants: tuple[Version, ...]
    weight: int
    salt: str
    started_ms: int
    ended_ms: int | None = None
    outcome: str = ""
    later: tuple[Split, ...] = ()

    @property
    def splits(self) -> tuple[tuple[int, ...], ...]:
        """The shares, oldest first."""
        beside = (self.weight,) * len(self.variants)
        return ((ALL - sum(beside), *beside), *(split.shares for split in self.later))

    @property
    def route(self) -> str:
        """What the log calls it under the last split: E1, then E1.1, E1.2, …"""
        return f"{self.id}.{len(self.later)}" if self.later else self.id


class Conclusion(StrEnum):
    """Of a variant against the champion."""

    BETTER = "better"
    WORSE = "worse"
    ALIKE = "no difference larger than the margin"
    UNKNOWN = "not yet known"


@dataclass(frozen=True, slots=True)
class Effect:
    """The difference of a variant's mean and the champion's, in the metric's own unit, and its interval. `n` are the
    units of both that are behind it. None: too few for a number."""

    n: int
    mean: float | None
    champion_mean: float | None
    difference: float | None
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Guard:
    """A metric that must not get worse. `reason` is a sentence."""

    name: str
    verdict: Verdict
    reason: str
    effect: Effect | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """One variant. `sentence` is the conclusion in plain words."""

    version: int
    effect: Effect
    conclusion: Conclusion
    sentence: str
    guards: tuple[Guard, ...]

    @property
    def harm(self) -> str:
        """Why it must end, "" for no reason."""
        return "; ".join(guard.reason for guard in self.guards if guard.verdict is Verdict.HARM)


@dataclass(frozen=True, slots=True)
class Result:
    """`units`: entities whose window is over, those still `waiting` beside them. `cut`: signals that were cut to the
    bounds. `invalid`: why nothing can be said."""

    metric: SignalPolicy
    units: int
    waiting: int
    compared: tuple[Compared, ...]
    cut: int = 0
    invalid: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What an experiment would take to find `effect` four times in five. `per_day`: entities that would enter; `days`
    until the last of `units` has its signal. Both None where the log goes back less than a day."""

    name: str
    variants: int
    mean: float
    deviation: float
    effect: float
    units: int
    per_day: float | None = None
    days: float | None = None
