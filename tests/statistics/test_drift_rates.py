"""False alarms and power of the drift rule, by simulation: 20 columns (`bench.monitor.rates` has the whole table).
Ordinary windows are judged one after the other, so that merged ones raise their false alarms too."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from bench.monitor.drawn import LAYOUT, Normal, chances
from bench.monitor.rates import Share, detected, false_alarms, power
from scipy.special import chdtrc


@pytest.mark.parametrize("mean", [0.0, 0.3])
def test_drawn_counts_are_distributed_as_counted_rows(mean: float) -> None:
    """Independent rows are a multinomial draw by nature, so only the chances of the cells may be wrong: chi-squared of
    two million rows, counted as a profile counts them, and of as many drawn, over each cell that expects five."""
    rng, column, n = np.random.default_rng(7), Normal(mean, 0.02), 2_000_000
    rows = np.where(rng.random(n) < column.missing, np.nan, rng.standard_normal(n) + mean)
    expected = chances(column)
    for counts in (LAYOUT.count(pl.Series(rows)), column.draw(rng, n)):
        assert abs(counts.missing - n * column.missing) < 5 * np.sqrt(n * column.missing)
        seen = np.zeros(len(expected))
        seen[counts.cells] = counts.counts
        many = expected * counts.present >= 5
        assert many.sum() > 2_000
        share = expected[many] * counts.present
        rest = counts.present - np.array([seen[many].sum(), share.sum()])
        chi = float(np.sum((seen[many] - share) ** 2 / share) + (rest[0] - rest[1]) ** 2 / rest[1])
        assert chdtrc(int(many.sum()), chi) > 1e-3


@pytest.mark.parametrize("wobble", [0.0, 0.03])
@pytest.mark.parametrize(("n", "windows"), [(200, 60), (10_000, 15), (1_000_000, 10)])
def test_ordinary_windows_raise_no_alarm(n: int, windows: int, wobble: float) -> None:
    """At 1 % a window, more than 2 alarms in 60 windows have a chance of 2 %; the seeds are fixed."""
    assert false_alarms(n, windows, wobble).found <= 2


def test_an_interval_is_that_of_clopper_and_pearson() -> None:
    """Their limits solve P(K >= k) = P(K <= k) = 2.5 %; without an alarm the upper one is 1 - .025^(1 / n)."""
    assert Share(0, 300).interval == (0.0, pytest.approx(1 - 0.025 ** (1 / 300)))
    assert Share(3, 3).interval == (pytest.approx(0.025 ** (1 / 3)), 1.0)


@pytest.mark.parametrize(("n", "windows", "least"), [(200, 60, 0.15), (1_000, 30, 0.9), (10_000, 5, 1.0)])
def test_a_quarter_of_a_standard_deviation_is_found(n: int, windows: int, least: float) -> None:
    assert power(n, windows, shift=0.25).rate >= least


@pytest.mark.parametrize(("n", "windows", "least"), [(1_000, 38, 0.86), (10_000, 5, 1.0)])
def test_missing_values_that_rise_from_2_to_5_percent_are_found(n: int, windows: int, least: float) -> None:
    assert power(n, windows, missing=0.03).rate >= least


@pytest.mark.parametrize("wobble", [0.0, 0.03])
def test_a_tenth_of_a_standard_deviation_is_found_by_many_windows_of_200_rows(wobble: float) -> None:
    """Of 20 columns that moved: half within about 16 windows. One window alone would find it after 62."""
    after = detected(200, 0.1, wobble, windows=20, seeds=1)
    assert after[len(after) // 2] <= 20
    assert after[0] > 1
