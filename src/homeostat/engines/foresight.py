"""How a live release would go, and how long each step would take, if what comes is like what was recorded.

There is no second rule here: `rollout.decide` is asked about evidence that grows as the recorded rates say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from homeostat.domain.backtest import Expected
from homeostat.domain.gate import Verdict
from homeostat.domain.policy import ReleasePolicy
from homeostat.domain.rollout import Do, Lane, Rollout, Seen, StepKind
from homeostat.domain.units import ALL, DAY_MS
from homeostat.engines import evidence, lanes
from homeostat.engines import rollout as rule
from homeostat.engines.evidence import Count

Array = NDArray[np.float64]
_TIMES = 40  # moments at which a step is looked at, evenly on a logarithmic scale
_SOON_MS = 60_000
_ENDS = {Do.ADVANCE: "goes on", Do.PROMOTE: "promoted", Do.ASK: "a person is asked", Do.ROUTE: "rolled back"}


@dataclass(frozen=True, slots=True)
class Rates:
    """What was recorded. `bad`: failures a request, of the candidate and of the champion; `hard_stop`: what they end a
    release with; `labelled`: labels a request; `differences`: the `tally` of the paired differences of the losses."""

    per_day: float
    bad: tuple[float, float]
    hard_stop: str
    labelled: float
    differences: Array

    def requests(self, ms: int) -> float:
        return self.per_day * ms / DAY_MS


def expected(release: Rollout, rates: Rates, policy: ReleasePolicy, horizon_ms: int) -> tuple[Expected, ...]:
    """Step by step, until one of them ends the release; a step that only holds ends it too. `release`: of the steps to
    be foreseen, at any of them."""
    found: list[Expected] = []
    before: list[Count] = []
    gone_ms = 0
    for index, step in enumerate(release.steps):
        here = replace(release, index=index, started_ms=-gone_ms, step_ms=0)
        for ms in _times(rates, policy, horizon_ms, step.weight):
            seen = _seen(here, rates, policy, horizon_ms, before, ms)
            move = rule.decide(here, seen, policy, horizon_ms)
            if move.do is not Do.HOLD:  # the traffic is as the step needs it: to move it is to withdraw it
                break
        found.append(Expected(str(step), _ENDS.get(move.do, move.do.value), ms, move.reason))
        if move.do is not Do.ADVANCE:
            break
        before += _counts(step.kind, step.weight, rates, ms)
        gone_ms += ms
    return tuple(found)


def _times(rates: Rates, policy: ReleasePolicy, horizon_ms: int, weight: int) -> list[int]:
    """Moments at which the rule may change its mind, and some between them; the last is when a step is overdue."""
    last = max(policy.max_hold + horizon_ms, policy.min_time, horizon_ms, DAY_MS)
    enough = policy.min_requests / rates.per_day * DAY_MS * ALL / (weight or ALL)
    turns = {0, policy.min_time, horizon_ms, DAY_MS, policy.max_hold + horizon_ms, round(enough) + 1, last}
    between = np.geomspace(_SOON_MS, max(last, 2 * _SOON_MS), _TIMES).astype(np.int64).tolist()
    return sorted(ms for ms in {*turns, *between} if ms <= last)


def _seen(
    release: Rollout, rates: Rates, policy: ReleasePolicy, horizon_ms: int, before: Sequence[Count], ms: int
) -> Seen:
    """What there would be to see, so long after the step began."""
    step, gone_ms = release.step, ms - release.started_ms
    share = step.weight / ALL if step.kind is StepKind.CANARY else 1.0
    labels = rates.labelled * rates.requests(max(gone_ms - horizon_ms, 0))
    bound = lanes.BOUND if step.weight <= lanes.CAREFUL else lanes.BOUND_ABOVE
    found = (
        _errors([*before, *_counts(step.kind, step.weight, rates, ms)], bound),
        _quality(rates.differences, labels, policy.margin),
    )
    stop = rates.hard_stop if rates.requests(ms) * rates.bad[0] >= 1 else ""
    seen = Seen(ms, 0, False, True, int(rates.requests(ms) * share), found, stop, int(labels))
    weight, shadow = rule.KINDS[step.kind].traffic(rule.Case(release, seen, policy, horizon_ms))
    return replace(seen, weight=weight, shadow=shadow)


def _counts(kind: StepKind, weight: int, rates: Rates, ms: int) -> Iterator[Count]:
    """Bad answers and bad shadow scores of a step."""
    n, (mine, theirs) = rates.requests(ms), rates.bad
    if kind is not StepKind.CANARY:
        yield Count(ALL // 2, round(n * mine), round(n * theirs))
        return
    share = weight / ALL
    yield Count(weight, round(n * mine * share), round(n * theirs * (1 - share)))
    yield Count(ALL - weight, round(n * mine * (1 - share)), round(n * theirs * share))


def _errors(counts: Sequence[Count], bound: float) -> Lane:
    e, threshold = evidence.ratio_evidence(counts), 1 / lanes.ERRORS_ALPHA
    bounded = evidence.ratio_below(counts, bound) >= 1 / lanes.PASS_ALPHA
    n = sum(count.candidate + count.champion for count in counts)
    verdict = Verdict.HARM if e >= threshold else Verdict.OK if bounded else Verdict.UNKNOWN
    told = f"about {n:,} bad answers by then (E = {lanes.number(e)}, harm at {threshold:,.0f})"
    return Lane("errors", verdict, told, n, e, threshold, bounded=bounded)


def _quality(differences: Array, labels: float, margin: float) -> Lane:
    known = float(differences.sum())
    if not known:
        told = "no label of the backtest says how the two compare"
        return Lane("quality", Verdict.UNKNOWN, told)
    grown = differences * (labels / known)
    e, threshold = evidence.mean_evidence(grown), 1 / lanes.QUALITY_ALPHA
    bounded = evidence.mean_below(grown, margin) >= 1 / lanes.PASS_ALPHA
    verdict = Verdict.HARM if e >= threshold else Verdict.OK if bounded else Verdict.UNKNOWN
    mean = float(differences @ np.linspace(-1, 1, evidence.CELLS)) / known
    told = f"about {labels:,.0f} mature labels by then (E = {lanes.number(e)}, harm at {threshold:.0f}), "
    told += f"mean difference of the loss {lanes.number(mean)}, margin {lanes.number(margin)}"
    return Lane("quality", verdict, told, int(labels), e, threshold, mean if labels >= 1 else None, bounded=bounded)
