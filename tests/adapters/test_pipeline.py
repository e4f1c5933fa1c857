"""A module of plain functions as a graph of steps."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from homeostat.adapters.pipeline import HamiltonPipeline
from homeostat.domain.errors import PipelineError

Module = Callable[[str], ModuleType]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    """Source text → a module of its own, imported as long as the test lasts."""

    def made(text: str) -> ModuleType:
        path = tmp_path / f"made_{len(list(tmp_path.iterdir()))}.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, path.stem, loaded)
        spec.loader.exec_module(loaded)
        return loaded

    return made


class Steps:
    """What goes through, and what is known already."""

    def __init__(self, **known: Any) -> None:
        self.known = known
        self.seen: list[tuple[str, str, Mapping[str, Any]]] = []

    def __call__(self, name: str, function: str, inputs: Mapping[str, Any], compute: Callable[[], Any]) -> Any:
        self.seen.append((name, function, dict(inputs)))
        return self.known[name] if name in self.known else compute()


CHAIN = """
def half(rows: int) -> float:
    return rows / 2


def _helper(rows: int) -> int:
    return rows


def params(half: float) -> dict:
    return {"half": half}


def model(half: float, params: dict, seed: int) -> str:
    return f"{half} {params} {seed}"


def unused(nobody_makes_this: int) -> int:
    raise AssertionError
"""
GIVEN = {"rows": 8, "seed": 1, "more": "unused"}


def test_each_step_goes_through_once_with_its_inputs(module: Module) -> None:
    steps = Steps()
    made = HamiltonPipeline()(module(CHAIN), ("model", "params"), GIVEN, steps)
    assert made == {"model": "4.0 {'half': 4.0} 1", "params": {"half": 4.0}}
    assert sorted(steps.seen, key=lambda one: one[0]) == [
        ("half", "half", {"rows": 8}),
        ("model", "model", {"half": 4.0, "params": {"half": 4.0}, "seed": 1}),
        ("params", "params", {"half": 4.0}),
    ]


def test_what_is_known_is_not_computed_and_others_build_on_it(module: Module) -> None:
    made = HamiltonPipeline()(module(CHAIN.replace("return rows / 2", "raise AssertionError")), ("params",), GIVEN,
                              Steps(half=7.0))  # fmt: skip
    assert made == {"params": {"half": 7.0}}


def test_what_the_module_does_not_make_is_not_in_the_answer(module: Module) -> None:
    made = HamiltonPipeline()(module("def model(seed: int) -> int:\n    return seed\n"), ("model", "params"), GIVEN,
                              Steps())  # fmt: skip
    assert made == {"model": 1}
    assert HamiltonPipeline()(module("VALUE = 1\n"), ("model", "params"), GIVEN, Steps()) == {}


def test_one_pipeline_runs_many_modules(module: Module) -> None:
    """The code of a project changes under a process that goes on."""
    pipeline = HamiltonPipeline()
    one, two = (module(f"def model(seed: int) -> int:\n    return seed + {n}\n") for n in (1, 2))
    assert [pipeline(m, ("model",), GIVEN, Steps())["model"] for m in (one, two, one)] == [2, 3, 2]
    assert pipeline(one, ("model",), {"seed": 10}, Steps())["model"] == 11


def test_a_decorated_function_is_named_with_its_steps(module: Module) -> None:
    text = """
from hamilton.function_modifiers import extract_fields, parameterize, source


@extract_fields({"a": int, "b": int})
def two(seed: int) -> dict:
    return {"a": seed, "b": seed + 1}


@parameterize(c={"v": source("a")}, d={"v": source("b")})
def each(v: int) -> int:
    return v * 10


def model(c: int, d: int) -> tuple:
    return c, d
"""
    steps = Steps()
    assert HamiltonPipeline()(module(text), ("model",), GIVEN, steps)["model"] == (10, 20)
    seen = {name: (function, inputs) for name, function, inputs in steps.seen}
    assert seen["c"] == ("each", {"a": 1})
    assert seen["d"] == ("each", {"b": 2})
    assert {name: function for name, (function, _) in seen.items()} == {
        "two": "two", "a": "two", "b": "two", "c": "each", "d": "each", "model": "model"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def model(nothing: int) -> int:\n    return 1\n", r"nothing makes 'nothing', which model needs"),
        ("def a(gone: int) -> int:\n    return 1\ndef model(a: int) -> int:\n    return 1\n", r"'gone', which a needs"),
        ("def model(seed) -> int:\n    return 1\n", "is no graph"),
        ("def model(seed: int):\n    return 1\n", "is no graph"),
        (
            "def a(model: int) -> int:\n    return 1\ndef model(a: int) -> int:\n    return 1\n",
            "in a circle: (a needs model needs a|model needs a needs model)",
        ),
        ("def seed() -> int:\n    return 2\ndef model(seed: int) -> int:\n    return seed\n", "'seed' is given"),
    ],
)
def test_a_graph_that_does_not_hold_together(module: Module, text: str, message: str) -> None:
    steps = Steps()
    with pytest.raises(PipelineError, match=message) as raised:
        HamiltonPipeline()(module(text), ("model",), GIVEN, steps)
    assert raised.value.where.endswith(".py")
    assert not steps.seen


def test_a_default_is_taken_where_nothing_makes_the_input(module: Module) -> None:
    text = "def model(seed: int, depth: int = 3) -> int:\n    return seed + depth\n"
    assert HamiltonPipeline()(module(text), ("model",), GIVEN, Steps())["model"] == 4
    other = text + "def unused(depth: int) -> int:\n    return depth\n"  # who is not asked for needs nothing
    assert HamiltonPipeline()(module(other), ("model",), GIVEN, Steps())["model"] == 4
    made = text + "def depth() -> int:\n    return 10\n"
    assert HamiltonPipeline()(module(made), ("model",), GIVEN, Steps())["model"] == 11


WITHOUT_MLFLOW = """
import sys
import plus
from homeostat.adapters.pipeline import HamiltonPipeline
made = HamiltonPipeline()(plus, ["model"], {"x": 1}, lambda step, function, inputs, compute: compute())
import hamilton.plugins.polars_extensions
assert "mlflow" not in sys.modules
import hamilton.plugins.mlflow_extensions
assert "mlflow" in sys.modules
print(made)
"""


def test_a_graph_needs_no_mlflow_and_hides_it_from_nobody(tmp_path: Path) -> None:
    (tmp_path / "plus.py").write_text("def model(x: int) -> int:\n    return x + 1\n")
    command = [sys.executable, "-c", WITHOUT_MLFLOW]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("{'model': 2}\n", "")


def test_what_the_functions_raise_passes(module: Module, capfd: pytest.CaptureFixture[str]) -> None:
    text = "def model(seed: int) -> int:\n    raise LookupError('mine')\n"
    with pytest.raises(LookupError, match=r"^mine$"):
        HamiltonPipeline()(module(text), ("model",), GIVEN, Steps())
    assert capfd.readouterr() == ("", "")  # the caller tells it, nobody else
