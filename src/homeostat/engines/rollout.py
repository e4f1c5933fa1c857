"""The rule of a release: every state, every move, and what to do next. Pure: `decide` looks at nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from homeostat.domain.gate import Verdict
from homeostat.domain.policy import ReleasePolicy
from homeostat.domain.rollout import Do, Move, Rollout, Seen, Status, StepKind
from homeostat.domain.units import ALL, show_share
from homeostat.engines.steps import KINDS, Case, advance, unsettled

_ENDS = {Do.ROLL_BACK: Status.ROLLED_BACK, Do.REJECT: Status.REJECTED, Do.SUPERSEDE: Status.SUPERSEDED}
_OUT = (Do.REJECT, Do.SUPERSEDE)
_OPEN = {Do.ADVANCE: Status.RUNNING, Do.PROMOTE: Status.PROMOTED, **_ENDS}
MOVES: dict[Status, dict[Do, Status]] = {
    Status.QUEUED: {Do.ADVANCE: Status.RUNNING, Do.REJECT: Status.REJECTED, Do.SUPERSEDE: Status.SUPERSEDED},
    Status.RUNNING: {Do.ASK: Status.WAITING, **_OPEN},
    Status.WAITING: _OPEN,
    Status.PROMOTED: {Do.ROLL_BACK: Status.ROLLED_BACK},
    Status.ROLLED_BACK: {},
    Status.REJECTED: {},
    Status.SUPERSEDED: {},
}
"""Every state of a record and every move that changes it. ROUTE and HOLD are possible in each and change none."""


def after(rollout: Rollout, move: Move, now_ms: int) -> Rollout:
    """The record once the move is made. KeyError for a move that `MOVES` does not have."""
    status = MOVES[rollout.status][move.do]
    if move.do is Do.ADVANCE:
        return replace(rollout, index=move.to, step_ms=now_ms, status=status, reason=move.reason)
    ended = None if status.open else now_ms
    return replace(rollout, status=status, ended_ms=ended, reason=move.reason)


def decide(rollout: Rollout, seen: Seen, policy: ReleasePolicy, label_horizon_ms: int) -> Move:
    """What to do next; never raises. The first rule that has something to say decides.

    - A promoted release keeps its place in the routing document until a person takes it back.
    - A queued one starts, unless a person rejects it or a newer one takes its place. (Who calls sees to it that
      nothing else is open then.)
    - A person's rollback or reject, then harm or a hard stop: the traffic goes back to the champion in one pass, the
      record follows in the next. `on_harm: pause` leaves the record waiting for a person instead, unless a newer
      release waits for its place. The traffic goes back only to a version that the data plane has loaded.
    - A newer release, or an experiment, takes the place of one that does not answer everybody yet.
    - An approval ends the step; in the last one, once its traffic is as it should be, the release.
    - The candidate gets traffic only while the data plane has it loaded.
    - An invalid lane freezes weight and record.
    - Traffic is brought to what the step needs.
    - A step ends after `min_time` (a Hold after its own), when the candidate has seen `min_requests` or a day has
      passed, if the technical lanes are bounded or the policy says `accept_unknown`. A next step above
      `cap_without_labels`, and 100 %, need settled quality besides. A Pause ends when a person approves.
    - What isn't settled by `max_hold` plus one label horizon is settled by `on_unknown`.
    - A challenger of the background leaves shadow only when it is shown to be better; what isn't by then ends as if a
      newer release took its place. Harm asks nobody there.
    """
    case = Case(rollout, seen, policy, label_horizon_ms)
    for rule in RULES:
        move = rule(case)
        if move is not None:
            return move
    return KINDS[rollout.step.kind].next(case)


def _over(case: Case) -> Move | None:
    rollout, seen = case.rollout, case.seen
    if rollout.status is not Status.PROMOTED:
        over = not (rollout.status.open or rollout.status is Status.QUEUED)
        return Move(Do.HOLD, f"Release {rollout.id} is over: {rollout.status.value}.") if over else None
    if seen.person == "rollback" and rollout.champion is not None:
        return _ordered(case)
    if (seen.weight, seen.shadow) != (ALL, False):
        return Move(Do.ROUTE, f"Version {rollout.candidate.number} is the champion: all traffic to it.", ALL)
    return Move(Do.HOLD, f"Version {rollout.candidate.number} serves.")


def _ordered(case: Case) -> Move | None:
    seen, ends = case.seen, {"rollback": Do.ROLL_BACK, "reject": Do.REJECT}
    if seen.person not in ends:
        return None
    end = Do.REJECT if case.rollout.status is Status.QUEUED else ends[seen.person]
    return _withdraw(case, end, seen.person_reason or f"a person said {seen.person}")


def _queued(case: Case) -> Move | None:
    seen = case.seen
    if case.rollout.status is not Status.QUEUED:
        return None
    if seen.hard_stop:
        return Move(Do.REJECT, seen.hard_stop)
    starts = f"Version {case.rollout.candidate.number} starts."
    return Move(Do.SUPERSEDE, _superseded_by(seen.newer)) if seen.newer else Move(Do.ADVANCE, starts)


def _harmed(case: Case) -> Move | None:
    harm = [f"{lane.name}: {lane.reason}" for lane in case.seen.lanes if lane.verdict is Verdict.HARM]
    reason = case.seen.hard_stop or "; ".join(harm)
    if not reason or _excused(case):
        return None
    if case.policy.on_harm != "pause" or case.seen.newer or case.rollout.gives_way:
        return _withdraw(case, Do.ROLL_BACK, reason)
    if case.rollout.status is Status.WAITING and not (case.seen.weight or case.seen.shadow):
        return Move(Do.HOLD, f"Waiting for a person: {reason}")
    return _withdraw(case, Do.ASK, reason)


def _excused(case: Case) -> bool:
    """A person has seen the harm and lets the release go on: with the evidence counted anew, or past its backtest,
    since what was recorded stays as it is."""
    if case.policy.on_harm != "pause":
        return False
    past = case.rollout.step.kind is StepKind.BACKTEST and case.rollout.status is Status.WAITING
    return case.seen.person == ("approve" if past else "resume")


def _superseded(case: Case) -> Move | None:
    newer = case.seen.newer
    if not newer or max(case.rollout.step.weight, case.seen.weight) == ALL:
        return None
    return _withdraw(case, Do.SUPERSEDE, _superseded_by(newer))


def _superseded_by(newer: str) -> str:
    return f"Superseded by {newer}."


def _withdraw(case: Case, end: Do, reason: str) -> Move:
    """Traffic first; once the candidate gets none, the record."""
    if not (case.seen.weight or case.seen.shadow):
        return Move(end, reason)
    if case.seen.back:
        return Move(Do.HOLD, f"To be taken back ({reason}), but {case.seen.back}.")
    return Move(Do.ROUTE, reason)


def _approved(case: Case) -> Move | None:
    if case.seen.person == "resume":
        why = case.seen.person_reason or "no reason given"
        return Move(Do.ADVANCE, f"Resumed at {case.rollout.step} by a person: {why}", to=case.rollout.index)
    return None if case.last else _concluded(case)


def _concluded(case: Case) -> Move | None:
    """An approval in the last step waits until the candidate answers."""
    if case.seen.person != "approve" or any(lane.verdict is Verdict.INVALID for lane in case.seen.lanes):
        return None
    if case.last and not case.seen.ready:
        return None
    return advance(case, f"approved by a person: {case.seen.person_reason or 'no reason given'}")


def _unready(case: Case) -> Move | None:
    """A candidate that is not loaded everywhere gets no traffic, as long as somebody else can answer."""
    if case.seen.ready or case.rollout.champion is None or not any(_needed(case)):
        return None
    reason = f"version {case.rollout.candidate.number} is not loaded by the data plane"
    move = _out_first(case, unsettled(case, reason))
    if move.do in (Do.HOLD, Do.ASK) and (case.seen.weight or not case.seen.shadow):
        return Move(Do.ROUTE, f"No traffic to the candidate: {reason}.", 0, True)
    return move


def _needed(case: Case) -> tuple[int, bool]:
    return KINDS[case.rollout.step.kind].traffic(case)


def _frozen(case: Case) -> Move | None:
    invalid = [lane for lane in case.seen.lanes if lane.verdict is Verdict.INVALID]
    if not invalid:
        return None
    reason = "; ".join(f"{lane.name} could not be measured: {lane.reason}" for lane in invalid)
    return _out_first(case, unsettled(case, reason))


def _late(case: Case) -> Move | None:
    """What ends the release is asked before the traffic is brought to what the step needs: it would go to and fro."""
    move = KINDS[case.rollout.step.kind].next(case)
    return _out_first(case, move) if move.do in _OUT else None


def _out_first(case: Case, move: Move) -> Move:
    return _withdraw(case, move.do, move.reason) if move.do in _OUT else move


def _routed(case: Case) -> Move | None:
    weight, shadow = _needed(case)
    if (case.seen.weight, case.seen.shadow) == (weight, shadow):
        return None
    beside = ", the other version scored in shadow" if shadow else ""
    return Move(Do.ROUTE, f"{show_share(weight)} of the traffic to the candidate{beside}.", weight, shadow)


RULES: tuple[Callable[[Case], Move | None], ...] = (
    _over,
    _ordered,
    _queued,
    _harmed,
    _superseded,
    _approved,
    _unready,
    _frozen,
    _late,
    _routed,
    _concluded,
)
"""In the order in which they are asked."""
