"""False alarms and power of the drift rule, by simulation: 20 columns (`bench.monitor.rates` has the whole table).
Ordinary windows are judged one after the other, so that merged ones raise their false alarms too."""

from __future__ import annotations

import pytest
from bench.monitor.rates import detected, false_alarms, power


@pytest.mark.parametrize("wobble", [0.0, 0.03])
@pytest.mark.parametrize(("n", "windows"), [(200, 90), (1_000, 30), (10_000, 10)])
def test_ordinary_windows_raise_no_alarm(n: int, windows: int, wobble: float) -> None:
    """At 1 % a window, more than 3 alarms in 90 windows, or 2 in 30, have a chance below 1.5 %; the seeds are fixed."""
    assert false_alarms(n, windows, wobble, seeds=2) * windows <= max(2, windows // 30)


@pytest.mark.parametrize(("n", "windows", "least"), [(200, 60, 0.15), (1_000, 30, 0.9), (10_000, 5, 1.0)])
def test_a_quarter_of_a_standard_deviation_is_found(n: int, windows: int, least: float) -> None:
    assert power(n, windows, shift=0.25) >= least


@pytest.mark.parametrize(("n", "windows", "least"), [(200, 50, 0.04), (1_000, 30, 0.8), (10_000, 5, 1.0)])
def test_missing_values_that_rise_from_2_to_5_percent_are_found(n: int, windows: int, least: float) -> None:
    assert power(n, windows, missing=0.03 / 0.98) >= least


@pytest.mark.parametrize("wobble", [0.0, 0.03])
def test_a_tenth_of_a_standard_deviation_is_found_by_many_windows_of_200_rows(wobble: float) -> None:
    """Of 20 columns that moved: half within about 16 windows. One window alone would find it after 62."""
    after = detected(200, 0.1, wobble, windows=20, seeds=1)
    assert after[len(after) // 2] <= 20
    assert after[0] > 1
