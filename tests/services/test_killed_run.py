"""`kill -9` in the middle of a run: run again, and only what was not finished runs."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import homeostat
import projects
from homeostat.wiring.stores import Stores, in_memory

MOMENTS = {
    "in the middle of the first model": ("model", 1),
    "in the middle of the refit": ("model", 2),
}
DYING = '''
import os
import signal
from pathlib import Path

HERE = Path({here!r})


def noted(step: str) -> None:
    """Write down that the step runs; die in it when the test wants so."""
    with (HERE / "ran.txt").open("a") as file:
        file.write(step + "\\n")
    runs = (HERE / "ran.txt").read_text().split().count(step)
    if (HERE / "die.txt").exists() and (HERE / "die.txt").read_text() == f"{{step}} {{runs}}":
        os.kill(os.getpid(), signal.SIGKILL)


def depth() -> int:
    return 7
'''


def run(root: Path, *results: int) -> int:
    command = [sys.executable, str(Path(__file__).with_name("killed_run.py")), str(root), *map(str, results)]
    return subprocess.run(command, capture_output=True, check=False).returncode


def counting(tmp_path: Path) -> Path:
    """A project that writes down which of its functions run."""
    root = projects.make(tmp_path / "cards")
    (root / "lib.py").write_text(DYING.format(here=str(tmp_path)))
    projects.edited(root, "pipelines/train.py", "import depth", "import depth, noted")
    projects.edited(root, "pipelines/train.py", "    return LGBM", '    noted("model")\n    return LGBM')
    projects.edited(root, "pipelines/train.py", "    return {", '    noted("params")\n    return {')
    return root


@pytest.mark.parametrize("moment", list(MOMENTS))
def test_only_what_was_not_finished_runs_again(tmp_path: Path, moment: str) -> None:
    root = counting(tmp_path)
    step, time = MOMENTS[moment]
    (tmp_path / "die.txt").write_text(f"{step} {time}")
    assert run(root) == -signal.SIGKILL
    opened = homeostat.load(root)
    assert not opened.system.stores.tracker.versions("cards")
    (tmp_path / "die.txt").unlink()
    result = opened.run()
    assert result.version is not None
    assert (tmp_path / "ran.txt").read_text().split().count("params") == 1  # it was finished
    assert (tmp_path / "ran.txt").read_text().split().count("model") == 3  # two, and the one that died
    cached = {one.name for one in result.steps if one.cached}
    assert cached >= ({"checks", "params"} | ({"model", "convert", "evaluate"} if time == 2 else set()))
    assert [one.number for one in opened.system.stores.tracker.versions("cards")] == [1]
    assert not list(root.rglob("*.tmp")), "a half-written file"
    assert all(one.cached for one in opened.run().steps)


def test_a_run_that_is_killed_again_and_again_goes_on_where_it_was(tmp_path: Path) -> None:
    """Each process keeps four results and dies; the last is the bundle, which nobody knows then."""
    root = counting(tmp_path)
    kept = []
    for _ in range(2):
        assert run(root, 4) == -signal.SIGKILL
        kept.append(len(list((root / ".homeostat" / "cache").iterdir())))
    assert kept == [4, 8]
    opened = homeostat.load(root)
    assert not opened.system.stores.tracker.versions("cards")
    assert all(one.cached for one in opened.run().steps)
    assert [one.number for one in opened.system.stores.tracker.versions("cards")] == [1]
    assert len(opened.system.data.versions()) == 1
    assert sorted((tmp_path / "ran.txt").read_text().split()) == ["model", "model", "params"]


class Crash(BaseException):
    """Nothing catches it."""


WRITES = {"cache": ["put"], "blobs": ["put"], "journal": ["append"], "tracker": ["log_run", "register", "alias"]}


@contextmanager
def dying(stores: Stores, left: int) -> Iterator[None]:
    """The `left`-th write to any of the stores dies before it does anything."""
    calls = itertools.count(1)

    def guarded(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object) -> object:
            if next(calls) == left:
                raise Crash
            return real(*args)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for store, names in WRITES.items():
            for name in names:
                held = getattr(stores, store)
                patch.setattr(held, name, guarded(getattr(held, name)))
        yield


def test_a_crash_before_any_write_changes_no_outcome(tmp_path: Path) -> None:
    root = projects.make(tmp_path / "cards")
    whole = projects.system(root).runs.run()
    for left in itertools.count(1):
        stores = in_memory()
        try:
            with dying(stores, left):
                projects.system(root, stores).runs.run()
        except Crash:
            again = projects.system(root, stores).runs.run()
            assert (again.id, again.measurements, again.gates) == (whole.id, whole.measurements, whole.gates)
            assert [one.number for one in stores.tracker.versions("cards")] == [1]
            continue
        break
    assert left > 15  # so many writes there are, at least
