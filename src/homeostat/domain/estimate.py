"""A metric before its labels are there."""

from __future__ import annotations

from dataclasses import dataclass, replace

from homeostat.domain.gate import Verdict

BLIND = (
    "An estimate rests on the model's own scores. It sees that other rows come; that the same rows have come to mean "
    "something else (concept drift) it can't see: only labels show that."
)


@dataclass(frozen=True, slots=True)
class Estimated:
    """A champion whose metric is estimated to have dropped in the window that ended at `end_ms`, while inputs that
    matter to it `drifted` there. `key` names the champion: one cause, however many windows say so."""

    key: str
    reason: str
    end_ms: int
    drifted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Estimate:
    """The value with the 95 % interval in which labels of the `n` rows are expected to put it. `reference`: what was
    measured on the holdout; `drop`: how much worse than that it is, with its standard error `error`. `reason`: why it
    is unknown."""

    metric: str
    value: float
    low: float
    high: float
    n: int
    reference: float
    drop: float
    error: float
    verdict: Verdict = Verdict.OK
    reason: str = ""

    def dropped(self) -> Estimate:
        return replace(self, verdict=Verdict.HARM)

    def __str__(self) -> str:
        if self.verdict is Verdict.UNKNOWN:
            return f"{self.metric} can't be estimated: {self.reason}"
        span = f"estimated {self.metric} {self.value:.3g} [{self.low:.3g}, {self.high:.3g}], {self.n:,} rows"
        said = f"{self.reference:.3g} on the holdout"
        return f"{span}: a drop from {said}" if self.verdict is Verdict.HARM else f"{span}; {said}"
