"""Whole releases in a small world, and the same with a crash at every port call."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest

from homeostat.domain.errors import NotFound, Refused, UsageError
from homeostat.domain.event import Event
from homeostat.domain.policy import HooksPolicy, ReleasePolicy
from homeostat.domain.rollout import Arm, Do, Rollout, Status
from homeostat.domain.units import DAY_MS
from homeostat.engines.steps import KINDS, plan
from homeostat.services import backtest
from homeostat.services.release_log import Approval
from world import GOOD, HOUR_MS, MODEL, START_MS, Answer, Calls, Crash, World, failing, right

ESTIMATE = ReleasePolicy(on_unknown="best_estimate", max_hold=7 * DAY_MS)
BETTER = right(0.97)
WRITES = {"save", "append", "publish", "alias"}


def released(policy: ReleasePolicy, answer: Answer, days: int, per_day: int = 48) -> World:
    world = World(policy, per_day=per_day)
    world.promote_first()
    world.live(3 * DAY_MS)
    world.releases.start(world.version(2, answer))
    world.live(days * DAY_MS)
    return world


def last(world: World) -> Rollout:
    return world.releases.history()[-1]


def test_the_first_version_answers_at_once() -> None:
    world = World()
    first = world.promote_first()
    assert last(world).status is Status.PROMOTED
    assert world.route is not None
    assert (world.route.release, world.route.champion) == ("R1", Arm(1, first.bundle))
    assert (world.route.candidate, world.route.weight, world.aliases["champion"]) == (None, 0, 1)


def test_at_48_requests_a_day_a_better_candidate_is_in_full_within_four_days_and_promoted() -> None:
    world = released(ESTIMATE, BETTER, 6)
    record = last(world)
    assert [str(step) for step in record.steps] == ["shadow", "50 %", "100 %", "probation"]
    assert record.status is Status.PROMOTED
    full = next(event for event in world.journal.read(MODEL, "release.advanced") if event.body["step"] == "100 %")
    assert 2 * DAY_MS <= full.at_ms - record.started_ms <= 4 * DAY_MS
    assert world.route is not None
    assert (world.route.release, world.route.champion.version, world.route.candidate) == ("R2", 2, None)
    assert world.aliases == {"challenger": 2, "champion": 2}


def test_a_candidate_that_loses_by_the_best_estimate_is_rejected_and_its_bundle_refused() -> None:
    world = released(ESTIMATE, right(0.86, "d"), 9)
    record = last(world)
    assert record.status is Status.REJECTED
    assert world.route is not None
    assert (world.route.release, world.route.champion.version, world.route.candidate) == ("R1", 1, None)
    with pytest.raises(Refused, match="version 2 was refused"):
        world.releases.start(record.candidate)


@pytest.mark.parametrize(
    ("answer", "lane"), [(right(0.3), "quality"), (failing(0.5), "errors"), (failing(0.05, "nonfinite"), "non-finite")]
)
def test_harm_takes_the_traffic_back_and_the_record_says_why(answer: Answer, lane: str) -> None:
    world = released(ReleasePolicy(), answer, 5, per_day=480)
    record = last(world)
    assert record.status is Status.ROLLED_BACK
    assert lane in record.reason or "first 20 rows" in record.reason
    assert world.route is not None
    assert (world.route.release, world.route.champion.version, world.route.candidate) == ("R1", 1, None)
    (verdict,) = world.journal.read(MODEL, "release.verdict")
    assert verdict.text == record.reason


def test_a_person_is_asked_once_and_an_approval_goes_on() -> None:
    world = released(ReleasePolicy(max_hold=3 * DAY_MS), right(0.92), 5)
    assert last(world).status is Status.WAITING
    assert "A person must decide" in last(world).reason
    world.releases.order("R2", "approve", "looks right", "ada")
    world.settle()
    assert (last(world).status, last(world).index) == (Status.RUNNING, 1)
    assert "approved by a person: ada: looks right" in last(world).reason
    assert len(world.journal.read(MODEL, "release.waiting")) == 1


def test_a_person_ends_a_release_and_takes_a_promoted_one_back() -> None:
    world = released(ESTIMATE, BETTER, 6)
    with pytest.raises(UsageError, match="no order"):
        world.releases.order("R2", "undo", "", "ada")
    with pytest.raises(NotFound, match="R7"):
        world.releases.order("R7", "reject", "", "ada")
    with pytest.raises(Refused, match="was promoted"):
        world.releases.order("R1", "rollback", "", "ada")
    world.releases.order("R2", "rollback", "complaints", "ada")
    world.settle()
    assert last(world).status is Status.ROLLED_BACK
    assert world.route is not None
    assert (world.route.release, world.route.champion.version, world.aliases["champion"]) == ("R1", 1, 1)
    with pytest.raises(Refused, match="no earlier release"):
        world.releases.order("R1", "rollback", "", "ada")
    third = world.version(3, GOOD)
    world.releases.start(third)
    with pytest.raises(Refused, match="under way already"):
        world.releases.start(third)
    world.live(4 * HOUR_MS)
    world.releases.order("R3", "reject", "not needed", "ada")
    world.settle()
    assert last(world).status is Status.REJECTED
    assert world.route is not None
    assert (world.route.release, world.route.candidate) == ("R1", None)


def test_a_pause_keeps_the_record_open_and_an_approval_starts_the_evidence_anew() -> None:
    world = released(ReleasePolicy(on_harm="pause"), failing(0.5), 2, per_day=480)
    assert last(world).status is Status.WAITING
    assert world.route is not None
    assert world.route.candidate is None
    world.answers[2] = BETTER
    world.releases.order("R2", "approve", "the cause is mended", "ada")
    world.settle()
    assert (last(world).status, last(world).index) == (Status.RUNNING, 0)
    world.live(DAY_MS)
    assert last(world).index > 0


def test_the_verdict_stands_when_the_evidence_looks_better_a_moment_later() -> None:
    world = released(ReleasePolicy(), GOOD, 0, per_day=480)
    world.settle()
    world.answers[2] = failing(0.9)
    world.serve(2 * HOUR_MS)
    assert world.releases.reconcile().do is Do.ROUTE
    world.log.frame = world.log.frame.clear()
    world.restart()
    assert world.releases.reconcile().do is Do.ROLL_BACK


def test_uneven_labels_freeze_the_release() -> None:
    policy = ReleasePolicy(
        steps=("50%", "100%"), min_requests=200, on_unknown="best_estimate", cap_without_labels=10_000
    )
    world = World(policy, per_day=960)
    world.promote_first()
    world.live(DAY_MS)
    world.coverage = lambda _row, arm: arm == "champion"
    world.releases.start(world.version(2, BETTER))
    world.live(3 * DAY_MS)
    standing = world.releases.status()
    assert standing is not None
    assert standing.rollout.index == 0
    assert "labels do not come evenly" in standing.move.reason


def test_a_candidate_that_is_not_loaded_gets_no_traffic() -> None:
    world = released(ESTIMATE, BETTER, 3)
    assert world.route is not None
    assert world.route.weight == 5_000
    world.loaded.clear()
    world.settle()
    assert world.route is not None
    assert (world.route.weight, world.route.shadow) == (0, True)
    world.live(2 * HOUR_MS)
    assert world.route.weight == 5_000


def test_no_traffic_holds() -> None:
    world = released(ESTIMATE, BETTER, 0)
    world.settle()
    world.serve(1)
    world.now += 60 * DAY_MS
    move = world.releases.reconcile()
    assert (move.do, "no traffic" in move.reason) == (Do.HOLD, True)


def test_a_lost_routing_document_is_published_again() -> None:
    world = released(ESTIMATE, BETTER, 6)
    world.router._routing = replace(world.router._routing, routes={})
    world.settle()
    assert world.route is not None
    assert world.route.champion.version == 2


def test_the_traffic_goes_back_only_to_a_version_that_is_loaded() -> None:
    world = released(ESTIMATE, BETTER, 6)
    world.loaded = {last(world).candidate.bundle}
    world.releases.order("R2", "rollback", "complaints", "ada")
    world.settle()
    standing = world.releases.status()
    assert standing is not None
    assert (last(world).status, "version 1 must be loaded first" in standing.move.reason) == (Status.PROMOTED, True)
    world.loaded.add(world.releases.history()[0].candidate.bundle)
    world.settle()
    assert last(world).status is Status.ROLLED_BACK


def test_a_version_whose_bundle_is_lost_is_passed_over_on_the_way_back() -> None:
    world = released(ESTIMATE, BETTER, 6)
    world.releases.start(world.version(3, right(0.999)))
    world.live(6 * DAY_MS)
    first, second, third = world.releases.history()
    assert third.status is Status.PROMOTED
    world.loaded -= {first.candidate.bundle, second.candidate.bundle}
    del world.stored[second.candidate.bundle]
    world.releases.order("R3", "rollback", "complaints", "ada")
    world.settle()
    world.loaded.add(first.candidate.bundle)
    world.settle()
    assert [one.status for one in world.releases.history()] == [
        Status.PROMOTED,
        Status.ROLLED_BACK,
        Status.ROLLED_BACK,
    ]
    assert "can't be gone back to: no blob" in world.releases.history()[1].reason
    assert world.route is not None
    assert (world.route.release, world.route.champion.version) == ("R1", 1)


def test_a_newer_candidate_queues_and_starts_against_who_serves_then() -> None:
    world = released(ESTIMATE, BETTER, 1)
    world.releases.start(world.version(3, GOOD), by="ben")
    world.live(2 * HOUR_MS)
    assert [one.status for one in world.releases.history()[1:]] == [Status.RUNNING, Status.QUEUED]
    with pytest.raises(Refused, match="can only be rejected"):
        world.releases.order("R3", "approve", "", "ada")
    world.live(6 * DAY_MS)
    _, second, third = world.releases.history()
    assert second.status is Status.PROMOTED
    assert (third.champion, third.by) == (second.candidate, "ben")
    assert second.ended_ms is not None
    assert third.started_ms >= second.ended_ms


def test_a_newer_candidate_takes_the_place_of_one_that_does_not_answer_all() -> None:
    world = released(replace(ESTIMATE, newer="supersede"), BETTER, 3)
    assert world.route is not None
    assert world.route.weight == 5_000
    world.releases.start(world.version(3, GOOD))
    world.releases.start(world.version(4, GOOD))
    world.settle()
    _, second, third, fourth = world.releases.history()
    assert (second.status, second.reason) == (Status.SUPERSEDED, "Superseded by release R4.")
    assert (third.status, fourth.status) == (Status.SUPERSEDED, Status.RUNNING)
    assert (world.route.release, world.route.weight) == ("R4", 0)
    world.releases.order("R4", "reject", "", "ada")
    world.settle()
    world.releases.start(second.candidate)  # nothing was found wrong with it
    world.live(6 * DAY_MS)
    assert last(world).status is Status.PROMOTED


def test_a_refused_bundle_is_tried_again_only_for_a_reason_that_is_recorded() -> None:
    world = released(ESTIMATE, BETTER, 1)
    world.releases.order("R2", "reject", "wrong data", "ada")
    world.settle()
    refused = last(world).candidate
    with pytest.raises(Refused, match="was refused"):
        world.releases.start(refused)
    world.releases.start(refused, by="ben", despite="the data was right")
    world.settle()
    (started,) = world.journal.read(MODEL, "release.started", "R3")
    assert "ben let it in again: the data was right." in started.text
    world.releases.order("R3", "reject", "it was not", "ada")
    world.settle()
    with pytest.raises(Refused, match="release R3 was rejected"):
        world.releases.start(refused)


def test_a_person_ends_a_pause_and_a_hold_lasts_its_time() -> None:
    steps = ("shadow", "hold 1d", "pause", "50%", "100%", "probation")
    world = released(replace(ESTIMATE, steps=steps, min_requests=4), BETTER, 3)
    advanced = world.journal.read(MODEL, "release.advanced", "R2")
    assert [event.body["index"] for event in advanced] == [1, 2]
    assert advanced[1].at_ms - advanced[0].at_ms == DAY_MS
    assert (last(world).status, str(last(world).step)) == (Status.WAITING, "pause at 0 %")
    world.releases.order("R2", "approve", "seen enough", "ada")
    world.live(2 * HOUR_MS)
    assert world.route is not None
    assert world.route.weight == 5_000


def test_a_hook_before_a_step_holds_it_and_none_runs_twice() -> None:
    hooks = HooksPolicy("check", "tell")
    world = World(replace(ESTIMATE, hooks=hooks))
    world.promote_first()
    world.live(3 * DAY_MS)
    world.hook_fails = "exit code 1, no licence"
    world.releases.start(world.version(2, BETTER))
    world.settle()
    assert last(world).status is Status.QUEUED
    move = world.releases.reconcile()
    assert move.reason == "Hold before shadow. The hook before step shadow failed: exit code 1, no licence"
    assert world.hooked.count("R2:before:0") == 1
    world.now += 60_000
    world.settle()
    assert world.hooked.count("R2:before:0") == 2
    world.hook_fails = ""
    world.live(7 * DAY_MS)
    assert last(world).status is Status.PROMOTED
    assert world.hooked == [
        "R1:before:0",
        "R1:after:promoted",
        *["R2:before:0"] * 3,
        *("R2:before:1", "R2:before:2", "R2:before:3", "R2:after:promoted"),
    ]


def test_the_history_tells_what_served_when_and_who_approved_it() -> None:
    world = released(replace(ESTIMATE, steps=("shadow", "pause", "50%", "100%", "probation")), BETTER, 2)
    started = last(world).started_ms
    world.releases.order("R2", "approve", "seen enough", "ada")
    approved = world.now
    world.live(6 * DAY_MS)
    assert world.releases.served(START_MS - 1).arms == ()
    before = world.releases.served(started - 1)
    assert [(arm.version, arm.share, arm.release) for arm in before.arms] == [(1, 10_000, "R1")]
    during = world.releases.served(approved + 3 * HOUR_MS)
    assert during.routed == "Version 1: 50 %; version 2: 50 %, each scored on the other's rows."
    assert [(arm.version, arm.share) for arm in during.arms] == [(1, 5_000), (2, 5_000)]
    assert during.arms[1].approvals == (Approval(approved, "ada", "seen enough", "pause at 0 %"),)
    now = world.releases.served(world.now)
    assert [(arm.version, arm.share, len(arm.approvals)) for arm in now.arms] == [(2, 10_000, 1)]


def story(world: World) -> tuple[object, ...]:
    """What happened, as records, journal and route tell it."""
    records, journal, routing = world.rollouts.all(MODEL), world.journal.read(MODEL), world.router.read()
    return records, journal, routing, dict(world.aliases), sorted(set(world.hooked))


def crashed(before: World, at: int, after: bool, act: Callable[[World], object]) -> World:
    """`act` and the passes that follow it, killed at that port call."""
    world = deepcopy(before)
    world.calls = Calls(crash_at=at, after=after)
    world.restart()
    try:
        act(world)
    except Crash:
        world.restart()
        if not (after and world.calls.names[-1] in ("save", "append")):
            act(world)  # what did not happen is asked for again
    world.settle()
    return world


PASS = 4 * HOUR_MS


@pytest.mark.parametrize(
    ("answer", "passes", "order", "ends"),
    [
        (BETTER, 14, "", Status.PROMOTED),
        (failing(0.6), 3, "", Status.ROLLED_BACK),
        (BETTER, 3, "reject", Status.REJECTED),
        (BETTER, 14, "rollback", Status.ROLLED_BACK),
    ],
)
def test_a_crash_at_any_port_call_changes_nothing(answer: Answer, passes: int, order: str, ends: Status) -> None:
    world = World(replace(ESTIMATE, min_requests=20, min_time=0), horizon_ms=8 * HOUR_MS, per_day=96)
    world.promote_first()
    candidate = world.version(2, answer)
    world.serve(DAY_MS)
    acts: list[Callable[[World], object]] = [lambda world: world.releases.start(candidate)]
    acts += [lambda world: world.serve(PASS)] * passes
    acts += [lambda world: world.releases.order("R2", order, "", "ada")] if order else []
    for act in acts:
        before = deepcopy(world)
        world = crashed(before, -1, False, act)
        expected, names = story(world), world.calls.names
        if order and act is not acts[-1]:
            continue  # played by the first case
        for at, name in enumerate(names):
            for after in (False, True) if name in WRITES else (False,):
                assert story(crashed(before, at, after, act)) == expected, f"call {at}, {name}, after: {after}"
    assert last(world).status is ends


EVERY_KIND = ("shadow", "hold 4h", "50%", "pause", "100%", "probation")


def approve(world: World) -> None:
    world.releases.order("R2", "approve", "", "ada")


@pytest.mark.parametrize(
    ("newer", "bad", "ends"),
    [
        ("queue", False, [Status.PROMOTED, Status.RUNNING]),
        ("supersede", False, [Status.SUPERSEDED, Status.RUNNING]),
        ("queue", True, [Status.ROLLED_BACK]),
    ],
)
def test_a_crash_in_any_kind_of_step_changes_nothing(newer: str, bad: bool, ends: list[Status]) -> None:
    """With hooks, and a third version that comes in the second one's Pause. A hook that was running when the process
    died runs again, under the same id."""
    hooks = HooksPolicy("check", "tell")
    policy = replace(ESTIMATE, min_requests=4, min_time=0, steps=EVERY_KIND, hooks=hooks, newer=newer)
    world = World(policy, horizon_ms=4 * HOUR_MS, per_day=96)
    world.promote_first()
    world.serve(DAY_MS)
    second, third = world.version(2, BETTER), world.version(3, GOOD)

    def serve(world: World) -> None:
        if bad and world.releases.history()[-1].index == 3:
            world.answers[2] = failing(0.9)
        world.serve(PASS)

    acts: list[Callable[[World], object]] = [lambda world: world.releases.start(second), *[serve] * 4]
    if bad:
        acts += [serve]
    else:
        acts += [lambda world: world.releases.start(third)]
        acts += [serve] if newer == "supersede" else [approve, *[serve] * 3]
    for act in acts:
        before = deepcopy(world)
        world = crashed(before, -1, False, act)
        expected, names = story(world), world.calls.names
        for at, name in enumerate(names):
            for after in (False, True) if name in (*WRITES, "run") else (False,):
                assert story(crashed(before, at, after, act)) == expected, f"call {at}, {name}, after: {after}"
    assert [one.status for one in world.releases.history()[1:]] == ends


def test_no_release_starts_beside_an_experiment() -> None:
    world = World()
    world.promote_first()
    for kind in ("started", "ended"):
        event = Event(START_MS, MODEL, f"experiment.{kind}", f"E1:{kind}", "E1", "")
        if kind == "ended":
            with pytest.raises(Refused, match=r"(?s)experiment E1 is under way.*homeostat experiment stop"):
                world.releases.start(world.version(2, BETTER))
        world.journal.append(event)
    assert world.releases.start(world.version(2, BETTER)).id == "R2"


def test_segment_rules_go_with_the_candidate_and_a_change_of_them_is_put_in_force() -> None:
    world = World(ReleasePolicy(only={"x": (1.0,)}))
    world.promote_first()
    world.live(3 * DAY_MS)
    world.releases.start(world.version(2, BETTER))
    world.live(4 * HOUR_MS)
    assert world.route is not None
    assert (world.route.candidate is not None, world.route.only) == (True, {"x": (1.0,)})
    world.policy = replace(world.policy, release=ReleasePolicy(never={"x": (2.0,)}))
    world.restart()
    world.live(4 * HOUR_MS)
    assert (world.route.only, world.route.never) == ({}, {"x": (2.0,)})


@pytest.mark.parametrize(
    ("answer", "ends"), [(BETTER, (Status.RUNNING, "shadow")), (failing(0.9), (Status.ROLLED_BACK, "backtest"))]
)
def test_a_crash_in_a_backtest_changes_nothing(
    answer: Answer, ends: tuple[Status, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the end of the pass in which the next step begins, or the record ends."""
    monkeypatch.setattr(backtest, "TIMED", 10)
    policy = replace(ESTIMATE, min_requests=4, steps=("backtest", *EVERY_KIND), hooks=HooksPolicy("check", "tell"))
    assert {step.kind for step in plan(policy, None, first=False)[0]} == set(KINDS)
    world = World(policy, horizon_ms=4 * HOUR_MS, per_day=96, recorded=True)
    world.promote_first()
    world.serve(12 * HOUR_MS)
    second = world.version(2, answer)

    def start(world: World) -> None:
        world.releases.start(second)

    whole = crashed(world, -1, False, start)
    for at, name in enumerate(whole.calls.names):
        for after in (False, True) if name in (*WRITES, "run") else (False,):
            assert story(crashed(world, at, after, start)) == story(whole), f"call {at}, {name}, after: {after}"
    assert (last(whole).status, str(last(whole).step)) == ends
    (found,) = whole.journal.read(MODEL, "release.backtest", "R2")
    assert found.body["result"]["recorded"]["replayed"] == 51
