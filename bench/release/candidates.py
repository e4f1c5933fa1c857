"""The champion and the eight candidates: what each is, and what should become of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

import homeostat
from bench.release import rows

PROJECT = Path(__file__).parent / "project"
HISTORY = "history.parquet"
GOOD = {"RATE": 0.02}


@dataclass(frozen=True)
class Candidate:
    """`settings`: constants of `pipelines/train.py`; `data`: what its training saw of the history; `lane`: which lane
    or hard stop should end its release ("" : none, it is promoted), `says`: a word of the reason that it should give.
    """

    name: str
    lane: str
    says: str
    settings: Mapping[str, float | str] = field(default_factory=dict)
    data: Callable[[pl.DataFrame], pl.DataFrame] = lambda frame: frame


UNFORESEEN = "leaks memory"
"""What no backtest can know."""
SLOW = "3 x slower at the tail"
CANDIDATES = (
    Candidate("throws on 5 % of rows", "errors", "bad answers", GOOD | {"FAULT": "throws"}),
    Candidate("returns NaN", "hard stop", "non-finite", GOOD | {"FAULT": "nan"}),
    Candidate(SLOW, "slow", "calls over", GOOD | {"FAULT": "slow"}),
    Candidate("wrong for one segment", "segments", "es", GOOD, lambda frame: rows.turned_round(frame, "es")),
    Candidate("wrong everywhere, plausible", "quality", "loss", GOOD, rows.leaked),
    Candidate(UNFORESEEN, "hard stop", "memory", GOOD | {"FAULT": "leaks"}),
    Candidate("identical", "", "", {"EDITION": 2}),
    Candidate("good", "", "", GOOD),
)
QUICK = ("throws on 5 % of rows", "returns NaN", "identical")
CHAMPION = Candidate("champion", "", "")


def project(folder: Path, step: str) -> Path:
    """The project, with a champion that serves; `step`: the least time of each step of a release."""
    root = folder / "cards"
    shutil.copytree(PROJECT, root, ignore=shutil.ignore_patterns("__pycache__"))
    policy = root / "homeostat.yaml"
    policy.write_text(policy.read_text().replace("min_time: 8s", f"min_time: {step}"))
    rows.history().write_parquet(root / HISTORY)
    train(root, CHAMPION)
    system = homeostat.load(root).system
    system.plane = system.engine
    system.control.begin()
    system.control.settle()
    return root


def train(root: Path, candidate: Candidate) -> int:
    """`homeostat run` with what makes the candidate; → its version."""
    code = root / "pipelines" / "train.py"
    before = (PROJECT / "pipelines" / "train.py").read_text()
    code.write_text(_with(before, candidate.settings))
    candidate.data(pl.read_parquet(root / HISTORY)).write_parquet(root / "rows.parquet")
    version = homeostat.load(root).run().version
    assert version is not None
    return version.number


def _with(text: str, settings: Mapping[str, float | str]) -> str:
    """The same module with other constants."""
    lines = text.splitlines()
    for i, line in enumerate(lines):
        name, equals, _ = line.partition(" = ")
        if equals and name in settings:
            value = settings[name]
            lines[i] = f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value}"
    return "\n".join(lines) + "\n"
