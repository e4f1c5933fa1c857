"""Cache keys and gates, by literals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from homeostat.domain.gate import Measurement, Verdict
from homeostat.domain.policy import GatePolicy
from homeostat.engines.gate import difference, threshold, versus
from homeostat.engines.plan import CodeIndex, step_key

TRAIN = '''
"""Doc."""
import lib.deep
from lib.helper import scale
from lib import other as side

RATE = 0.1

def x(frame):
    """Doc."""
    return scale(frame)  # a comment

def model(x):
    return RATE

def third(x):
    return side.f(x) + lib.deep.g(x)
'''
HELPER = "FACTOR = 2\n\ndef scale(v):\n    return v * FACTOR\n\ndef unused():\n    return 1\n"
SOURCES = {
    "train": TRAIN,
    "lib.helper": HELPER,
    "lib.other": "def f(x):\n    return 1\n",
    "lib.deep": "def g(x):\n    return 1\n",
}


def changed(module: str, old: str, new: str) -> set[str]:
    """The functions of train whose digest changes with an edit."""
    assert old in SOURCES[module]
    before, after = CodeIndex(SOURCES), CodeIndex(SOURCES | {module: SOURCES[module].replace(old, new)})
    return {name for name in ("x", "model", "third") if before.digest("train", name) != after.digest("train", name)}


@pytest.mark.parametrize(
    ("module", "old", "new", "reruns"),
    [
        ("train", "# a comment", "# another", set()),
        ("train", '    """Doc."""', '    """Other."""', set()),
        ("train", "RATE = 0.1", "RATE = 0.2", {"model"}),
        ("lib.helper", "FACTOR = 2", "FACTOR = 3", {"x", "third"}),
        ("lib.helper", "return 1", "return 2", set()),
        ("lib.other", "return 1", "return 2", {"third"}),
        ("lib.deep", "return 1", "return 2", {"third"}),
        ("lib.helper", "FACTOR = 2", "FACTOR = 2\nprint(FACTOR)", {"x", "third"}),
    ],
)
def test_an_edit_reruns_exactly_what_it_reaches(module: str, old: str, new: str, reruns: set[str]) -> None:
    """`third` uses its parameter `x`, which is named like the function it comes from: that counts as reaching it."""
    assert changed(module, old, new) == reruns


def test_a_star_import_reaches_the_whole_module() -> None:
    sources = {"a": "from b import *\n\ndef f():\n    return g()\n", "b": "def g():\n    return 1\n"}
    edited = sources | {"b": "def g():\n    return 2\n"}
    assert CodeIndex(sources).digest("a", "f") != CodeIndex(edited).digest("a", "f")


def test_a_key_covers_code_inputs_and_environment() -> None:
    keys = {
        step_key(*parts)
        for parts in (("c", {"a": "1"}, "e"), ("d", {"a": "1"}, "e"), ("c", {"b": "1"}, "e"), ("c", {"a": "1"}, "f"))
    }
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("low", "high", "at_least", "at_most", "verdict"),
    [
        (0.8, 0.9, 0.8, None, Verdict.OK),
        (0.7, 0.9, 0.8, None, Verdict.UNKNOWN),
        (0.6, 0.7, 0.8, None, Verdict.HARM),
        (0.6, 0.7, None, 0.8, Verdict.OK),
        (0.7, 0.9, None, 0.8, Verdict.UNKNOWN),
        (0.85, 0.9, None, 0.8, Verdict.HARM),
        (math.nan, math.nan, 0.8, None, Verdict.UNKNOWN),
    ],
)
def test_a_threshold_against_an_interval(
    low: float, high: float, at_least: float | None, at_most: float | None, verdict: Verdict
) -> None:
    value = 0.8 if math.isnan(low) else (low + high) / 2
    (result,) = threshold(GatePolicy("m", at_least, at_most), Measurement("m", value, low, high, 100))
    assert result.verdict is verdict


def test_what_could_not_be_measured_is_invalid() -> None:
    nothing = Measurement("m", math.nan, math.nan, math.nan, 100)
    assert threshold(GatePolicy("m", at_least=0.5), nothing)[0].verdict is Verdict.INVALID
    assert versus(GatePolicy("m", versus="champion"), nothing).verdict is Verdict.INVALID


@pytest.mark.parametrize(
    ("shift", "verdict"), [(0.0, Verdict.OK), (-0.5, Verdict.OK), (2.0, Verdict.HARM)], ids=["same", "better", "worse"]
)
def test_versus_the_champion_on_the_same_rows(shift: float, verdict: Verdict) -> None:
    noise = np.random.default_rng(1).normal(size=400)
    champion = np.abs(noise)[:, None] + 1
    gap = difference("mae", np.zeros(400), champion + shift, champion)
    assert gap.value == pytest.approx(-shift)
    assert versus(GatePolicy("mae", versus="champion", margin=0.1), gap).verdict is verdict
