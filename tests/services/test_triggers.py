from __future__ import annotations

from watching import MODEL, World

from homeostat.domain.gate import Verdict
from homeostat.domain.units import DAY_MS


def worse() -> World:
    world = World()
    for wrong in [0.1] * 8 + [0.45] * 4:
        world.day(wrong)
    return world


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


def test_after_a_failed_training_evidence_begins_anew_and_the_cooldown_is_noted_once() -> None:
    world = worse()
    fired = world.triggers.pending()
    assert fired is not None
    world.triggers.done(fired, failure="too few rows")
    for _ in range(5):
        world.day(0.45)
    held = world.journal.read(MODEL, "trigger.held")
    assert [event.body["rule"] for event in held] == ["cooldown"]
    for _ in range(4):
        world.day(0.45)
    again = world.triggers.pending()
    assert again is not None
    assert again.key != fired.key
    assert again.at_ms >= fired.at_ms + 7 * DAY_MS


def test_an_order_by_hand_fires_at_the_next_look() -> None:
    world = World()
    order = world.triggers.ask("new columns")
    fired = world.triggers.check()
    assert fired == order
    world.triggers.done(order, run="run-2")
    assert world.triggers.check() is None
