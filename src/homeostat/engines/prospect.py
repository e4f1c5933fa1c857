"""What would change a release's verdict, and when: lanes forecast from the log, the rule asked about the future."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from homeostat.domain.gate import Verdict
from homeostat.domain.outlook import Assumed, Forecast, Outlook, Pace, Turn
from homeostat.domain.policy import ReleasePolicy
from homeostat.domain.prediction import Role
from homeostat.domain.rollout import Do, Lane, Move, Rollout, Seen
from homeostat.domain.units import ALL, DAY_MS, MINUTE_MS
from homeostat.engines import evidence, lanes
from homeostat.engines.evidence import Count
from homeostat.engines.forecast import (
    FARTHEST_MS,
    Course,
    Paired,
    Ratio,
    forecast,
    paired_course,
    ratio_course,
)
from homeostat.engines.rollout import decide

ENOUGH = 20
"""So many rows or labels make a rate."""

LEAST_LABELS = 10
"""Fewer of them say nothing of their distribution."""


@dataclass(frozen=True, slots=True)
class Present:
    """What is there now: a release, what was seen, the rows and labels behind it."""

    rollout: Rollout
    seen: Seen
    case: lanes.Case
    log: pl.DataFrame
    labels: pl.DataFrame


def look_ahead(now: Present, policy: ReleasePolicy) -> Outlook:
    """Every forecast, and the rule's next move under each assumption."""
    rows = lanes.compared(now.case, now.log)
    states = _states(now, rows)
    forecasts, paces = [], []
    for lane, state in states:
        for assumed in Assumed:
            course = course_of(state, assumed)
            forecasts.append(forecast(lane.name, assumed, course, now.case.now_ms))
            paces += [Pace(lane.name, course.pace * DAY_MS)] if assumed is Assumed.AS_NOW else []
    requests = _requests_per_ms(now, rows)
    labels = next((state for _, state in states if isinstance(state, Paired)), None)
    future = Future(now.rollout, now.seen, policy, now.case.horizon_ms, requests, labels)
    turns = [future.turn(assumed, [one for one in forecasts if one.assumed is assumed]) for assumed in Assumed]
    return Outlook(now.case.now_ms, requests * DAY_MS, paces, forecasts, turns)


def course_of(state: Ratio | Paired, assumed: Assumed) -> Course:
    return ratio_course(state, assumed) if isinstance(state, Ratio) else paired_course(state, assumed)


def _states(now: Present, rows: pl.DataFrame) -> list[tuple[Lane, Ratio | Paired]]:
    """The lanes of which something can be said: not decided for good, with events to go by."""
    states: dict[str, Ratio | Paired | None] = {
        "errors": _ratio(now, lanes.error_counts(rows), rows, 1.0, lanes.ERRORS_ALPHA),
        "quality": _paired(now, rows),
    }
    if now.case.slow_us:
        calls = lanes.shared(lanes.calls(rows, now.case.slow_us))
        counts = lanes.slow_counts(calls)
        states["slow"] = _ratio(now, counts, calls, lanes.SLOW_RATIO, lanes.SLOW_ALPHA)
    open_lanes = (lane for lane in now.seen.lanes if lane.verdict not in (Verdict.HARM, Verdict.INVALID))
    found = [(lane, states.get(lane.name)) for lane in open_lanes]
    return [(lane, state) for lane, state in found if state is not None]


def _ratio(now: Present, counts: Sequence[Count], tried: pl.DataFrame, r0: float, alpha: float) -> Ratio | None:
    fresh, span_ms = _recent(now, tried)
    if not counts or not fresh.height:
        return None
    flow = {share: n / span_ms for share, n in _by_share(fresh).items()}
    return Ratio(counts, counts, _by_share(tried), flow, r0, alpha, now.case.bound)


def _by_share(rows: pl.DataFrame) -> dict[int, int]:
    return dict(rows.group_by("share").len().sort("share").iter_rows())


def _recent(now: Present, rows: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The rows that tell the present rate, and the time they took: those of this step, of the last day at most; of
    the whole release while there are too few."""
    end = now.case.now_ms
    for since in (max(now.rollout.step_ms, end - DAY_MS), now.rollout.started_ms):
        fresh = rows.filter(pl.col("at_ms") >= since)
        if fresh.height >= ENOUGH:
            break
    return fresh, max(end - _first_ms(fresh, end), 1)


def _first_ms(rows: pl.DataFrame, otherwise: int) -> int:
    return int(rows["at_ms"].to_numpy().min(initial=otherwise))


def _paired(now: Present, rows: pl.DataFrame) -> Paired | None:
    """The pace is that at which the labelled rows of the last day were served: labels may come in heaps."""
    pairs = lanes.paired(now.case, rows, now.labels)
    if pairs.height < LEAST_LABELS:
        return None
    served = rows.unique("id", keep="first").select("id", "at_ms").join(pairs, on="id", how="semi")
    last = int(served["at_ms"].to_numpy().max())
    fresh = served.filter(pl.col("at_ms") >= last - DAY_MS)
    first_ripe = _first_ms(rows, now.case.now_ms) + now.case.horizon_ms
    return Paired(
        known=evidence.tally(pairs["difference"].to_numpy()),
        mature=evidence.tally(pairs.filter("mature")["difference"].to_numpy()),
        margin=now.case.margin,
        alpha=lanes.QUALITY_ALPHA * (1 - evidence.EARLY if now.case.classes else 1),
        pace=fresh.height / max(last - _first_ms(fresh, last), 1),
        wait_ms=max(first_ripe - now.case.now_ms, 0),
    )


def _requests_per_ms(now: Present, rows: pl.DataFrame) -> float:
    """How many the candidate sees: all in shadow, else its share."""
    fresh, span_ms = _recent(now, rows.filter(pl.col("role") == Role.ANSWER.value))
    return fresh["id"].n_unique() / span_ms * (now.rollout.step.weight or ALL) / ALL


@dataclass(frozen=True, slots=True)
class Future:
    """The rule is asked what it will do: with the requests, labels and verdicts that are to be expected by then.
    `requests`: a millisecond, that the candidate sees; `stop`: the hard stop due after `stop_ms`, "" for none."""

    rollout: Rollout
    seen: Seen
    policy: ReleasePolicy
    horizon_ms: int
    requests: float
    labels: Paired | None
    stop: str = ""
    stop_ms: int = 0

    def turn(self, assumed: Assumed, forecasts: Sequence[Forecast]) -> Turn:
        """The first move that is not "hold", to the minute."""
        before = 0
        for after in _ahead():
            move = self._move(after, forecasts)
            if move.do is not Do.HOLD:
                return self._first(assumed, forecasts, before, after)
            before = after
        return Turn(assumed, None, None)

    def _first(self, assumed: Assumed, forecasts: Sequence[Forecast], before: int, after: int) -> Turn:
        while after - before > MINUTE_MS:
            middle = (before + after) // 2
            held = self._move(middle, forecasts).do is Do.HOLD
            before, after = (middle, after) if held else (before, middle)
        return Turn(assumed, self.seen.now_ms + after, self._move(after, forecasts))

    def _move(self, after: int, forecasts: Sequence[Forecast]) -> Move:
        """A change of the traffic is taken for made: what follows from it is what is asked."""
        seen = self._seen(after, forecasts)
        for _ in range(3):
            move = decide(self.rollout, seen, self.policy, self.horizon_ms)
            if move.do is not Do.ROUTE:
                break
            seen = replace(seen, weight=move.weight, shadow=move.shadow)
        return move

    def _seen(self, after: int, forecasts: Sequence[Forecast]) -> Seen:
        seen, at_ms = self.seen, self.seen.now_ms + after
        due = {one.lane: one.verdict for one in forecasts if one.at_ms is not None and one.at_ms <= at_ms}
        ripe = max(after - self.labels.wait_ms, 0) * self.labels.pace if self.labels else 0
        return replace(
            seen,
            now_ms=at_ms,
            requests=seen.requests + int(self.requests * after),
            mature_labels=seen.mature_labels + int(ripe),
            lanes=tuple(_then(lane, due.get(lane.name)) for lane in seen.lanes),
            hard_stop=seen.hard_stop or (self.stop if after >= self.stop_ms else ""),
        )


def _then(lane: Lane, verdict: Verdict | None) -> Lane:
    if verdict is None:
        return lane
    return replace(lane, verdict=verdict, bounded=verdict is Verdict.OK)


def _ahead() -> Iterator[int]:
    """Now, then in steps that grow from a minute to days."""
    yield 0
    yield from (int(ms) for ms in np.geomspace(MINUTE_MS, FARTHEST_MS, 300))
