"""Calls in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from homeostat.domain.errors import CheckFailed, HomeostatError, PipelineError, RequestRefused, ServiceError
from homeostat.ports import Progress
from homeostat.wiring import apart
from homeostat.wiring.apart import Apart, side_by_side

Told = list[tuple[int, int, str]]


def counted(n: int, progress: Progress) -> tuple[int, int, int]:
    """→ n, the process, and how many cores it takes itself to have."""
    os.write(1, b"this is no answer")
    for done in range(n):
        progress(done + 1, n, "counting")
    return n, os.getpid(), apart.cores()


def failing(error: Exception, _progress: Progress) -> None:
    raise error


def ended(_progress: Progress) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def waiting(_progress: Progress) -> None:
    os.write(1, b"%d\n" % os.getpid())
    signal.pause()


def noted(told: Told) -> Progress:
    return lambda *now: told.append(now)


def test_another_process_answers_and_tells_how_far_it_is() -> None:
    told: Told = []
    with Apart(counted, 1_000) as other:
        n, process, cores = other.result(noted(told))
    assert (n, cores) == (1_000, 1)
    assert process != os.getpid()
    assert [done for done, _, _ in told] == list(range(10, 1_001, 10))
    assert {doing for _, _, doing in told} == {"counting"}


@pytest.mark.parametrize(
    "error",
    [
        PipelineError("the pipeline failed", where="train.py:3", way_out="Mend it."),
        CheckFailed("2 rules are broken", ["amount > 0: 3 rows", "hour < 24: 1 row"]),
        RequestRefused("no number", address="/v1/models/cards/predict", field="amount", rule="number", record=2),
        ValueError("any other"),
    ],
)
def test_its_errors_are_raised_here_in_the_same_words(error: Exception) -> None:
    with Apart(failing, error) as other, pytest.raises(type(error)) as raised:
        other.result(noted([]))
    assert str(raised.value) == str(error)
    assert vars(raised.value) == vars(error)


def test_a_process_that_something_else_ends_is_told() -> None:
    with Apart(ended) as other, pytest.raises(ServiceError, match="ended with code -9"):
        other.result(noted([]))


def test_it_ends_with_its_block() -> None:
    with Apart(waiting) as other:
        process = other._process
        assert process.poll() is None
    assert process.returncode == -signal.SIGKILL


def few_cores(n: int) -> Callable[[], int]:
    return lambda: n


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_side_by_side_in_order_on_as_many_cores_as_there_are(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "cores", few_cores(cores))
    told: Told = []
    made = side_by_side({name: (counted, n) for n, name in enumerate(["one", "two", "three"], 1)}, noted(told))
    assert [(name, n) for name, (n, _, _) in made.items()] == [("one", 1), ("two", 2), ("three", 3)]
    assert len({process for _, process, _ in made.values()} - {os.getpid()}) == (0 if cores == 1 else 3)
    assert [doing.partition(":")[0] for _, _, doing in told] == ["one", "two", "two", "three", "three", "three"]


def test_the_first_in_order_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "cores", few_cores(2))
    calls = {"one": (counted, 3), "two": (failing, PipelineError("the first")), "three": (failing, ValueError("last"))}
    with pytest.raises(HomeostatError, match="the first"):
        side_by_side(calls, noted([]))


SCRIPT = """
import test_apart
from homeostat.wiring import apart
apart.cores = lambda: 2
print("once: no guard is needed here", flush=True)
apart.side_by_side({"a": (test_apart.waiting,), "b": (test_apart.waiting,)}, print)
"""


def test_ctrl_c_leaves_no_process_and_a_script_needs_no_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    running = subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
        start_new_session=True,
    )
    assert running.stderr
    others = [int(running.stderr.readline()) for _ in range(2)]
    os.killpg(running.pid, signal.SIGINT)
    said, error = running.communicate(timeout=60)
    assert running.returncode == -signal.SIGINT
    assert said == "once: no guard is needed here\n"
    assert error.count("Traceback") == error.count("KeyboardInterrupt\n") == 1
    for process in others:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
