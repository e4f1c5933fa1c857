"""A small project on disk, and systems over it: real code, real training, a stream whose concept can change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

import homeostat
from homeostat.adapters.clock import SimulatedClock
from homeostat.adapters.code import ProjectCode
from homeostat.adapters.source import Source
from homeostat.config import read_policy
from homeostat.domain.units import DAY_MS, HOUR_MS
from homeostat.project import Project
from homeostat.serving import messages
from homeostat.wiring.stores import Stores, in_memory
from homeostat.wiring.system import System

START_MS = 20_454 * DAY_MS
POLICY = """
name: cards
task: binary
data:
  source: rows.parquet
  time: at
  target: fraud
  label_horizon: 1d
checks: checks.schema:Rows
train: {metric: roc_auc, window: 20d, holdout: 3d}
gates:
  - {metric: roc_auc, versus: champion, margin: 0.05}
release: {max_hold: 3d}
retrain: {when: [performance, {schedule: 10d}], cooldown: 4d}
rehearsal: {warmup: 10d}
"""
TRAIN = '''
"""How the model is made."""

from typing import Any

import numpy as np
from lightgbm import LGBMClassifier

from lib import depth


def params() -> dict[str, Any]:
    return {"n_estimators": 20, "num_leaves": depth()}


def model(x: np.ndarray, y: np.ndarray, params: dict[str, Any], seed: int) -> LGBMClassifier:
    return LGBMClassifier(**params, random_state=seed, n_jobs=1, deterministic=True, verbose=-1).fit(x, y)
'''
CHECKS = """
import pandera.polars as pa
import polars as pl

Rows = pa.DataFrameSchema(
    {
        "amount": pa.Column(pl.Float64, pa.Check.in_range(0, 100_000)),
        "hour": pa.Column(pl.Int64, pa.Check.in_range(0, 23)),
        "country": pa.Column(pl.String, nullable=True),
        "online": pa.Column(pl.Boolean),
        "fraud": pa.Column(pl.Int64, pa.Check.isin([0, 1])),
    }
)
"""


def rows(days: int = 30, a_day: int = 72, change_day: int | None = None, seed: int = 3) -> pl.DataFrame:
    """Rows at even steps; from `change_day` on, the truth turns round."""
    rng = np.random.default_rng(seed)
    n = days * a_day
    at = START_MS + (np.arange(n) * DAY_MS) // a_day
    amount, online = np.round(rng.gamma(2, 20, n), 2), rng.random(n) < 0.4
    sign = np.where((at - START_MS) // DAY_MS >= (days if change_day is None else change_day), -1, 1)
    risk = 1 / (1 + np.exp(-sign * ((amount - 40) / 10 + online)))
    countries = rng.choice(["de", "fr", "pl", ""], n).tolist()
    return pl.DataFrame(
        {
            "at": pl.Series(at).cast(pl.Datetime("ms")),
            "amount": amount,
            "hour": (at // HOUR_MS % 24).astype(np.int64),
            "country": [name or None for name in countries],
            "online": online,
            "fraud": (rng.random(n) < risk).astype(np.int64),
        }
    )


def make(root: Path, frame: pl.DataFrame | None = None, policy: str = POLICY, train: str = TRAIN) -> Path:
    """Write a project. → its folder."""
    texts = {
        "homeostat.yaml": policy,
        "pipelines/train.py": train,
        "lib.py": "def depth() -> int:\n    return 7\n",
        "checks/schema.py": CHECKS,
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (rows() if frame is None else frame).write_parquet(root / "rows.parquet")
    return root


def serving(root: Path, policy: str = POLICY) -> Project:
    """A project whose first version serves."""
    opened = homeostat.load(make(root, policy=policy))
    opened.run()
    system = opened.system
    system.plane = system.engine
    system.control.begin()
    system.control.settle()
    return opened


def system(root: Path, stores: Stores | None = None, source: Callable[[], pl.DataFrame] | None = None) -> System:
    """A system over the project in memory, at the end of its data."""
    policy = read_policy(root)
    clock = SimulatedClock(START_MS + 60 * DAY_MS)
    read = source or Source(root, policy.data, policy.task)
    return System(policy, ProjectCode(root), read, stores or in_memory(), clock, messages.ids("test"))


def edited(root: Path, name: str, old: str, new: str) -> None:
    """Change a file of the project."""
    text = (root / name).read_text()
    assert old in text
    (root / name).write_text(text.replace(old, new))
