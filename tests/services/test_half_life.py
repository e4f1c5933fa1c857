"""Rows that count less with their age, in a real project's own training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import projects
from homeostat.domain.errors import PipelineError
from homeostat.domain.units import DAY_MS
from homeostat.services.training import weights

HALF = projects.POLICY.replace("window: 20d", "window: 20d, half_life: 2d")
WEIGHED = projects.TRAIN.replace("seed: int)", "seed: int, weight: np.ndarray | None = None)").replace(
    ".fit(x, y)", ".fit(x, y, sample_weight=weight)"
)


def test_a_row_counts_half_for_each_half_life() -> None:
    newest = 50 * DAY_MS
    made = weights(np.array([newest - 4 * DAY_MS, newest - 2 * DAY_MS, newest]), 2 * DAY_MS)
    assert made.tolist() == [0.25, 0.5, 1.0]


def test_a_model_with_a_half_life_follows_a_world_that_turned(tmp_path: Path) -> None:
    """The truth turns round on day 25 of 30: of 20 days, 15 tell the old one."""
    assert WEIGHED != projects.TRAIN
    frame = projects.rows(30, 72, 25)
    missed = {}
    for name, policy in (("alike", projects.POLICY), ("half", HALF)):
        system = projects.system(projects.make(tmp_path / name, frame, policy, WEIGHED))
        rows = system.data.newest()
        known, new = rows[-20 * 72 : -72], rows[-72:]
        likely = system.fit(known)[1](new)[:, 1]
        missed[name] = float(np.mean(np.abs(likely - new["fraud"].cast(pl.Float64).to_numpy())))
    assert missed["half"] < 0.8 * missed["alike"]


def test_another_half_life_trains_anew(tmp_path: Path) -> None:
    root = projects.make(tmp_path / "cards", policy=HALF, train=WEIGHED)
    one = projects.system(root)
    one.runs.run()
    projects.edited(root, "homeostat.yaml", "half_life: 2d", "half_life: 4d")
    ran = {step.name for step in projects.system(root, one.stores).runs.run().steps if not step.cached}
    assert {"model", "model (refit)"} <= ran


def test_a_pipeline_that_takes_no_weights_is_told_so(tmp_path: Path) -> None:
    system = projects.system(projects.make(tmp_path / "cards", policy=HALF))
    with pytest.raises(PipelineError, match="no function takes the weights of the rows"):
        system.runs.run()
