"""The kinds of step of a release: which traffic each needs, and what ends it. Pure.

A new kind of step is one class and one row in `KINDS`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import isfinite
from typing import Protocol

from homeostat.domain.bundle import Backtest
from homeostat.domain.errors import ConfigError
from homeostat.domain.gate import Verdict
from homeostat.domain.policy import ReleasePolicy
from homeostat.domain.rollout import STILL, Do, Move, ReleaseStep, Rollout, Seen, Status, StepKind
from homeostat.domain.units import ALL, DAY_MS, duration_ms, is_duration, show_duration

LEAST_SEEN = 50
"""A canary step in which the candidate would see fewer requests within `max_hold` is left out."""

TECHNICAL = ("errors", "slow")

WAY_UP = (
    "Write backtest, then shadow, growing percentages, 100% and probation; only 100% must be there. "
    "pause may come before any of them, hold once there is traffic to hold and before probation ends."
)


@dataclass(frozen=True, slots=True)
class Case:
    """One decision: the record, what was seen, the policy."""

    rollout: Rollout
    seen: Seen
    policy: ReleasePolicy
    horizon_ms: int

    @property
    def elapsed_ms(self) -> int:
        return max(self.seen.now_ms - self.rollout.step_ms, 0)

    @property
    def least_ms(self) -> int:
        return self.rollout.step.ms or self.policy.min_time

    @property
    def overdue(self) -> bool:
        """`max_hold` counts from the end of a Hold, and from when a label of this step can be mature."""
        return self.elapsed_ms >= self.rollout.step.ms + self.policy.max_hold + self.horizon_ms

    @property
    def last(self) -> bool:
        return self.rollout.index + 1 >= len(self.rollout.steps)


class Kind(Protocol):
    """A kind of step. `written`: how the policy names it."""

    written: str

    def read(self, word: str, before: int) -> ReleaseStep | None:
        """The step if `word` names one of this kind; `before`: the weight of the step before it."""
        ...

    def traffic(self, case: Case) -> tuple[int, bool]:
        """The weight and the shadow that this step needs now."""
        ...

    def next(self, case: Case) -> Move:
        """What to do once the traffic is as it should be and nothing is wrong."""
        ...


class BacktestStep:
    """Recorded requests through both versions, before any traffic: harm seen there ends the release. Anything else lets
    it go on, for a backtest promotes nobody."""

    written = "backtest"

    def read(self, word: str, before: int) -> ReleaseStep | None:
        del before
        return ReleaseStep(StepKind.BACKTEST, 0) if word == self.written else None

    def traffic(self, case: Case) -> tuple[int, bool]:
        return case.rollout.step.weight, False

    def next(self, case: Case) -> Move:
        if not case.seen.replayed:
            return Move(Do.HOLD, "Hold at backtest: recorded requests are put to both versions.")
        return advance(case, case.seen.replayed.rstrip("."))


class Shadow:
    """The candidate answers nobody; it is scored on every row, after the answer."""

    written = "shadow"

    def read(self, word: str, before: int) -> ReleaseStep | None:
        del before
        return ReleaseStep(StepKind.SHADOW, 0) if word == self.written else None

    def traffic(self, case: Case) -> tuple[int, bool]:
        return case.rollout.step.weight, True

    def next(self, case: Case) -> Move:
        return gather_then_advance(case)


class Canary(Shadow):
    """The candidate answers its share; each arm is scored on the other's rows too, so that every label is paired."""

    written = "a percentage below 100 (10%)"

    def read(self, word: str, before: int) -> ReleaseStep | None:
        del before
        share = _percent(word)
        return ReleaseStep(StepKind.CANARY, share) if share is not None and 0 < share < ALL else None


class Full:
    """The candidate answers all. The first version of a model starts here: there is nobody to compare it with."""

    written = "100%"

    def read(self, word: str, before: int) -> ReleaseStep | None:
        del before
        return ReleaseStep(StepKind.FULL, ALL) if _percent(word) == ALL else None

    def traffic(self, case: Case) -> tuple[int, bool]:
        return ALL, case.rollout.champion is not None and not case.last

    def next(self, case: Case) -> Move:
        rollout = case.rollout
        if not case.seen.ready:
            return Move(Do.HOLD, f"Hold at {rollout.step}: version {rollout.candidate.number} is still being loaded.")
        if not case.last:
            return advance(case, "it answers all requests")
        return Move(Do.PROMOTE, f"Version {rollout.candidate.number} answers all requests{_first(rollout)}.")


class Probation:
    """The candidate answers all, and the old champion is scored beside it for one label horizon (`min_time` if that
    is longer): harm in that time moves the pointer back. Then the champion's shadow ends, then the record."""

    written = "probation"

    def read(self, word: str, before: int) -> ReleaseStep | None:
        del before
        return ReleaseStep(StepKind.PROBATION, ALL) if word == self.written else None

    def traffic(self, case: Case) -> tuple[int, bool]:
        return ALL, self._left_ms(case) > 0

    def next(self, case: Case) -> Move:
        left = self._left_ms(case)
        if left > 0:
            return Move(Do.HOLD, f"Hold in probation for another {show_duration(left)}: {summary(case.seen)}.")
        return Move(Do.PROMOTE, f"Promoted after probation: {summary(case.seen)}.")

    def _left_ms(self, case: Case) -> int:
        return max(case.horizon_ms, case.policy.min_time) - case.elapsed_ms


class Pause:
    """The traffic stays as it is until a person approves."""

    written = "pause"

    def read(self, word: str, before: int) -> ReleaseStep | None:
        return ReleaseStep(StepKind.PAUSE, before) if word == self.written else None

    def traffic(self, case: Case) -> tuple[int, bool]:
        if not case.rollout.index:
            return 0, False
        before = replace(case, rollout=replace(case.rollout, index=case.rollout.index - 1))
        return KINDS[before.rollout.step.kind].traffic(before)

    def next(self, case: Case) -> Move:
        waits = f"a person must approve what follows the {case.rollout.step}: {summary(case.seen)}"
        if case.rollout.status is Status.WAITING:
            return Move(Do.HOLD, f"Waiting: {waits}.")
        return Move(Do.ASK, f"{waits[0].upper()}{waits[1:]}.")


class Hold(Pause):
    """The traffic stays as it is for the time given, and then until what every step must have seen is there."""

    written = "hold 1d"

    def read(self, word: str, before: int) -> ReleaseStep | None:
        name, _, time = word.partition(" ")
        if name != "hold" or not is_duration(time):
            return None
        return ReleaseStep(StepKind.HOLD, before, int(str(duration_ms(time))))

    def next(self, case: Case) -> Move:
        return gather_then_advance(case)


KINDS: dict[StepKind, Kind] = {
    StepKind.BACKTEST: BacktestStep(),
    StepKind.SHADOW: Shadow(),
    StepKind.CANARY: Canary(),
    StepKind.FULL: Full(),
    StepKind.PROBATION: Probation(),
    StepKind.HOLD: Hold(),
    StepKind.PAUSE: Pause(),
}


def plan(
    policy: ReleasePolicy, requests_per_day: float | None, first: bool, recorded: bool = True
) -> tuple[tuple[ReleaseStep, ...], tuple[str, ...]]:
    """The steps of a release, and notes on those left out. Without a champion (`first`) the candidate answers all at
    once; `requests_per_day` None: not known, then no step is left out for it; `recorded`: there are requests to put
    again. Errors: `ConfigError`."""
    steps = _steps(policy.steps)
    _check_order(steps)
    if first:
        full = tuple(step for step in steps if step.kind is StepKind.FULL)
        return full, ("The first version of a model has no champion to be compared with: it answers at once.",)
    hold_days = policy.max_hold / DAY_MS
    kept: list[ReleaseStep] = []
    notes: list[str] = []
    for step in steps:
        met = float("inf") if requests_per_day is None else requests_per_day * hold_days * step.weight / ALL
        if step.kind is StepKind.BACKTEST and not recorded:
            notes.append("Step backtest is left out: the log holds no request of the last week.")
        elif step.kind is StepKind.HOLD and not _moves(kept):
            notes.append(f"Step {step} is left out: there is no traffic to hold.")
        elif step.kind is StepKind.CANARY and met < LEAST_SEEN:
            at = f"at {requests_per_day:.3g} requests a day the candidate would see {met:.0f}"
            notes.append(f"Step {step} is left out: {at} in {show_duration(policy.max_hold)}, {LEAST_SEEN} are needed.")
        elif step.kind in STILL:
            kept.append(replace(step, weight=kept[-1].weight if kept else 0))
        else:
            kept.append(step)
    return tuple(kept), tuple(notes)


def with_shadow(policy: ReleasePolicy) -> ReleasePolicy:
    """The same, with a shadow step before any traffic."""
    words = [word.strip() for word in policy.steps]
    after = words.index(BacktestStep.written) + 1 if BacktestStep.written in words else 0
    added = policy.steps if Shadow.written in words else (*words[:after], Shadow.written, *words[after:])
    return replace(policy, steps=tuple(added))


def margin(policy: ReleasePolicy, rollout: Rollout) -> float:
    """The mean difference of losses up to which a candidate is not worse; one that must be better has none."""
    return 0.0 if rollout.gives_way else policy.margin


def _steps(words: Sequence[str]) -> tuple[ReleaseStep, ...]:
    steps: list[ReleaseStep] = []
    for word in words:
        steps.append(_step(word.strip(), steps[-1].weight if steps else 0))
    return tuple(steps)


def _step(word: str, before: int) -> ReleaseStep:
    for kind in KINDS.values():
        step = kind.read(word, before)
        if step is not None:
            return step
    known = ", ".join(kind.written for kind in KINDS.values())
    raise ConfigError(f"unknown step {word!r}", where="release.steps", way_out=f"The steps are: {known}.")


def _percent(word: str) -> int | None:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", word)
    return round(float(match[1]) * 100) if match else None


def _moves(steps: Sequence[ReleaseStep]) -> bool:
    """Whether one of them has the candidate see requests."""
    return any(step.kind not in (StepKind.BACKTEST, *STILL) for step in steps)


def _check_order(steps: Sequence[ReleaseStep]) -> None:
    moving = [step for step in steps if step.kind not in STILL]
    places = [(list(KINDS).index(step.kind), step.weight) for step in moving]
    full = sum(step.kind is StepKind.FULL for step in steps)
    kinds = [step.kind for step in steps]
    idle = any(step.kind is StepKind.HOLD and not _moves(steps[:i]) for i, step in enumerate(steps))
    idle = idle or StepKind.PROBATION in kinds[:-1]
    if full != 1 or idle or any(a >= b for a, b in pairwise(places)):
        raise ConfigError(
            f"the steps {', '.join(map(str, steps)) or '(none)'} are no way up",
            where="release.steps",
            way_out=WAY_UP,
        )


def gather_then_advance(case: Case) -> Move:
    """What Shadow, Canary and Hold must have seen before they end."""
    seen, policy = case.seen, case.policy
    if not seen.requests:
        return hold(case, "no traffic")
    if case.elapsed_ms < case.least_ms:
        return hold(case, f"a step lasts at least {show_duration(case.least_ms)}")
    if seen.requests < policy.min_requests and case.elapsed_ms < DAY_MS:
        return hold(case, f"{seen.requests} of {policy.min_requests} requests seen{_expected(case)}")
    open_lanes = [lane for lane in map(seen.lane, TECHNICAL) if lane is not None and not lane.bounded]
    if open_lanes and not policy.accept_unknown:
        return unsettled(case, f"{open_lanes[0].name} not yet bounded: {open_lanes[0].reason}")
    if not _needs_quality(case):
        return advance(case, summary(seen))
    settled = _settled(case)
    return advance(case, settled) if settled else unsettled(case, _doubt(case))


def _expected(case: Case) -> str:
    missing = case.policy.min_requests - case.seen.requests
    left = min(missing * case.elapsed_ms // case.seen.requests, DAY_MS - case.elapsed_ms)
    return f", expected in {show_duration(left)}"


def _needs_quality(case: Case) -> bool:
    """Before 100 %, and before more traffic than there is now and than the cap; before any, where nothing but its
    quality speaks for the candidate."""
    if case.last:
        return False
    if case.rollout.gives_way:
        return True
    following, now = case.rollout.steps[case.rollout.index + 1], case.rollout.step.weight
    return following.kind is StepKind.FULL or following.weight > max(now, case.policy.cap_without_labels)


def _settled(case: Case) -> str:
    """Why the candidate's quality is settled in its favour, "" while it isn't: it is non-inferior, or the policy goes
    by the best estimate and the mean paired difference, on mature labels and backtest together, is not above 0. At
    least `min_requests` of the labels are of live requests (any number of them, once overdue): a backtest alone, on
    data that may be wrong in the way the candidate is, lets nobody past the cap."""
    lane = case.seen.lane("quality")
    if lane is None or lane.verdict in (Verdict.HARM, Verdict.INVALID):
        return ""
    if lane.bounded:
        return lane.reason
    if case.policy.on_unknown != "best_estimate" or case.rollout.gives_way:
        return ""
    enough = case.seen.mature_labels >= (1 if case.overdue else max(case.policy.min_requests, 1))
    if not enough or lane.value is None or not isfinite(lane.value):
        return ""
    mean, n, tested = lane.value, case.seen.mature_labels, ""
    if case.seen.backtest is not None:
        mean, n, added = _together(mean, n, case.seen.backtest)
        tested = f", {added} of them from the backtest" if added else ""
    if mean > 0:
        return ""
    return f"by the best estimate, mean difference of the loss {mean:.3g} over {n} labels{tested}: {lane.reason}"


def _together(mean: float, n: int, backtest: Backtest) -> tuple[float, int, int]:
    """The mean over live labels and the backtest, of how many, and how many of those are the backtest's. Each live
    label takes the place of one: what was tested was not the candidate itself, but its twin before the refit."""
    added = max(backtest.n - n, 0)
    both = n + added
    return (mean * n + backtest.mean * added) / both, both, added


def _doubt(case: Case) -> str:
    lane = case.seen.lane("quality")
    needed = f"{case.seen.mature_labels} of at least {case.policy.min_requests} mature labels"
    return f"quality is not settled, {needed}: {lane.reason if lane else 'not measured'}"


def unsettled(case: Case, reason: str) -> Move:
    """Hold while there is time; then as `on_unknown` says. `best_estimate` goes on only where `_settled` found so. What
    was trained in the background makes room instead."""
    if not case.overdue:
        return hold(case, reason)
    late = f"{reason}, after {show_duration(case.elapsed_ms)}"
    if case.rollout.gives_way:
        return Move(Do.SUPERSEDE, f"Not shown to be better, so a newer one may come: {late}.")
    invalid = any(lane.verdict is Verdict.INVALID for lane in case.seen.lanes)
    if case.policy.on_unknown == "best_estimate" and case.rollout.champion is not None:
        settled = "" if invalid or not case.seen.ready else _settled(case)
        return advance(case, settled) if settled else Move(Do.REJECT, f"Rejected: {late}.")
    if case.policy.on_unknown == "person" and case.rollout.status is not Status.WAITING:
        return Move(Do.ASK, f"A person must decide: {late}.")
    return hold(case, late)


def advance(case: Case, because: str) -> Move:
    """To the next step; from the last one, to the end."""
    if case.last:
        return Move(Do.PROMOTE, f"Promoted after {case.rollout.step}: {because}.")
    to = case.rollout.index + 1
    return Move(Do.ADVANCE, f"{case.rollout.step} → {case.rollout.steps[to]}: {because}.", to=to)


def hold(case: Case, because: str) -> Move:
    return Move(Do.HOLD, f"Hold at {case.rollout.step}: {because}; {summary(case.seen)}.")


def summary(seen: Seen) -> str:
    said = [f"{lane.name}: {lane.reason}" for lane in seen.lanes if lane.name != "sample_ratio"]
    return "; ".join(said) or "nothing measured yet"


def _first(rollout: Rollout) -> str:
    return "" if rollout.champion else ": it is the model's first"
