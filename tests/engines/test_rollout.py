"""The rule of a release, by literals, and over random evidence in every state."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.domain.bundle import Backtest, Version
from homeostat.domain.errors import ConfigError
from homeostat.domain.gate import Verdict
from homeostat.domain.policy import ReleasePolicy
from homeostat.domain.rollout import Do, Lane, Move, ReleaseStep, Rollout, Seen, Status, StepKind
from homeostat.domain.units import DAY_MS, HOUR_MS
from homeostat.engines.rollout import MOVES, after, decide
from homeostat.engines.steps import KINDS, plan, with_shadow

STEPS = (
    ReleaseStep(StepKind.SHADOW, 0),
    ReleaseStep(StepKind.CANARY, 1_000),
    ReleaseStep(StepKind.CANARY, 5_000),
    ReleaseStep(StepKind.FULL, 10_000),
    ReleaseStep(StepKind.PROBATION, 10_000),
)
OLD, NEW = Version("price", 1, "a" * 64, "run-1"), Version("price", 2, "b" * 64, "run-2")
ROLLOUT = Rollout("R2", "price", OLD, NEW, STEPS, 1, Status.RUNNING, 0, 0, "salt", 0)
POLICY = ReleasePolicy()
QUIET = Lane("errors", Verdict.UNKNOWN, "no harm seen (E = .9, harm at 100)")
SEEN = Seen(DAY_MS, 1_000, True, True, 500, (QUIET,))


def quality(verdict: Verdict = Verdict.UNKNOWN, value: float | None = None, bounded: bool = False) -> Lane:
    return Lane("quality", verdict, "measured", 200, 1.0, 50.0, value, -0.1, 0.1, bounded)


def move(rollout: Rollout = ROLLOUT, policy: ReleasePolicy = POLICY, **seen: Any) -> Move:
    return decide(rollout, replace(SEEN, **seen), policy, DAY_MS)


def test_at_48_requests_a_day_one_canary_step_is_left() -> None:
    steps, notes = plan(POLICY, 48, first=False)
    assert [str(step) for step in steps] == ["backtest", "shadow", "50 %", "100 %", "probation"]
    assert notes[1] == ("Step 10 % is left out: at 48 requests a day the candidate would see 34 in 7 d, 50 are needed.")
    assert plan(POLICY, 100_000, first=False) == plan(POLICY, None, first=False)
    assert [str(step) for step in plan(POLICY, 48, first=True)[0]] == ["100 %"]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (
            ("shadow", "experiment", "100%"),
            r"(?s)unknown step 'experiment'.*backtest, shadow, a .*100%, probation",
        ),
        (("shadow", "0%", "100%"), "unknown step '0%'"),
        (("shadow", "150%", "100%"), "unknown step '150%'"),
        (("shadow", "10%"), "no way up"),
        (("10%", "shadow", "100%"), "no way up"),
        (("shadow", "backtest", "100%"), "no way up"),
        (("50%", "10%", "100%"), "no way up"),
        ((), "no way up"),
    ],
)
def test_steps_that_can_not_be_are_errors(steps: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(ReleasePolicy(steps=steps), 48, first=False)


def test_every_kind_of_step_has_a_rule() -> None:
    assert set(KINDS) == set(StepKind)


def test_a_step_waits_for_time_and_requests_and_says_so() -> None:
    assert "a step lasts at least 30 min" in move(now_ms=1_000).reason
    assert "no traffic" in move(requests=0, now_ms=30 * DAY_MS).reason
    waiting = move(requests=20, now_ms=8 * HOUR_MS)
    assert (waiting.do, "20 of 50 requests seen, expected in 12 h" in waiting.reason) == (Do.HOLD, True)
    assert move(requests=20, policy=replace(POLICY, cap_without_labels=5_000)) == Move(
        Do.ADVANCE, "10 % → 50 %: errors: no harm seen (E = .9, harm at 100).", to=2
    )


def test_without_accept_unknown_the_technical_lanes_must_be_bounded() -> None:
    strict = ReleasePolicy(accept_unknown=False, cap_without_labels=5_000)
    assert move(policy=strict).do is Do.HOLD
    assert move(policy=strict, lanes=(replace(QUIET, bounded=True, verdict=Verdict.OK),)).do is Do.ADVANCE


@pytest.mark.parametrize(
    ("on_unknown", "lane", "day", "labels", "expected"),
    [
        ("person", quality(bounded=True, verdict=Verdict.OK), 1, 200, Do.ADVANCE),
        ("person", quality(value=-0.1), 1, 200, Do.HOLD),
        ("person", quality(value=-0.1), 8, 200, Do.ASK),
        ("hold", quality(value=-0.1), 8, 200, Do.HOLD),
        ("best_estimate", quality(value=-0.1), 1, 200, Do.ADVANCE),
        ("best_estimate", quality(value=0.0), 1, 50, Do.ADVANCE),
        ("best_estimate", quality(value=-0.1), 1, 49, Do.HOLD),
        ("best_estimate", quality(value=-0.1), 8, 1, Do.ADVANCE),
        ("best_estimate", quality(value=0.001), 1, 200, Do.HOLD),
        ("best_estimate", quality(value=0.001), 8, 200, Do.REJECT),
        ("best_estimate", quality(value=float("nan")), 8, 200, Do.REJECT),
        ("best_estimate", quality(), 8, 0, Do.REJECT),
        ("best_estimate", quality(Verdict.INVALID, -0.1), 1, 200, Do.HOLD),
        ("best_estimate", quality(Verdict.INVALID, -0.1), 8, 200, Do.REJECT),
        ("person", quality(Verdict.INVALID, bounded=True), 8, 200, Do.ASK),
    ],
)
def test_quality_settles_what_lies_above_the_cap(
    on_unknown: str, lane: Lane, day: int, labels: int, expected: Do
) -> None:
    policy = replace(POLICY, on_unknown=on_unknown)
    seen = {"policy": policy, "lanes": (QUIET, lane), "now_ms": day * DAY_MS, "mature_labels": labels}
    first = move(**seen)
    if expected is Do.REJECT:  # the traffic goes first
        assert (first.do, first.weight, first.shadow) == (Do.ROUTE, 0, False)
        first = move(**seen, weight=0, shadow=False)
    assert first.do is expected


@pytest.mark.parametrize(
    ("live", "labels", "backtest", "expected"),
    [
        (0.01, 50, Backtest("old", -0.02, 100), Do.ADVANCE),  # together -0.01
        (-0.01, 50, Backtest("old", 0.02, 100), Do.HOLD),
        (-0.01, 100, Backtest("old", 0.02, 100), Do.ADVANCE),  # each live label takes the place of one
        (-0.01, 49, Backtest("old", -0.02, 1_000), Do.HOLD),  # a backtest alone settles nothing
        (float("nan"), 50, Backtest("old", -0.02, 1_000), Do.HOLD),
    ],
)
def test_the_best_estimate_is_of_live_labels_and_backtest_together(
    live: float, labels: int, backtest: Backtest, expected: Do
) -> None:
    policy = replace(POLICY, on_unknown="best_estimate")
    lanes = (QUIET, quality(value=live))
    seen = move(policy=policy, lanes=lanes, now_ms=DAY_MS, mature_labels=labels, backtest=backtest)
    assert seen.do is expected


CHALLENGER = replace(ROLLOUT, index=0, by="trigger background:abc:96")


@pytest.mark.parametrize("on_unknown", ["person", "hold", "best_estimate"])
def test_a_challenger_of_the_background_answers_nobody_until_it_is_shown_to_be_better(on_unknown: Any) -> None:
    policy = replace(POLICY, on_unknown=on_unknown, cap_without_labels=10_000)

    def shadow(shadowed: bool = True, **seen: Any) -> Move:
        return move(CHALLENGER, policy, weight=0, shadow=shadowed, mature_labels=200, **seen)

    promising = (quality(value=-0.1),)
    assert shadow(lanes=promising).do is Do.HOLD
    assert shadow(lanes=(quality(bounded=True, verdict=Verdict.OK),)).do is Do.ADVANCE
    late = {"lanes": promising, "now_ms": 8 * DAY_MS}
    assert (shadow(**late).do, shadow(**late).shadow) == (Do.ROUTE, False)
    assert shadow(shadowed=False, **late).do is Do.SUPERSEDE
    assert move(replace(CHALLENGER, index=1), policy, lanes=promising).do is Do.ADVANCE  # from here on like any other


def test_a_challenger_of_the_background_gives_way_while_it_answers_nobody() -> None:
    assert CHALLENGER.gives_way
    assert not replace(CHALLENGER, index=1).gives_way
    assert not replace(CHALLENGER, by="trigger performance:abc:0").gives_way
    harm = (quality(Verdict.HARM),)
    paused = replace(POLICY, on_harm="pause")
    assert move(CHALLENGER, paused, weight=0, shadow=False, lanes=harm).do is Do.ROLL_BACK
    assert move(ROLLOUT, paused, weight=0, shadow=False, lanes=harm).do is Do.ASK


def test_a_challenger_of_the_background_is_in_shadow_whatever_the_policy_says() -> None:
    for steps, expected in (
        (("100%",), ["shadow", "100 %"]),
        (("pause", "backtest", "10%", "100%"), ["pause at 0 %", "backtest", "shadow", "10 %", "100 %"]),
        (("shadow", "100%"), ["shadow", "100 %"]),
    ):
        made, _ = plan(with_shadow(ReleasePolicy(steps=steps)), None, first=False)
        assert [str(step) for step in made] == expected


def test_a_person_is_asked_once() -> None:
    assert move(replace(ROLLOUT, status=Status.WAITING), now_ms=8 * DAY_MS, lanes=(quality(),)).do is Do.HOLD


def test_approval_ends_a_step_but_not_over_harm() -> None:
    assert move(person="approve", person_reason="ada: fine").to == 2
    assert move(person="approve", hard_stop="half of the first 20 rows were bad").weight == 0


def test_a_pause_takes_the_traffic_then_waits() -> None:
    pause = replace(POLICY, on_harm="pause")
    assert move(policy=pause, hard_stop="bad") == Move(Do.ROUTE, "bad")
    assert move(policy=pause, hard_stop="bad", weight=0, shadow=False) == Move(Do.ASK, "bad")
    waiting = replace(ROLLOUT, status=Status.WAITING, reason="bad")
    assert move(waiting, pause, hard_stop="bad", weight=0, shadow=False).do is Do.HOLD
    assert move(waiting, pause, person="resume", weight=0, shadow=False).to == 1


def test_only_a_loaded_candidate_gets_traffic() -> None:
    assert move(ready=False) == Move(
        Do.ROUTE, "No traffic to the candidate: version 2 is not loaded by the data plane.", 0, True
    )
    assert move(ready=False, weight=0).do is Do.HOLD


def test_full_then_probation_then_the_shadow_ends_then_the_record() -> None:
    full, probation = replace(ROLLOUT, index=3), replace(ROLLOUT, index=4)
    assert move(full) == Move(
        Do.ROUTE, "100 % of the traffic to the candidate, the other version scored in shadow.", 10_000, True
    )
    assert move(full, weight=10_000).to == 4
    assert move(probation, weight=10_000, now_ms=DAY_MS - 1).do is Do.HOLD
    assert move(probation, weight=10_000) == Move(Do.ROUTE, "100 % of the traffic to the candidate.", 10_000, False)
    assert move(probation, weight=10_000, shadow=False).do is Do.PROMOTE


def test_a_promoted_release_keeps_its_route_until_a_person_takes_it_back() -> None:
    promoted = replace(ROLLOUT, status=Status.PROMOTED, index=4)
    assert move(promoted, weight=10_000, shadow=False).do is Do.HOLD
    assert move(promoted, weight=0, shadow=False) == Move(
        Do.ROUTE, "Version 2 is the champion: all traffic to it.", 10_000, False
    )
    back = {"person": "rollback", "person_reason": "ada: complaints"}
    assert move(promoted, weight=10_000, shadow=False, **back) == Move(Do.ROUTE, "ada: complaints")
    assert move(promoted, weight=0, shadow=False, **back) == Move(Do.ROLL_BACK, "ada: complaints")


numbers = st.floats(allow_nan=True, allow_infinity=True) | st.none()
lanes = st.builds(
    Lane,
    st.sampled_from(["errors", "slow", "sample_ratio", "quality"]),
    st.sampled_from(Verdict),
    st.just("why"),
    n=st.integers(0, 10**6),
    value=numbers,
    low=numbers,
    high=numbers,
    bounded=st.booleans(),
)
sights = st.builds(
    Seen,
    now_ms=st.integers(-DAY_MS, 40 * DAY_MS),
    weight=st.sampled_from([0, 1_000, 5_000, 10_000]) | st.integers(0, 10_000),
    shadow=st.booleans(),
    ready=st.booleans(),
    requests=st.integers(0, 1_000),
    lanes=st.lists(lanes, max_size=4).map(tuple),
    hard_stop=st.sampled_from(["", "", "first rows bad"]),
    mature_labels=st.integers(0, 1_000),
    backtest=st.none() | st.builds(Backtest, st.just("old"), st.floats(-1, 1), st.integers(1, 10_000)),
    person=st.sampled_from(["", "", "approve", "reject", "rollback", "resume"]),
    back=st.sampled_from(["", "", "it is not loaded"]),
    newer=st.sampled_from(["", "", "release R3"]),
    replayed=st.sampled_from(["", "No harm seen."]),
)
policies = st.builds(
    ReleasePolicy,
    on_unknown=st.sampled_from(["person", "hold", "best_estimate"]),
    on_harm=st.sampled_from(["rollback", "pause"]),
    accept_unknown=st.booleans(),
    min_requests=st.integers(0, 500),
    min_time=st.integers(0, DAY_MS),
    max_hold=st.integers(0, 9 * DAY_MS),
    cap_without_labels=st.integers(0, 10_000),
)
WAY = (ReleaseStep(StepKind.BACKTEST, 0), *STEPS)
rollouts = st.builds(
    lambda index, status, champion: replace(ROLLOUT, steps=WAY, index=index, status=status, champion=champion),
    st.integers(0, len(WAY) - 1),
    st.sampled_from(Status),
    st.sampled_from([OLD, OLD, None]),
)


@given(rollouts, sights, policies, st.integers(0, 7 * DAY_MS))
def test_over_random_evidence_the_rule_keeps_its_promises(
    rollout: Rollout, seen: Seen, policy: ReleasePolicy, horizon: int
) -> None:
    if rollout.status is Status.QUEUED:  # nothing is routed for it yet
        seen = replace(seen, weight=0, shadow=False)
    made = decide(rollout, seen, policy, horizon)
    verdicts = {lane.verdict for lane in seen.lanes}
    assert made.reason
    assert made == decide(rollout, seen, policy, horizon)
    if made.do is Do.ROUTE:
        assert (made.weight, made.shadow) != (seen.weight, seen.shadow)
        assert made.weight in (0, rollout.step.weight, 10_000 if rollout.status is Status.PROMOTED else 0)
        assert not made.weight or seen.ready or rollout.champion is None or rollout.status is Status.PROMOTED
    assert made.do in (Do.HOLD, Do.ROUTE) or after(rollout, made, seen.now_ms).reason == made.reason
    if rollout.status is Status.QUEUED:
        assert made.do in (Do.ADVANCE, Do.REJECT, Do.SUPERSEDE)
        return
    if made.do in (Do.ADVANCE, Do.PROMOTE):
        assert rollout.status.open
        assert Verdict.INVALID not in verdicts or seen.person == "resume"
        past = rollout.step.kind is StepKind.BACKTEST and rollout.status is Status.WAITING and seen.person == "approve"
        assert seen.person == "resume" or past or (not seen.hard_stop and Verdict.HARM not in verdicts)
        assert 0 <= made.to <= rollout.index + 1
    if made.do is Do.ADVANCE and made.to < len(WAY) and WAY[made.to].weight > policy.cap_without_labels:
        earned = seen.lane("quality") or quality()
        estimate = policy.on_unknown == "best_estimate" and earned.value is not None and seen.mature_labels > 0
        if estimate and seen.backtest is None:
            assert earned.bounded or seen.person or rollout.step.kind is StepKind.FULL or (earned.value or 0) <= 0
        full = rollout.step.kind is StepKind.FULL
        assert full or seen.person in ("approve", "resume") or earned.bounded or estimate
    if not rollout.status.open and rollout.status is not Status.PROMOTED:
        assert made.do is Do.HOLD


ALL_KINDS = ("backtest", "shadow", "10%", "hold 1d", "50%", "pause", "100%", "probation")
EVERY, _ = plan(ReleasePolicy(steps=ALL_KINDS), None, first=False)
"""A step of each kind."""
IN_FORCE = ((0, True), (1_000, True), (5_000, True), (5_000, False), (10_000, True), (10_000, False))
LANES = ("errors", "slow", "sample_ratio", "quality", "hard stop")


def harmed(lane: str, **seen: Any) -> Seen:
    if lane == "hard stop":
        return replace(SEEN, hard_stop="harm", **seen)
    return replace(SEEN, lanes=(QUIET, Lane(lane, Verdict.HARM, "harm")), **seen)


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("index", range(len(EVERY)))
def test_harm_in_any_lane_ends_the_release_in_every_open_state(index: int, lane: str) -> None:
    """All of them: each kind of step, running or waiting, whatever is in force, ready or not, ordered, queued behind
    it, early or late, under every policy that doubt or a newer release can have."""
    assert {step.kind for step in EVERY} == set(KINDS)
    orders = ("", "approve", "resume")
    unknown = ("person", "hold", "best_estimate")
    states = product((Status.RUNNING, Status.WAITING), (True, False), orders, ("", "R3"), (0, 90 * DAY_MS), unknown)
    for status, ready, person, newer, now, on_unknown in states:
        rollout = replace(ROLLOUT, steps=EVERY, index=index, status=status)
        policy, rest = replace(POLICY, on_unknown=on_unknown), {"ready": ready, "person": person, "newer": newer}
        for weight, shadow in IN_FORCE:
            seen = harmed(lane, weight=weight, shadow=shadow, now_ms=now, **rest)
            first = decide(rollout, seen, policy, DAY_MS)
            assert (first.do, first.weight, first.shadow) == (Do.ROUTE, 0, False)
            waits = decide(rollout, replace(seen, back="version 1 must be loaded first"), policy, DAY_MS)
            assert (waits.do, "must be loaded first" in waits.reason) == (Do.HOLD, True)
            paused = decide(rollout, replace(seen, person=""), replace(policy, on_harm="pause"), DAY_MS)
            assert (paused.do, paused.weight, paused.shadow) == (Do.ROUTE, 0, False)
        bare = harmed(lane, weight=0, shadow=False, now_ms=now, **rest)
        then = decide(rollout, bare, policy, DAY_MS)
        assert (then.do, "harm" in then.reason) == (Do.ROLL_BACK, True)
        assert after(rollout, then, now).status is Status.ROLLED_BACK
        asks = decide(rollout, replace(bare, person=""), replace(policy, on_harm="pause"), DAY_MS)
        asked = Do.ROLL_BACK if newer else Do.ASK if status is Status.RUNNING else Do.HOLD
        assert asks.do is asked


def test_every_state_has_its_moves_and_the_final_ones_have_none() -> None:
    assert set(MOVES) == set(Status)
    assert {do for moves in MOVES.values() for do in moves} == set(Do) - {Do.HOLD, Do.ROUTE}
    final = {status for status in Status if not MOVES[status]}
    assert final == {Status.ROLLED_BACK, Status.REJECTED, Status.SUPERSEDED}


@pytest.mark.parametrize(
    "steps",
    [
        ("hold 1d", "100%"),
        ("backtest", "pause", "hold 1d", "100%"),
        ("shadow", "100%", "probation", "hold 1d"),
        ("shadow", "hold", "100%"),
    ],
)
def test_a_hold_needs_a_time_and_a_step_before_it(steps: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        plan(ReleasePolicy(steps=steps), None, first=False)


def test_a_step_that_could_see_nothing_is_left_out() -> None:
    steps, notes = plan(ReleasePolicy(steps=("backtest", "1%", "hold 1d", "100%")), 48, first=False, recorded=False)
    assert [str(step) for step in steps] == ["100 %"]
    assert notes[0] == "Step backtest is left out: the log holds no request of the last week."
    assert notes[2] == "Step hold of 1 d at 1 % is left out: there is no traffic to hold."


def test_a_pause_stays_when_the_step_before_it_is_left_out() -> None:
    steps, _ = plan(ReleasePolicy(steps=("shadow", "1%", "pause", "50%", "100%")), 48, first=False)
    assert [str(step) for step in steps] == ["shadow", "pause at 0 %", "50 %", "100 %"]


def test_hold_and_pause_keep_the_traffic_of_the_step_before_them() -> None:
    hold, pause = replace(ROLLOUT, steps=EVERY, index=3), replace(ROLLOUT, steps=EVERY, index=5)
    assert move(hold, weight=0) == Move(
        Do.ROUTE, "10 % of the traffic to the candidate, the other version scored in shadow.", 1_000, True
    )
    assert "a step lasts at least 1 d" in move(hold, now_ms=DAY_MS - 1).reason
    assert move(hold, now_ms=DAY_MS, policy=replace(POLICY, cap_without_labels=5_000)).to == 4
    assert move(pause, weight=5_000).do is Do.ASK
    assert move(replace(pause, status=Status.WAITING), weight=5_000).do is Do.HOLD
    assert move(replace(pause, status=Status.WAITING), weight=5_000, person="approve").to == 6
    first = replace(pause, index=0, steps=(EVERY[5], *EVERY[:5]))
    assert move(first, weight=0, shadow=False, ready=False).do is Do.ASK  # nobody needs it loaded yet


def test_a_backtest_needs_no_traffic_and_promotes_nobody() -> None:
    tried = replace(ROLLOUT, steps=EVERY, index=0)
    bare = {"weight": 0, "shadow": False, "ready": False, "requests": 0}
    assert move(tried, **bare, now_ms=90 * DAY_MS).reason.startswith("Hold at backtest")
    fine = Lane("quality", Verdict.OK, "not worse", 9_999, bounded=True)
    assert move(tried, **bare, lanes=(fine,), replayed="No harm seen.") == Move(
        Do.ADVANCE, "backtest → shadow: No harm seen.", to=1
    )
    assert move(tried, **bare, person="approve").to == 1


def test_only_who_has_seen_the_harm_of_a_backtest_lets_it_go_on() -> None:
    pause, tried = replace(POLICY, on_harm="pause"), replace(ROLLOUT, steps=EVERY, index=0)
    seen = {"weight": 0, "shadow": False, "hard_stop": "bad", "replayed": "Harm.", "person": "approve"}
    assert move(tried, pause, **seen) == Move(Do.ASK, "bad")
    assert move(replace(tried, status=Status.WAITING), pause, **seen).to == 1
    assert move(replace(tried, status=Status.WAITING), **seen).do is Do.ROLL_BACK


def test_an_approval_in_the_last_step_waits_until_the_candidate_answers() -> None:
    last = replace(ROLLOUT, index=4)
    assert move(last, weight=10_000, person="approve", ready=False).do is Do.ROUTE
    assert move(last, weight=5_000, person="approve").weight == 10_000
    assert move(last, weight=10_000, person="approve", now_ms=HOUR_MS).do is Do.PROMOTE
