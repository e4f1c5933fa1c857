"""The control loop over a real project, with crashes between what it does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import projects
from homeostat.domain.units import DAY_MS
from homeostat.wiring.system import System


class Crash(BaseException):
    """Nothing catches it."""


def dying(real: Callable[..., Any], after: bool) -> Callable[..., Any]:
    """Dies once, before the call or after it."""
    calls = 0

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1 and not after:
            raise Crash
        made = real(*args, **kwargs)
        if calls == 1:
            raise Crash
        return made

    return call


@pytest.fixture
def serving(tmp_path: Path) -> System:
    """A model that serves, and a reason to train it anew."""
    system = projects.system(projects.make(tmp_path / "cards"))
    system.control.begin()
    system.control.settle()
    projects.edited(tmp_path / "cards", "lib.py", "return 7", "return 5")
    system.clock.move_to(system.clock.now_ms() + 11 * DAY_MS)
    return system


POINTS = [("runs", "run"), ("releases", "start"), ("triggers", "done")]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("service", "call"), POINTS)
def test_a_crash_in_a_training_changes_no_outcome(serving: System, service: str, call: str, after: bool) -> None:
    owner = getattr(serving, service)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, call, dying(getattr(owner, call), after))
        with pytest.raises(Crash):
            serving.control.turn()
    serving.control.turn()
    serving.control.turn()
    journal = serving.stores.journal
    assert len(journal.read("cards", "trigger.fired")) == 1
    assert len(journal.read("cards", "training.done")) == 2  # the first champion's and this one
    assert [(one.id, one.candidate.number) for one in serving.releases.history()] == [("R1", 1), ("R2", 2)]


def test_a_failed_training_is_told_and_not_repeated(serving: System) -> None:
    root = Path(serving.code.module("lib").__file__ or "").parent
    projects.edited(root, "lib.py", "return 5", "return 1 / 0")
    serving.control.turn()
    serving.control.turn()
    failed = serving.stores.journal.read("cards", "training.failed")
    assert len(failed) == 1
    assert "ZeroDivisionError" in failed[0].text
    assert "lib.py:2" in failed[0].text
    assert len(serving.releases.history()) == 1


def test_nothing_new_starts_no_release(serving: System) -> None:
    root = Path(serving.code.module("lib").__file__ or "").parent
    projects.edited(root, "lib.py", "return 5", "return 7")
    serving.control.turn()
    done = serving.stores.journal.read("cards", "training.done")[-1]
    assert "It is version 1 again, of release R1: promoted." in done.text
    assert len(serving.releases.history()) == 1


def test_the_first_champion_is_the_newest_version_or_is_trained(tmp_path: Path) -> None:
    system = projects.system(projects.make(tmp_path / "cards"))
    result = system.runs.run()
    system.control.begin()
    system.control.begin()
    assert [one.candidate for one in system.releases.history()] == [result.version]
    assert not system.stores.journal.read("cards", "training.")
