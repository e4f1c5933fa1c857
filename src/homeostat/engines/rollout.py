"""The rule of a release: which steps it takes, and what to do next. Pure: `decide` looks only at what it is given.

A new kind of step is one class and one row in `KINDS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import Protocol

from homeostat.domain.bundle import Backtest
from homeostat.domain.errors import ConfigError
from homeostat.domain.gate import Verdict
from homeostat.domain.policy import ReleasePolicy
from homeostat.domain.rollout import Do, Move, ReleaseStep, Rollout, Seen, Status, StepKind
from homeostat.domain.units import ALL, DAY_MS, show_duration, show_share

LEAST_SEEN = 50
"""A canary step in which the candidate would see fewer requests within `max_hold` is left out."""

TECHNICAL = ("errors", "slow")


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
    def overdue(self) -> bool:
        """`max_hold` counts from the moment at which a label of this step can be mature."""
        return self.elapsed_ms >= self.policy.max_hold + self.horizon_ms


class Kind(Protocol):
    """A kind of step. `written`: how the policy names it."""

    written: str

    def weight(self, word: str) -> int | None:
        """The candidate's share if `word` names this kind, else None."""
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

    def weight(self, word: str) -> int | None:
        return 0 if word == self.written else None

    def traffic(self, case: Case) -> tuple[int, bool]:
        return case.rollout.step.weight, False

    def next(self, case: Case) -> Move:
        if not case.seen.replayed:
            return Move(Do.HOLD, "Hold at backtest: recorded requests are put to both versions.")
        return _advance(case, case.seen.replayed.rstrip("."))


class Shadow:
    """The candidate answers nobody; it is scored on every row, after the answer."""

    written = "shadow"

    def weight(self, word: str) -> int | None:
        return 0 if word == self.written else None

    def traffic(self, case: Case) -> tuple[int, bool]:
        return case.rollout.step.weight, True

    def next(self, case: Case) -> Move:
        return _gather_then_advance(case)


class Canary(Shadow):
    """The candidate answers its share; each arm is scored on the other's rows too, so that every label is paired."""

    written = "a percentage below 100 (10%)"

    def weight(self, word: str) -> int | None:
        share = _percent(word)
        return share if share is not None and 0 < share < ALL else None


class Full:
    """The candidate answers all. The first version of a model starts here: there is nobody to compare it with."""

    written = "100%"

    def weight(self, word: str) -> int | None:
        return ALL if _percent(word) == ALL else None

    def traffic(self, case: Case) -> tuple[int, bool]:
        return ALL, case.rollout.champion is not None and case.rollout.index + 1 < len(case.rollout.steps)

    def next(self, case: Case) -> Move:
        rollout = case.rollout
        if not case.seen.ready:
            return Move(Do.HOLD, f"Hold at {rollout.step}: version {rollout.candidate.number} is still being loaded.")
        if rollout.index + 1 < len(rollout.steps):
            return _advance(case, "it answers all requests")
        return Move(Do.PROMOTE, f"Version {rollout.candidate.number} answers all requests{_first(rollout)}.")


class Probation:
    """The candidate answers all, and the old champion is scored beside it for one label horizon (`min_time` if that
    is longer): harm in that time moves the pointer back. Then the champion's shadow ends, then the record."""

    written = "probation"

    def weight(self, word: str) -> int | None:
        return ALL if word == self.written else None

    def traffic(self, case: Case) -> tuple[int, bool]:
        return ALL, self._left_ms(case) > 0

    def next(self, case: Case) -> Move:
        left = self._left_ms(case)
        if left > 0:
            return Move(Do.HOLD, f"Hold in probation for another {show_duration(left)}: {_summary(case.seen)}.")
        return Move(Do.PROMOTE, f"Promoted after probation: {_summary(case.seen)}.")

    def _left_ms(self, case: Case) -> int:
        return max(case.horizon_ms, case.policy.min_time) - case.elapsed_ms


KINDS: dict[StepKind, Kind] = {
    StepKind.BACKTEST: BacktestStep(),
    StepKind.SHADOW: Shadow(),
    StepKind.CANARY: Canary(),
    StepKind.FULL: Full(),
    StepKind.PROBATION: Probation(),
}


def plan(
    policy: ReleasePolicy, requests_per_day: float | None, first: bool, recorded: bool = True
) -> tuple[tuple[ReleaseStep, ...], tuple[str, ...]]:
    """The steps of a release, and notes on those left out. Without a champion (`first`) the candidate answers all at
    once; `requests_per_day` None: not known, then no step is left out for it; `recorded`: there are requests to put
    again. Errors: `ConfigError`."""
    steps = tuple(map(_step, policy.steps))
    _check_order(steps)
    if first:
        full = tuple(step for step in steps if step.kind is StepKind.FULL)
        return full, ("The first version of a model has no champion to be compared with: it answers at once.",)
    hold_days = policy.max_hold / DAY_MS
    kept, notes = [], []
    for step in steps:
        met = float("inf") if requests_per_day is None else requests_per_day * hold_days * step.weight / ALL
        if step.kind is StepKind.CANARY and met < LEAST_SEEN:
            at = f"at {requests_per_day:.3g} requests a day the candidate would see {met:.0f}"
            notes.append(f"Step {step} is left out: {at} in {show_duration(policy.max_hold)}, {LEAST_SEEN} are needed.")
        elif step.kind is StepKind.BACKTEST and not recorded:
            notes.append("Step backtest is left out: the log holds no request of the last week.")
        else:
            kept.append(step)
    return tuple(kept), tuple(notes)


def _step(word: str) -> ReleaseStep:
    for kind, rule in KINDS.items():
        weight = rule.weight(word.strip())
        if weight is not None:
            return ReleaseStep(kind, weight)
    known = ", ".join(rule.written for rule in KINDS.values())
    raise ConfigError(f"unknown step {word!r}", where="release.steps", way_out=f"The steps are: {known}.")


def _percent(word: str) -> int | None:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", word)
    return round(float(match[1]) * 100) if match else None


def _check_order(steps: Sequence[ReleaseStep]) -> None:
    places = [(list(KINDS).index(step.kind), step.weight) for step in steps]
    full = sum(step.kind is StepKind.FULL for step in steps)
    if full != 1 or any(a >= b for a, b in pairwise(places)):
        raise ConfigError(
            f"the steps {', '.join(map(str, steps)) or '(none)'} are no way up",
            where="release.steps",
            way_out="Write backtest, shadow, growing percentages, 100%, probation; only 100% must be there.",
        )


def decide(rollout: Rollout, seen: Seen, policy: ReleasePolicy, label_horizon_ms: int) -> Move:
    """What to do next; never raises. The first rule that has something to say decides.

    - A promoted release keeps its place in the routing document until a person takes it back.
    - A person's rollback or reject, then harm or a hard stop: the traffic goes back to the champion in one pass, the
      record follows in the next. `on_harm: pause` leaves the record waiting for a person instead.
    - A backtest moves no traffic, and waits for nobody to load the candidate.
    - The candidate gets traffic only while the data plane has it loaded.
    - An invalid lane freezes weight and record.
    - Traffic is brought to what the step needs.
    - A step ends after `min_time`, when the candidate has seen `min_requests` or a day has passed, if the technical
      lanes are bounded or the policy says `accept_unknown`. A next step above `cap_without_labels`, and 100 %, need
      settled quality besides (`_settled`).
    - What isn't settled by `max_hold` plus one label horizon is settled by `on_unknown`.
    """
    case = Case(rollout, seen, policy, label_horizon_ms)
    rules: tuple[Callable[[Case], Move | None], ...] = (_over, _ordered, _harmed, _approved, _unready, _frozen, _routed)
    for rule in rules:
        move = rule(case)
        if move is not None:
            return move
    return KINDS[rollout.step.kind].next(case)


def _over(case: Case) -> Move | None:
    rollout, seen = case.rollout, case.seen
    if rollout.status is not Status.PROMOTED:
        return None if rollout.status.open else Move(Do.HOLD, f"Release {rollout.id} is over: {rollout.status.value}.")
    if seen.person == "rollback" and rollout.champion is not None:
        return _ordered(case)
    if (seen.weight, seen.shadow) != (ALL, False):
        return Move(Do.ROUTE, f"Version {rollout.candidate.number} is the champion: all traffic to it.", ALL)
    return Move(Do.HOLD, f"Version {rollout.candidate.number} serves.")


def _ordered(case: Case) -> Move | None:
    ends = {"rollback": Do.ROLL_BACK, "reject": Do.REJECT}
    if case.seen.person not in ends:
        return None
    return _withdraw(case, ends[case.seen.person], case.seen.person_reason or f"a person said {case.seen.person}")


def _harmed(case: Case) -> Move | None:
    harm = [f"{lane.name}: {lane.reason}" for lane in case.seen.lanes if lane.verdict is Verdict.HARM]
    reasons = [case.seen.hard_stop] if case.seen.hard_stop else harm
    excuse = "approve" if case.rollout.step.kind is StepKind.BACKTEST else "resume"  # what was recorded stays as it is
    if not reasons or (case.policy.on_harm == "pause" and case.seen.person == excuse):
        return None
    if case.policy.on_harm != "pause":
        return _withdraw(case, Do.ROLL_BACK, "; ".join(reasons))
    if case.rollout.status is Status.WAITING and not (case.seen.weight or case.seen.shadow):
        return Move(Do.HOLD, f"Waiting for a person: {case.rollout.reason}")
    return _withdraw(case, Do.ASK, "; ".join(reasons))


def _withdraw(case: Case, end: Do, reason: str) -> Move:
    """Traffic first; once the candidate gets none, the record."""
    return Move(Do.ROUTE if case.seen.weight or case.seen.shadow else end, reason)


def _approved(case: Case) -> Move | None:
    rollout, why = case.rollout, case.seen.person_reason or "no reason given"
    if case.seen.person == "resume":
        return Move(Do.ADVANCE, f"Resumed at {rollout.step} by a person: {why}", to=rollout.index)
    if case.seen.person != "approve" or any(lane.verdict is Verdict.INVALID for lane in case.seen.lanes):
        return None
    if rollout.index + 1 < len(rollout.steps):
        return _advance(case, f"approved by a person: {why}")
    return None if rollout.champion else Full().next(case)


def _unready(case: Case) -> Move | None:
    """A candidate that is not loaded everywhere gets no traffic, as long as somebody else can answer."""
    if case.seen.ready or case.rollout.champion is None or case.rollout.step.kind is StepKind.BACKTEST:
        return None
    reason = f"version {case.rollout.candidate.number} is not loaded by the data plane"
    if case.seen.weight or not case.seen.shadow:
        return Move(Do.ROUTE, f"No traffic to the candidate: {reason}.", 0, True)
    return _unsettled(case, reason)


def _frozen(case: Case) -> Move | None:
    invalid = [lane for lane in case.seen.lanes if lane.verdict is Verdict.INVALID]
    if not invalid:
        return None
    return _unsettled(case, "; ".join(f"{lane.name} could not be measured: {lane.reason}" for lane in invalid))


def _routed(case: Case) -> Move | None:
    weight, shadow = KINDS[case.rollout.step.kind].traffic(case)
    if (case.seen.weight, case.seen.shadow) == (weight, shadow):
        return None
    beside = ", the other version scored in shadow" if shadow else ""
    return Move(Do.ROUTE, f"{show_share(weight)} of the traffic to the candidate{beside}.", weight, shadow)


def _gather_then_advance(case: Case) -> Move:
    seen, policy = case.seen, case.policy
    if not seen.requests:
        return _hold(case, "no traffic")
    if case.elapsed_ms < policy.min_time:
        return _hold(case, f"a step lasts at least {show_duration(policy.min_time)}")
    if seen.requests < policy.min_requests and case.elapsed_ms < DAY_MS:
        return _hold(case, f"{seen.requests} of {policy.min_requests} requests seen{_expected(case)}")
    open_lanes = [lane for lane in map(seen.lane, TECHNICAL) if lane is not None and not lane.bounded]
    if open_lanes and not policy.accept_unknown:
        return _unsettled(case, f"{open_lanes[0].name} not yet bounded: {open_lanes[0].reason}")
    if not _needs_quality(case):
        return _advance(case, _summary(seen))
    settled = _settled(case)
    return _advance(case, settled) if settled else _unsettled(case, _doubt(case))


def _expected(case: Case) -> str:
    missing = case.policy.min_requests - case.seen.requests
    left = min(missing * case.elapsed_ms // case.seen.requests, DAY_MS - case.elapsed_ms)
    return f", expected in {show_duration(left)}"


def _needs_quality(case: Case) -> bool:
    following = case.rollout.steps[case.rollout.index + 1 :]
    return not following or following[0].kind is StepKind.FULL or following[0].weight > case.policy.cap_without_labels


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
    if case.policy.on_unknown != "best_estimate":
        return ""
    enough = case.seen.mature_labels >= (1 if case.overdue else max(case.policy.min_requests, 1))
    if not enough or lane.value is None or not isfinite(lane.value):
        return ""
    mean, n, tested = lane.value, case.seen.mature_labels, ""
    if case.seen.backtest is not None:
        mean, n = _together(mean, n, case.seen.backtest)
        tested = f", {case.seen.backtest.n} of them from the backtest"
    if mean > 0:
        return ""
    return f"by the best estimate, mean difference of the loss {mean:.3g} over {n} labels{tested}: {lane.reason}"


def _together(mean: float, n: int, backtest: Backtest) -> tuple[float, int]:
    both = n + backtest.n
    return (mean * n + backtest.mean * backtest.n) / both, both


def _doubt(case: Case) -> str:
    lane = case.seen.lane("quality")
    needed = f"{case.seen.mature_labels} of at least {case.policy.min_requests} mature labels"
    return f"quality is not settled, {needed}: {lane.reason if lane else 'not measured'}"


def _unsettled(case: Case, reason: str) -> Move:
    """Hold while there is time; then as `on_unknown` says. `best_estimate` goes on only where `_settled` found so."""
    if not case.overdue:
        return _hold(case, reason)
    late = f"{reason}, after {show_duration(case.elapsed_ms)}"
    invalid = any(lane.verdict is Verdict.INVALID for lane in case.seen.lanes)
    if case.policy.on_unknown == "best_estimate" and case.rollout.champion is not None:
        settled = "" if invalid or not case.seen.ready else _settled(case)
        return _advance(case, settled) if settled else Move(Do.REJECT, f"Rejected: {late}.")
    if case.policy.on_unknown == "person" and case.rollout.status is not Status.WAITING:
        return Move(Do.ASK, f"A person must decide: {late}.")
    return _hold(case, late)


def _advance(case: Case, because: str) -> Move:
    to = min(case.rollout.index + 1, len(case.rollout.steps) - 1)
    return Move(Do.ADVANCE, f"{case.rollout.step} → {case.rollout.steps[to]}: {because}.", to=to)


def _hold(case: Case, because: str) -> Move:
    return Move(Do.HOLD, f"Hold at {case.rollout.step}: {because}; {_summary(case.seen)}.")


def _summary(seen: Seen) -> str:
    said = [f"{lane.name}: {lane.reason}" for lane in seen.lanes if lane.name != "sample_ratio"]
    return "; ".join(said) or "nothing measured yet"


def _first(rollout: Rollout) -> str:
    return "" if rollout.champion else ": it is the model's first"
