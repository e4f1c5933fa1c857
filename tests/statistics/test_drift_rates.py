"""False alarms and power of the drift rule, by simulation: 20 features; the reference holds 90 windows of the same
size (30 at n = 10,000)."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.gate import Verdict
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.domain.units import DAY_MS
from homeostat.engines.drift import drift
from homeostat.engines.drift.profile import Reference, profile, reference

FEATURES, WINDOWS = 19, 90  # the prediction is the twentieth
SCHEMA = Schema(tuple(Field(f"f{i}", Kind.NUMBER, nullable=True) for i in range(FEATURES)), Task.REGRESSION, "y")

SHIFTED = {("f0", "distribution"), ("f0", "shape")}


def draw(rng: np.random.Generator, windows: int, n: int, wobble: float) -> NDArray[np.float64]:
    """(windows, n, 20) normal numbers, 2 % missing, whose mean moves by `wobble` sd from window to window."""
    x = rng.standard_normal((windows, n, FEATURES + 1)) + wobble * rng.standard_normal((windows, 1, FEATURES + 1))
    x[..., :-1][rng.random((windows, n, FEATURES)) < 0.02] = np.nan
    return x


def frame(x: NDArray[np.float64], day: NDArray[np.int64] | None = None) -> pl.DataFrame:
    events = {} if day is None else {EVENT_MS: day * DAY_MS}
    return pl.DataFrame({f"f{i}": x[:, i] for i in range(FEATURES)} | events)


@cache
def calibrated(n: int, wobble: float, seed: int) -> Reference:
    days = (WINDOWS if n < 10_000 else WINDOWS // 3) + 2
    x = draw(np.random.default_rng(seed), days, n, wobble).reshape(-1, FEATURES + 1)
    return reference(SCHEMA, frame(x, np.repeat(np.arange(days), n)), x[:, -1:], (DAY_MS,))


def alarms(ref: Reference, x: NDArray[np.float64]) -> set[tuple[str, str]]:
    readings = drift(ref, profile(ref, frame(x), x[:, -1:]), 0.01)
    return {(r.subject, r.test) for r in readings if r.verdict is Verdict.HARM}


@pytest.mark.parametrize("wobble", [0.0, 0.03])
@pytest.mark.parametrize(("n", "windows"), [(200, 150), (1_000, 50), (10_000, 15)])
def test_ordinary_windows_raise_no_alarm(n: int, windows: int, wobble: float) -> None:
    """At 1 % a window, more than 4 alarms in 150 windows, or 2 in 50, have a chance below 2 %; the seeds are fixed."""
    rng = np.random.default_rng(n)
    found = sum(
        bool(alarms(calibrated(n, wobble, 10 + seed), x))
        for seed in range(2)
        for x in draw(rng, windows // 2, n, wobble)
    )
    assert found <= max(2, windows // 37)


@pytest.mark.parametrize(("n", "windows", "least"), [(200, 100, 0.1), (1_000, 40, 0.9), (10_000, 10, 1.0)])
def test_a_quarter_of_a_standard_deviation_is_found(n: int, windows: int, least: float) -> None:
    x = draw(np.random.default_rng(1), windows, n, 0.0)
    x[..., 0] += 0.25
    found = np.mean([bool(alarms(calibrated(n, 0.0, 11), one) & SHIFTED) for one in x])
    assert found >= least


@pytest.mark.parametrize(("n", "windows", "least"), [(200, 50, 0.04), (1_000, 40, 0.8), (10_000, 10, 1.0)])
def test_missing_values_that_rise_from_2_to_5_percent_are_found(n: int, windows: int, least: float) -> None:
    rng = np.random.default_rng(2)
    x = draw(rng, windows, n, 0.0)
    x[..., 0][rng.random((windows, n)) < 0.03 / 0.98] = np.nan
    found = np.mean([("f0", "missing") in alarms(calibrated(n, 0.0, 11), one) for one in x])
    assert found >= least
