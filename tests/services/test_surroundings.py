"""What changes around a model is written down, and named when its answers become worse."""

from __future__ import annotations

from pathlib import Path

import projects
from homeostat.domain.units import DAY_MS, HOUR_MS
from homeostat.engines.causes import likely
from homeostat.engines.surroundings import moved
from homeostat.wiring.system import System

HERE = "python==3.11.7\nplatform==linux-x86_64\nlightgbm==4.5.0\nshap==0.46\nmachine==a\n"


def test_what_moved_between_two_environments() -> None:
    there = "python==3.12.1\nplatform==linux-x86_64\nlightgbm==4.6.0\npolars==1.2\nmachine==a\n"
    found = "python 3.12.1 (3.11.7 before), lightgbm 4.6.0 (4.5.0 before), polars 1.2 (none before)"
    assert moved(HERE, there) == f"{found} and no shap (0.46 before)"
    assert moved(HERE, HERE) == ""
    many = "".join(f"p{i}==1\n" for i in range(9))
    assert moved("", many).endswith("p4 1 (none before) and 4\N{NO-BREAK SPACE}more packages")


NEW = "other code (not committed); the parameters num_leaves"


def led(system: System, environment: str) -> System:
    """A control plane over the same state, on a machine like that."""
    system.surroundings.environment = environment
    system.control.lead()
    return system


def causes(system: System, from_ms: int) -> list[tuple[str, str]]:
    found = likely("performance", [], system.stores.journal.read("cards"), from_ms, system.clock.now_ms())
    return [(one.kind, one.words) for one in found]


def test_another_environment_is_a_cause_and_the_same_one_is_not(tmp_path: Path) -> None:
    root = projects.make(tmp_path / "cards")
    system = led(projects.system(root), HERE)
    system.control.settle()
    stores, begun = system.stores, system.clock.now_ms()
    led(projects.system(root, stores), HERE)
    assert not [words for kind, words in causes(system, begun) if kind == "environment"]
    later = projects.system(root, stores)
    later.clock.move_to(begun + 20 * DAY_MS)
    led(later, HERE.replace("4.5.0", "4.6.0"))
    led(projects.system(root, stores), HERE.replace("4.5.0", "4.6.0"))
    assert len(stores.journal.read("cards", "environment.changed")) == 1
    later.clock.move_to(begun + 20 * DAY_MS + HOUR_MS)
    (first, *_) = causes(later, later.clock.now_ms())
    assert first[0] == "environment"
    assert first[1].startswith("The environment changed: lightgbm 4.6.0 (4.5.0 before) (2026-")


def test_a_promoted_version_says_what_is_new_in_it(tmp_path: Path) -> None:
    root = projects.make(tmp_path / "cards")
    projects.edited(root, "homeostat.yaml", "{max_hold: 3d}", "{steps: ['100%'], on_unknown: best_estimate}")
    system = projects.system(root)
    system.control.begin()
    system.control.settle()
    projects.edited(root, "lib.py", "return 7", "return 5")
    system.clock.move_to(system.clock.now_ms() + DAY_MS)
    system.triggers.ask("smaller trees")
    for _ in range(4):
        system.control.turn()
        system.clock.move_to(system.clock.now_ms() + DAY_MS)
    (event,) = system.stores.journal.read("cards", "version.differs")
    assert event.subject == "R2"
    assert event.text == f"Version 2 differs from version 1 by {NEW}"
    (cause,) = [words for kind, words in causes(system, event.at_ms) if kind == "release"][:1]
    assert cause.endswith(f"; new in it: {NEW}")
    again = projects.system(root, system.stores)
    again.surroundings.turn()
    assert len(system.stores.journal.read("cards", "version.differs")) == 1
