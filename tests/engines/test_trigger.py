from __future__ import annotations

from dataclasses import replace

import pytest

from homeostat.domain.errors import ConfigError
from homeostat.domain.estimate import Estimated
from homeostat.domain.gate import Verdict
from homeostat.domain.policy import Background, Budget, RetrainPolicy, Schedule
from homeostat.domain.trigger import Spent, Trigger
from homeostat.domain.units import DAY_MS, HOUR_MS
from homeostat.engines.change import Change
from homeostat.engines.probe import HELPS, worth
from homeostat.engines.trigger import NotFired, TriggerSeen, check, fire, left, rests, trained

HARM = Change(Verdict.HARM, "the loss rose", 120.0, 100.0, 3, 0.2, 0.1, 500, 5)
NOW = 30 * DAY_MS  # a Saturday, midnight
SEEN = TriggerSeen(NOW, HARM, "abc:0", trained_ms=0, since_made=HARM)
ORDER = Trigger("manual:7", "manual", "because", 7)
WEEKLY = RetrainPolicy(when=(Schedule("0 3 * * MON"),))


@pytest.mark.parametrize(
    ("seen", "rule"),
    [
        (replace(SEEN, release="R3"), "release"),
        (replace(SEEN, trainings=(NOW - 6 * DAY_MS,)), "cooldown"),
        (replace(SEEN, trained_ms=NOW - DAY_MS), "cooldown"),
        (replace(SEEN, silent=3), "labels"),
        (replace(SEEN, trainings=tuple(range(NOW - 20 * DAY_MS, NOW - 10 * DAY_MS, DAY_MS))), "budget"),
    ],
)
def test_a_cause_is_held_back_and_the_rule_named(seen: TriggerSeen, rule: str) -> None:
    outcome = fire(RetrainPolicy(budget=Budget(10, 365 * DAY_MS)), seen)
    assert isinstance(outcome, NotFired)
    assert (outcome.rule, outcome.cause) == (rule, "performance:abc:0")
    assert outcome.reason.startswith("not retrained, because")


def test_what_was_taken_back_was_not_trained() -> None:
    policy = RetrainPolicy(cooldown=10 * DAY_MS)
    assert trained(50, [10, 30], [40]) == 30
    assert trained(50, [10, 45], [40]) == 50
    assert trained(50, [], [40]) == trained(50, [60], [70]) == 50
    taken = replace(SEEN, taken=(NOW - 4 * DAY_MS,), trained_ms=NOW - 20 * DAY_MS)
    assert isinstance(fire(policy, taken), Trigger)
    assert rests(policy, taken)
    assert not rests(policy, replace(taken, now_ms=NOW + 6 * DAY_MS))
    assert not rests(policy, SEEN)


def test_an_estimated_drop_fires_where_the_policy_asks_for_it() -> None:
    calm = replace(SEEN, change=replace(HARM, verdict=Verdict.OK, evidence=1.0, reason="as before"))
    seen = replace(calm, estimated=Estimated("abc", "estimated roc_auc .7: a drop; amount drifted", NOW, ("amount",)))
    policy = RetrainPolicy(when=("performance", "estimated"))
    outcome = fire(policy, seen)
    assert isinstance(outcome, Trigger)
    assert (outcome.key, outcome.kind) == ("estimated:abc:0", "estimated")
    assert outcome.reason.startswith("estimated roc_auc")
    assert isinstance(fire(policy, calm), NotFired)
    assert isinstance(fire(RetrainPolicy(), seen), NotFired)


KEPT = RetrainPolicy(when=(Background(0.05), "performance"), budget=Budget(0))
CALM = replace(
    SEEN, change=replace(HARM, verdict=Verdict.OK, evidence=1.0), labels=96, spent=Spent(0.05, 0.02, 0.02, "")
)


def test_the_background_trains_on_what_came_and_within_its_own_budget_alone() -> None:
    outcome = fire(KEPT, replace(CALM, trained_ms=NOW - DAY_MS, failed=3))
    assert isinstance(outcome, Trigger)
    assert (outcome.key, outcome.kind) == ("background:abc:96", "background")
    assert outcome.reason.endswith(
        "96 labels since the champion was trained; 2 % of 5 % of a core used in the last 7 d"
    )
    for seen in (
        replace(CALM, fired=frozenset({outcome.key})),
        replace(CALM, change_key="abc:7", fired=frozenset({outcome.key})),  # an attempt for a cause: nothing came
        replace(CALM, change=None),
        replace(CALM, labels=0),
        replace(CALM, silent=3),
        replace(CALM, release="R3"),
        replace(CALM, spent=Spent(0.05, 0.0, 0.0, "R3")),
        replace(CALM, spent=Spent(0.05, 0.031, 0.02, "")),
    ):
        held = fire(KEPT, seen)
        assert isinstance(held, NotFired)
        assert not held.cause


def test_a_cause_goes_before_the_background_and_takes_its_place() -> None:
    harmed = replace(CALM, change=HARM, spent=Spent(0.05, 0.0, 0.0, "R3"))
    assert isinstance(fire(KEPT, harmed), NotFired)
    outcome = fire(replace(KEPT, budget=Budget(9)), harmed)
    assert isinstance(outcome, Trigger)
    assert outcome.kind == "performance"
    held = fire(KEPT, replace(CALM, change=HARM))  # its budget is spent: the background has another
    assert isinstance(held, Trigger)
    assert held.kind == "background"


@pytest.mark.parametrize("when", ["background", "schedule", "performence"])
def test_a_reason_that_is_none_says_how_it_is_written(when: str) -> None:
    with pytest.raises(ConfigError, match=r"background: 5%"):
        fire(RetrainPolicy(when=(when,)), SEEN)


def test_a_cause_fires_once() -> None:
    outcome = fire(RetrainPolicy(), SEEN)
    assert outcome == Trigger("performance:abc:0", "performance", "the loss rose", NOW, 3 * DAY_MS, surely=True)
    again = fire(RetrainPolicy(), replace(SEEN, fired=frozenset({outcome.key})))
    assert isinstance(again, NotFired)
    assert again.cause == ""


def test_a_change_that_a_training_did_not_repair_goes_on_and_is_as_sure_as_it_was() -> None:
    sign, calm = (replace(HARM, verdict=Verdict.OK, evidence=evidence) for evidence in (11.0, 9.0))
    answered = Trigger("performance:ab:0", "performance", "the loss rose", 2 * DAY_MS, DAY_MS, surely=True)
    again = replace(SEEN, made_ms=3 * DAY_MS - HOUR_MS, last=answered, change=sign, since_made=sign)
    for seen, began in (
        (again, (DAY_MS, True)),
        (replace(again, last=replace(answered, surely=False)), (DAY_MS, False)),
        (replace(again, last=replace(answered, since_ms=0)), (3 * DAY_MS, False)),
        (replace(again, made_ms=DAY_MS), (3 * DAY_MS, False)),  # it did well at first: another change
        (replace(again, change=calm), (0, False)),
    ):
        outcome = fire(WEEKLY, seen)
        assert isinstance(outcome, Trigger)
        assert (outcome.since_ms, outcome.surely) == began


def test_a_change_began_when_it_began_whatever_was_tried_since() -> None:
    """The evidence for another attempt is counted anew from day 9 on; the champion's, since it was made, is not."""
    sign = replace(HARM, verdict=Verdict.OK, evidence=11.0, since=9)
    tried = Trigger("performance:abc:0", "performance", "a sign that the loss rose", 2 * DAY_MS, since_ms=DAY_MS)
    outcome = fire(WEEKLY, replace(SEEN, change=sign, last=tried))
    assert isinstance(outcome, Trigger)
    assert (outcome.since_ms, outcome.surely) == (3 * DAY_MS, True)


def test_no_harm_no_training() -> None:
    calm = replace(HARM, verdict=Verdict.OK, reason="no harm seen")
    assert fire(RetrainPolicy(), replace(SEEN, change=calm)) == NotFired("nobody asked; no harm seen")
    assert isinstance(fire(RetrainPolicy(), replace(SEEN, change=None)), NotFired)


def test_an_order_waits_for_nothing_but_an_open_release() -> None:
    seen = replace(SEEN, asked=(ORDER,), trainings=(NOW - 1,), change=None, silent=9)
    assert fire(RetrainPolicy(budget=Budget(1, DAY_MS)), seen) == ORDER
    held = fire(RetrainPolicy(), replace(seen, release="R3"))
    assert isinstance(held, NotFired)
    assert held.rule == "release"


def test_a_schedule_ticks_in_utc_and_missed_ticks_count_once() -> None:
    first = fire(WEEKLY, SEEN)
    monday = 25 * DAY_MS + 3 * HOUR_MS
    assert isinstance(first, Trigger)
    assert first.key == f"schedule:0 3 * * MON:{monday}"
    assert isinstance(fire(WEEKLY, replace(SEEN, trainings=(monday,))), NotFired)
    on_the_dot = fire(WEEKLY, replace(SEEN, now_ms=monday))
    assert isinstance(on_the_dot, Trigger)
    assert on_the_dot.key == first.key


def test_an_old_training_stays_a_reason_and_after_a_no_the_waits_are_the_same_whoever_asks() -> None:
    policy = RetrainPolicy(when=("performance", Schedule("14d")), cooldown=10 * DAY_MS)
    made, asked, looks = 100 * DAY_MS, list[tuple[str, int]](), list[tuple[str, int]]()
    for day in range(1, 32):
        seen = replace(SEEN, now_ms=made + day * DAY_MS, trained_ms=made, declined=tuple(asked))
        outcome = fire(policy, seen if day < 14 else replace(seen, change=None))
        if isinstance(outcome, Trigger):
            looks.append((outcome.kind, day))
            asked.append((outcome.kind, seen.now_ms))
    assert looks == [("performance", 10), ("performance", 11), ("performance", 13)] + [
        ("schedule", day) for day in (17, 21, 25, 29)
    ]
    for since, waits in ((NOW // DAY_MS - 2, True), (NOW // DAY_MS, False)):  # a no speaks for the world that was
        turned = replace(SEEN, since_made=replace(HARM, since=since), declined=(("schedule", NOW - DAY_MS // 2),))
        assert isinstance(fire(policy, turned), NotFired) == waits
    no = (("schedule", NOW - 4 * DAY_MS),)
    assert isinstance(fire(WEEKLY, replace(SEEN, trainings=(DAY_MS,), declined=no)), NotFired)  # after Monday's tick


def test_an_earlier_version_does_not_wait_for_what_a_training_waits_for() -> None:
    policy = RetrainPolicy(("performance", Schedule("7d")), remedies=("previous", "refit"), budget=Budget(1))
    resting = replace(SEEN, trainings=(NOW - DAY_MS,))
    no = replace(SEEN, declined=(("schedule", NOW - DAY_MS), ("schedule", NOW - DAY_MS)))
    for seen in (resting, no, replace(SEEN, trainings=(NOW - 20 * DAY_MS,))):
        outcome = fire(policy, seen)
        assert isinstance(outcome, Trigger)
        assert (outcome.kind, outcome.remedy, outcome.since_ms) == ("performance", "previous", 3 * DAY_MS)
        for held in (
            fire(replace(policy, remedies=("refit",)), seen),
            fire(policy, replace(seen, declined=(*seen.declined, ("previous", NOW - HOUR_MS)))),  # once a day
            fire(policy, replace(seen, taken=(NOW - DAY_MS,))),
            fire(policy, replace(seen, release="R3")),
            fire(policy, replace(seen, silent=3)),
        ):
            assert isinstance(held, NotFired)
    looked = tuple(("previous", NOW - day * DAY_MS) for day in (1, 2, 3))
    outcome = fire(policy, replace(SEEN, declined=(("schedule", NOW - 5 * DAY_MS), *looked)))
    assert isinstance(outcome, Trigger)
    assert outcome.remedy == "refit"  # looks for an earlier version make no training wait


def test_the_less_is_left_of_the_budget_the_more_a_fit_must_promise() -> None:
    policy = RetrainPolicy(budget=Budget(12, 365 * DAY_MS))
    spent = replace(SEEN, now_ms=400 * DAY_MS, trainings=(0, *range(100 * DAY_MS, 108 * DAY_MS, DAY_MS)))
    assert left(policy, SEEN) == 12
    assert left(policy, spent) == 4
    assert worth(12, 12) == HELPS
    assert worth(12, 4) == 3 * HELPS


@pytest.mark.parametrize("when", ["drift", "schedule", Schedule("0 3 * *")])
def test_an_unknown_kind_or_a_broken_schedule_is_a_clear_error(when: str | Schedule) -> None:
    with pytest.raises(ConfigError) as caught:
        check(RetrainPolicy(when=(when,)), NOW)
    assert caught.value.where == "retrain.when"
    assert caught.value.way_out
