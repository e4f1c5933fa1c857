"""How a live release would go, step by step, if what comes is like what was recorded.

Nothing is foretold here. The evidence that there would be when a step begins is continued by `forecast`, and the rule
is asked about that future, as for a release under way (`prospect`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from homeostat.domain.backtest import Expected
from homeostat.domain.gate import Verdict
from homeostat.domain.outlook import Assumed, Forecast
from homeostat.domain.policy import ReleasePolicy
from homeostat.domain.rollout import Do, Lane, Rollout, Seen
from homeostat.domain.units import ALL, DAY_MS
from homeostat.engines import lanes
from homeostat.engines.evidence import CELLS, EARLY, Array, Count
from homeostat.engines.forecast import Course, Paired, Ratio, forecast, paired_course, ratio_course
from homeostat.engines.prospect import LEAST_LABELS, Future
from homeostat.engines.report.outlook import more
from homeostat.engines.steps import KINDS, Case

BOTH = ALL // 2
"""The candidate's share of what both versions were asked."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What was recorded: `n` requests that both were asked, `bad` of them by the candidate and by the champion;
    `hard_stop`: what those end a release with; `per_day`: requests in live traffic; `labelled`: labels a request;
    `differences`: the `tally` of the paired differences of the losses."""

    n: int
    bad: tuple[int, int]
    hard_stop: str
    per_day: float
    labelled: float
    differences: Array


def itinerary(release: Rollout, rates: Rates, policy: ReleasePolicy, horizon_ms: int) -> tuple[Expected, ...]:
    """Step by step, until one of them does not lead to the next. `release`: of the steps to be foreseen."""
    way, found = _Way(rates, policy, horizon_ms), list[Expected]()
    for index in range(len(release.steps)):
        found.append(way.step(replace(release, index=index, started_ms=0, step_ms=way.now_ms)))
        if found[-1].do is not Do.ADVANCE:
            break
    return tuple(found)


class _Way:
    """Where the release would be by now (`now_ms` after its start), and with which evidence."""

    def __init__(self, rates: Rates, policy: ReleasePolicy, horizon_ms: int) -> None:
        self.rates, self.policy, self.horizon_ms = rates, policy, horizon_ms
        self.pace = rates.per_day / DAY_MS
        self.now_ms, self.counts = 0, list[Count]()

    def step(self, release: Rollout) -> Expected:
        """Go through it."""
        bare = Seen(self.now_ms, 0, False, True, 0, mature_labels=int(self._labels()))
        weight, shadow = KINDS[release.step.kind].traffic(Case(release, bare, self.policy, self.horizon_ms))
        ratio, paired = self._ratio(lanes.bound(release.step.weight), weight, shadow), self._paired()
        failing = ratio_course(ratio, Assumed.AS_NOW) if ratio else None
        erring = paired_course(paired, Assumed.AS_NOW) if paired else None
        forecasts = [*self._forecast("errors", failing), *self._forecast("quality", erring)]
        seen = replace(bare, weight=weight, shadow=shadow, lanes=self._lanes(forecasts))
        asked = self.pace * (weight or ALL) / ALL if weight or shadow else 0.0
        stop, stop_ms = self._stop(shadow)
        future = Future(release, seen, self.policy, self.horizon_ms, asked, paired, stop, stop_ms)
        turn = future.turn(Assumed.AS_NOW, forecasts)
        if turn.at_ms is None or turn.move is None:
            return Expected(str(release.step), None, None, "")
        took = turn.at_ms - self.now_ms
        self._pass(took, ratio, failing)
        return Expected(str(release.step), turn.move.do, took, turn.move.reason)

    def _ratio(self, bound: float, weight: int, shadow: bool) -> Ratio | None:
        """Of errors: both versions are asked everything, except where nothing is scored in shadow."""
        if not (shadow and any(self.rates.bad)):
            return None
        apart = weight not in (0, BOTH, ALL)
        flow = {weight: self.pace, ALL - weight: self.pace} if apart else {BOTH: 2 * self.pace}
        known = [Count(BOTH, *self.rates.bad)]
        return Ratio(self.counts, known, {BOTH: 2 * self.rates.n}, flow, 1.0, lanes.ERRORS_ALPHA, bound)

    def _paired(self) -> Paired | None:
        """A label is taken to come at the label horizon."""
        known, wait = self.rates.differences, max(self.horizon_ms - self.now_ms, 0)
        pace = self.pace * self.rates.labelled
        if not pace or known.sum() < LEAST_LABELS:
            return None
        grown = known * (self._labels() / known.sum())
        ripe = lanes.QUALITY_ALPHA * (1 - EARLY)  # of classes; numbers have a little more
        return Paired(grown, known, self.policy.margin, ripe, pace, wait)

    def _labels(self) -> float:
        return self.pace * self.rates.labelled * max(self.now_ms - self.horizon_ms, 0)

    def _forecast(self, lane: str, course: Course | None) -> list[Forecast]:
        return [forecast(lane, Assumed.AS_NOW, course, self.now_ms)] if course else []

    def _lanes(self, forecasts: Sequence[Forecast]) -> tuple[Lane, ...]:
        """Undecided yet; the reason tells what is to be expected."""
        said = {one.lane: one for one in forecasts}
        means = {"quality": self._mean() if "quality" in said else None}
        return tuple(
            Lane(name, Verdict.UNKNOWN, more(said[name]) if name in said else "nothing to go by", value=means.get(name))
            for name in ("errors", "quality")
        )

    def _mean(self) -> float:
        known = self.rates.differences
        return float(known @ np.linspace(-1, 1, CELLS) / known.sum())

    def _stop(self, shadow: bool) -> tuple[str, int]:
        """When the candidate's first failure is due, where the champion answers the same."""
        each_ms = self.pace * self.rates.bad[0] / max(self.rates.n, 1)
        return (self.rates.hard_stop, round(1 / each_ms)) if shadow and each_ms else ("", 0)

    def _pass(self, took_ms: int, ratio: Ratio | None, failing: Course | None) -> None:
        """As much later, with the bad events of that time."""
        self.now_ms += took_ms
        if ratio is None or failing is None:
            return
        events = np.rint(failing.chances.mean(axis=0) * failing.pace * took_ms).astype(int).reshape(-1, 2)
        new = [Count(share, *pair) for share, pair in zip(ratio.flow, events.tolist(), strict=True)]
        self.counts = [*self.counts, *new]
