from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from watching import MODEL, POLICY, World

from homeostat.domain.bundle import Version
from homeostat.domain.errors import ConfigError
from homeostat.domain.event import Event
from homeostat.domain.gate import Verdict
from homeostat.domain.policy import Background, OtherWindow, RetrainPolicy, Schedule
from homeostat.domain.trigger import Probed, Remembered
from homeostat.domain.units import DAY_MS
from homeostat.engines.probe import worth
from homeostat.services.triggers import speaks_since


def worse() -> World:
    world = World()
    for wrong in [0.1] * 8 + [0.45] * 4:
        world.day(wrong)
    return world


def test_a_schedule_that_is_none_is_an_error_from_the_beginning() -> None:
    retrain = RetrainPolicy(when=("performance", Schedule("61 * * * *")))
    with pytest.raises(ConfigError, match="61"):
        World(replace(POLICY, retrain=retrain))


def test_harm_fires_once_and_stays_pending_until_its_training_ends() -> None:
    world = worse()
    assert world.kinds("trigger.") == ["trigger.fired"]
    fired = world.triggers.pending()
    assert fired is not None
    assert fired.kind == "performance"
    world.restart()
    assert world.triggers.check() == fired
    world.triggers.done(fired, run="run-2")
    world.triggers.done(fired, run="run-2")
    assert world.triggers.pending() is None
    assert world.kinds("training.") == ["training.done"]
    assert world.triggers.check() is None


def test_a_new_champion_is_judged_on_its_own_rows() -> None:
    world = worse()
    fired = world.triggers.pending()
    assert fired is not None
    world.triggers.done(fired, run="run-2")
    world.release("run-2")
    for _ in range(3):
        world.day(0.1)
    performance = world.performances.now()
    assert performance is not None
    assert (performance.change.verdict, performance.change.n) == (Verdict.OK, 2 * 96)
    assert not world.alerts.open()


def test_a_training_that_registers_nothing_heals_nothing() -> None:
    """The alert stays, the evidence grows on, and the cooldown is noted once."""
    world = worse()
    fired = world.triggers.pending()
    assert fired is not None
    world.triggers.done(fired, failure="too few rows")
    for _ in range(5):
        world.day(0.45)
    assert [alert.title for alert in world.alerts.open()] == ["performance", "healing"]
    held = world.journal.read(MODEL, "trigger.held")
    assert [event.body["rule"] for event in held] == ["cooldown"]
    for _ in range(4):
        world.day(0.45)
    again = world.triggers.pending()
    assert again is not None
    assert again.key != fired.key
    assert fired.at_ms + 7 * DAY_MS <= again.at_ms <= fired.at_ms + 8 * DAY_MS


def test_the_background_spends_its_budget_and_no_more() -> None:
    """A training of 1.1 % of a week: two in a week, where three would be more than 3 %."""
    world = World(replace(POLICY, retrain=RetrainPolicy(when=(Background(0.03),))))
    trained = list[int]()
    for _ in range(20):
        world.day(0.1)
        if fired := world.triggers.pending():
            trained.append(fired.at_ms // DAY_MS)
            world.triggers.fitted(fired, 900, 0.011 * 7 * 86_400)
            world.triggers.done(fired, failure="its gates refused it")
            world.restart()
    spent = world.triggers.spent()
    assert str(spent) == "2.2 % of 3 % of a core used in the last 7 d; no room for one more, which takes 1.1 %"
    assert all(b - a >= 7 for a, b in zip(trained, trained[2:], strict=False))
    assert len(trained) == 6
    assert world.journal.read(MODEL, "cost.training")[0].text == "The training fitted 900 rows in 1.85 h of CPU time."
    performance = world.performances.now()
    assert performance is not None
    assert performance.tried_ms == performance.since_ms  # its evidence is not begun anew
    assert not world.alerts.open()
    assert World().triggers.spent() is None


def test_the_background_waits_while_an_experiment_is_under_way() -> None:
    world = World(replace(POLICY, retrain=RetrainPolicy(when=(Background(0.03),))))

    def told(what: str) -> None:
        world.journal.append(Event(world.clock.now, MODEL, f"experiment.{what}", f"E1:{what}", "E1", "", {}))

    told("started")
    for _ in range(3):
        world.day(0.1)
    assert world.triggers.pending() is None
    told("ended")
    world.day(0.1)
    assert world.triggers.pending() is not None


def careful(*remedies: str | OtherWindow) -> World:
    """A world whose champion became worse, and in which a probe is asked first."""
    policy = RetrainPolicy(only_if_it_helps=True, remedies=remedies or ("refit", "person"), cooldown=2 * DAY_MS)
    world = World(replace(POLICY, retrain=policy))
    for wrong in [0.1] * 8:
        world.day(wrong)
    return world


def test_nothing_is_trained_that_would_not_help_and_each_no_is_recorded_with_its_cost() -> None:
    world = careful()
    for _ in range(9):
        world.day(0.45)
    assert not world.kinds("trigger.fired")
    declined = world.journal.read(MODEL, "trigger.declined")
    days = [event.at_ms // DAY_MS - declined[0].at_ms // DAY_MS for event in declined]
    assert days == [0, 1, 3, 5, 7]  # a day, two, and never more than the cooldown
    assert declined[1].text.endswith("; not retrained, because no gain. Cost: 9 rows fitted.")
    assert [event.body["rows"] for event in world.journal.read(MODEL, "probe.made")] == [9] * len(declined)
    assert "performance" in [alert.title for alert in world.alerts.open()]


def test_a_sign_is_enough_to_ask_and_a_yes_to_train() -> None:
    world = careful()
    world.would_help[POLICY.train.window] = Probed(True, "a fit is better", 0.1, 9.0, 100, 9)
    while not (fired := world.triggers.pending()):
        world.day(0.3)
    change = world.performances.now()
    assert change is not None
    assert fired.reason.endswith("; a fit is better")
    assert fired.remedy == "refit"
    assert 10 <= change.change.evidence < 100


def test_remedies_go_in_turn_waits_grow_and_then_a_person_is_called() -> None:
    world = careful("refit", OtherWindow(5 * DAY_MS), "person")
    for window in (POLICY.train.window, 5 * DAY_MS):
        world.would_help[window] = Probed(True, "a fit is better", 0.1, 9.0, 100, 9)
    tried = []
    for _ in range(11):
        world.day(0.45)
        while (fired := world.triggers.pending()) is not None:
            tried.append((fired.remedy, fired.at_ms))
            assert ("healing" in [alert.title for alert in world.alerts.open()]) == (len(tried) > 2)
            world.triggers.done(fired, run=f"run-{fired.at_ms}")
    assert [remedy for remedy, _ in tried] == ["refit", f"window:{5 * DAY_MS}", "refit"]
    waited = [(later - earlier) // DAY_MS for (_, earlier), (_, later) in pairwise(tried)]
    assert world.needed == worth(40, 38)  # two of 40 trainings were spent when it was asked last
    assert waited == [3, 4]  # a cooldown, two; and a day until the evidence, begun anew, shows it again


def test_an_earlier_version_is_taken_where_it_is_surely_better_than_a_training_would_be() -> None:
    version = Version(MODEL, 1, "b" * 64, "run-1")
    for gain, remedy in ((0.1, "refit"), (0.3, "previous:1")):
        world = careful("previous", "refit")
        world.would_help[POLICY.train.window] = Probed(True, "a fit is better", 0.2, 9.0, 100, 9)
        world.remembered = Remembered(version, Probed(True, "version 1 is better", gain, 500.0, 100))
        while not (fired := world.triggers.pending()):
            world.day(0.6)
        assert fired.remedy == remedy
    world.triggers.done(fired, run="run-1", note="Release R2 of version 1 was asked for.")
    assert world.kinds("remedy.") == ["remedy.done"]
    assert world.triggers.pending() is None


def test_an_earlier_version_waits_for_no_cooldown_and_what_chose_it_does_not_judge_it() -> None:
    world = careful("previous", "refit")
    world.policy = replace(world.policy, retrain=replace(world.policy.retrain, cooldown=9 * DAY_MS))
    world.restart()
    world.would_help[POLICY.train.window] = Probed(True, "a fit is better", 0.2, 9.0, 100, 9)
    while not (fired := world.triggers.pending()):
        world.day(0.6)
    world.triggers.done(fired, run="run-2")
    world.release("run-2")
    world.restart()
    version = Version(MODEL, 1, "b" * 64, "run-1")
    world.remembered = Remembered(version, Probed(True, "version 1 is better", 0.3, 500.0, 100))
    while not (back := world.triggers.pending()):
        world.day(0.6)
    assert back.remedy == "previous:1"
    assert back.at_ms - fired.at_ms < world.policy.retrain.cooldown
    release = replace(world.rollouts.all(MODEL)[-1], by=f"trigger {back.key}")
    assert speaks_since(world.journal, DAY_MS, release) == back.at_ms - DAY_MS
    trained = replace(release, by=f"trigger {fired.key}")
    assert speaks_since(world.journal, DAY_MS, trained) == 0


def test_a_training_that_forgets_is_judged_by_what_came_since_and_the_next_is_asked_about_that_too() -> None:
    world = careful("refit")
    world.would_help[POLICY.train.window] = Probed(True, "a fit is better", 0.2, 9.0, 100, 9, since_ms=7)
    while not (fired := world.triggers.pending()):
        world.day(0.6)
    assert (fired.remedy, world.changes) == ("since:7", (0, 0))  # a sign is not enough to forget
    release = replace(world.rollouts.all(MODEL)[-1], by=f"trigger {fired.key}")
    assert speaks_since(world.journal, DAY_MS, release) == 7
    world.triggers.done(fired, run="run-2")
    world.would_help.clear()
    while world.changes == (0, 0):
        world.day(0.6)
    now = world.performances.now()
    assert now is not None
    assert (now.change.verdict, now.fresh.verdict) == (Verdict.HARM, Verdict.OK)  # known of this champion: enough
    assert world.changes == (fired.since_ms, 7)


def test_an_order_by_hand_fires_at_the_next_look() -> None:
    world = World()
    order = world.triggers.ask("new columns")
    fired = world.triggers.check()
    assert fired == order
    world.triggers.done(order, run="run-2")
    assert world.triggers.check() is None
