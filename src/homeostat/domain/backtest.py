"""What a backtest finds: recorded requests, with their inputs of that moment, through champion and candidate.

This is the backtest of a release. `domain.bundle.Backtest` is another one: what a training found on its holdout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from homeostat.domain.gate import Verdict
from homeostat.domain.rollout import Do, Lane
from homeostat.domain.trace import Score


@dataclass(frozen=True, slots=True)
class Recorded:
    """The answers in the log from `start_ms` to `end_ms`, and what became of them here. `hidden`: an input that a model
    must have is not in the log as it was served; `changed`: from what the log holds the champion does not give the
    answer that it gave then; `refused`: requests that no model saw; `away`: answered on the edge or by a batch job,
    where no release reaches. Only `replayed` ones are compared."""

    start_ms: int
    end_ms: int
    answers: int
    replayed: int
    hidden: int
    changed: int
    refused: int
    away: int
    per_day: float | None


@dataclass(frozen=True, slots=True)
class Shift:
    """Over the `n` requests that both answered: how many decisions flipped (`turns`: champion's label, candidate's,
    how often; None and () for a regression), the mean score of each, the largest distance of their distributions
    (Kolmogorov-Smirnov), and the mean distance of the two answers to one request, in [0, 1]."""

    n: int
    flips: int | None
    turns: tuple[tuple[str, str, int], ...]
    champion_mean: float | None
    candidate_mean: float | None
    ks: float | None
    moved: float


@dataclass(frozen=True, slots=True)
class Segment:
    """Requests with `values` in `field`. `moved`: the mean distance of the two answers here, `elsewhere` in all other
    requests; a failure of one of the two counts as 1. `failed`: of the candidate, where the champion answered.
    `difference`: the mean paired difference of the losses over `labels`, `evidence` E against "no worse here"."""

    field: str
    values: str
    n: int
    moved: float
    elsewhere: float
    flips: int
    failed: int
    labels: int = 0
    difference: float | None = None
    evidence: float = 0.0


@dataclass(frozen=True, slots=True)
class Outputs:
    """What one version gave: requests it raised on, outputs that are not finite, and outputs out of range (a
    probability outside [0, 1], or probabilities that do not add up to 1)."""

    raised: int
    nonfinite: int
    out_of_range: int


@dataclass(frozen=True, slots=True)
class Expected:
    """The move that would end a step of the live release, after how long and why, if traffic and labels go on as
    recorded; None: it would still hold after a year."""

    step: str
    do: Do | None
    after_ms: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class BacktestResult:
    """The same log gives the same result, byte for byte. `missing`: a field that the candidate must have → in how many
    requests it is not there. `labels`: compared, of which `fresh` can have been learned from by neither version (the
    others can show harm, but no merit); `learned`: left out, since the champion may have learned from them.
    `cannot_know`: what no backtest can tell."""

    model: str
    champion: int
    candidate: int
    recorded: Recorded
    shift: Shift
    champion_outputs: Outputs
    candidate_outputs: Outputs
    missing: Mapping[str, int]
    segments: tuple[Segment, ...]
    lanes: tuple[Lane, ...]
    hard_stop: str
    labels: int
    fresh: int
    learned: int
    expected: tuple[Expected, ...]
    cannot_know: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Calls:
    """Time of one model's calls with `batch` rows each, in microseconds."""

    version: int
    batch: int
    n: int
    p50_us: float
    p95_us: float
    p99_us: float


@dataclass(frozen=True, slots=True)
class Latency:
    """Measured anew each time, so it is no part of the result. `limit_us`: an answer that takes longer is slow."""

    calls: tuple[Calls, ...]
    limit_us: int
    lane: Lane | None


@dataclass(frozen=True, slots=True)
class Backtested:
    """A result with the latency beside it, and what the two say together."""

    result: BacktestResult
    latency: Latency
    verdict: Verdict
    sentence: str
    report: str = ""

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """Those of the result, and that of the latency."""
        return (*self.result.lanes, *((self.latency.lane,) if self.latency.lane else ()))


@dataclass(frozen=True, slots=True)
class Replayed:
    """One recorded request through another release's bundle: what was answered then, and what this one says."""

    id: str
    at_ms: int
    inputs: Mapping[str, object]
    recorded: Score
    release: str
    replayed: Score
