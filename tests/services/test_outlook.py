"""What a release says of its future, and whether that comes true; what the journal keeps of its course."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from homeostat import codec
from homeostat.domain.event import LOOK, Event
from homeostat.domain.gate import Verdict
from homeostat.domain.outlook import Assumed, Outlook, Turn
from homeostat.domain.policy import ReleasePolicy
from homeostat.domain.rollout import Do, Lane, Rollout, Status, StepKind
from homeostat.domain.units import DAY_MS, MINUTE_MS
from homeostat.engines.looks import look
from world import GOOD, HOUR_MS, MODEL, Answer, World, failing, right

PASS = 2 * HOUR_MS


def under_way(policy: ReleasePolicy, answer: Answer, hours: int, per_day: int, champion: Answer = GOOD) -> World:
    world = World(policy, per_day=per_day)
    world.promote_first(champion)
    world.live(3 * DAY_MS)
    world.releases.start(world.version(2, answer))
    world.live(hours * HOUR_MS)
    return world


def ahead(world: World) -> Outlook:
    standing = world.releases.status()
    assert standing is not None
    assert standing.outlook is not None
    return standing.outlook


def coming(world: World) -> Turn:
    turn = ahead(world).turn(Assumed.AS_NOW)
    assert turn is not None
    return turn


def last(world: World) -> Rollout:
    return world.releases.history()[-1]


@pytest.mark.parametrize(
    ("policy", "kind", "hours", "do"),
    [
        (ReleasePolicy(min_time=9 * HOUR_MS), StepKind.SHADOW, 4, Do.ADVANCE),  # the step's least time
        (ReleasePolicy(min_requests=300), StepKind.SHADOW, 4, Do.ADVANCE),  # requests
        (ReleasePolicy(steps=("10%", "100%"), max_hold=2 * DAY_MS), StepKind.CANARY, 40, Do.ASK),  # time is up
        (ReleasePolicy(steps=("50%", "100%", "probation")), StepKind.PROBATION, 0, Do.PROMOTE),  # probation ends
    ],
)
def test_what_is_expected_comes_true_within_a_pass(policy: ReleasePolicy, kind: StepKind, hours: int, do: Do) -> None:
    world = under_way(policy, right(0.97) if do is Do.PROMOTE else right(0.91, "d"), hours, 480)
    while last(world).step.kind is not kind:
        world.live(PASS)
    turn, revision = coming(world), last(world).revision
    assert turn.move is not None
    assert turn.at_ms is not None
    assert turn.move.do is do
    while last(world).revision == revision:
        assert world.now < turn.at_ms + PASS
        world.live(PASS)
    assert turn.at_ms <= world.now + MINUTE_MS
    ended = {Do.ADVANCE: Status.RUNNING, Do.ASK: Status.WAITING, Do.PROMOTE: Status.PROMOTED}
    assert last(world).status is ended[do]


def test_errors_that_look_tripled_are_expected_to_be_harm_and_so_they_are() -> None:
    policy = ReleasePolicy(steps=("10%", "100%"), min_time=90 * DAY_MS)
    world = under_way(policy, failing(0.006), 16, 4_800, champion=failing(0.0015))
    outlook = ahead(world)
    said = outlook.forecast("errors", Assumed.AS_NOW)
    assert said is not None
    assert (said.verdict, said.value > 1.5) == (Verdict.HARM, True)
    turn = coming(world)
    assert turn.move is not None
    assert (turn.move.do, turn.at_ms is not None) == (Do.ROLL_BACK, True)
    (pace,) = [one.per_day for one in outlook.paces if one.lane == "errors"]
    assert 10 <= pace <= 45  # about 4,800 rows answered and as many in shadow a day, of which .0015 and .006 fail
    assert outlook.requests_per_day == pytest.approx(480, rel=0.05)
    assert said.late_ms is not None
    while last(world).status.open and world.now <= said.late_ms:
        world.live(PASS)
    assert last(world).status is Status.ROLLED_BACK


def test_nothing_is_foretold_without_traffic_or_once_it_is_over() -> None:
    world = under_way(ReleasePolicy(), right(0.97), 0, 480)
    world.settle()
    world.serve(1)  # loaded by now
    world.settle()
    assert (ahead(world).requests_per_day, coming(world).move) == (0, None)
    world.releases.order("R2", "reject", "", "ada")
    world.settle()
    standing = world.releases.status()
    assert standing is not None
    assert standing.outlook is None


def test_the_course_is_in_the_journal_as_it_was_seen() -> None:
    world = under_way(ReleasePolicy(), GOOD, 0, 480)
    shown: list[tuple[int, object]] = []
    world.settle()  # it starts
    for _ in range(20):
        world.serve(PASS)
        standing = world.releases.status()
        assert standing is not None
        shown.append((world.now, codec.decode(codec.encode(standing.seen.lanes), object)))  # as a journal keeps it
        world.settle()
    kept = [event for event in world.journal.read(MODEL, "release.", "R2") if "lanes" in event.body]
    told = [(event.at_ms, event.body["lanes"]) for event in kept]
    found = [one for one in shown if one[0] in dict(told)]
    assert len(found) >= 12
    assert all(one in told for one in found)


def test_the_looks_of_thirty_days_are_few_and_none_of_a_kind_is_missing() -> None:
    world = under_way(ReleasePolicy(), GOOD, 4, 480)
    standing = world.releases.status()
    assert standing is not None
    lane, kept = Lane("errors", Verdict.UNKNOWN, "", 5, 1.0, 100.0), dict[str, Event]()
    for minute in range(30 * 24 * 60):
        e = 1.0 if minute < 40_000 else 3 * 1.002 ** (minute - 40_000)
        shown = replace(lane, evidence=e, verdict=Verdict.HARM if e >= 100 else Verdict.UNKNOWN)
        seen = replace(standing.seen, now_ms=standing.rollout.step_ms + minute * MINUTE_MS, lanes=(shown,))
        event = look(standing.rollout, seen, "why")
        kept.setdefault(event.key, event)
    course = [event.body["lanes"][0] for event in kept.values()]
    assert {event.kind for event in kept.values()} == {LOOK}
    assert 55 <= len(course) <= 70
    assert [one["verdict"] for one in course].count(Verdict.HARM) == 1
    assert all(after["evidence"] <= 3.2 * before["evidence"] for before, after in pairwise(course))
