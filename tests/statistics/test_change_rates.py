"""Delay and false alarms of the change detector, by simulation; the baseline is estimated from 2,000 labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from homeostat.domain.gate import Verdict
from homeostat.engines.change import Baseline, Rule, detect, log_e, shiryaev_roberts

SIZE = 25  # labels a block


def blocks(rng: np.random.Generator, rate: float, count: int, wobble: float, size: int = SIZE) -> NDArray[np.float64]:
    """(count,) error rates of blocks whose true rate moves by `wobble` of itself."""
    rates = np.clip(rate * (1 + wobble * rng.standard_normal(count)), 0.001, 0.999)
    return rng.binomial(size, rates) / size


def baseline(rng: np.random.Generator, count: int, wobble: float, size: int = SIZE) -> Baseline:
    means = blocks(rng, 0.1, count, wobble, size)
    return Baseline(float(means.mean()), count * size, tuple(means.tolist()))


def delay(known: Baseline, before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    """Labels from the change to the alarm; infinite when there is none."""
    means = np.concatenate([before, after])
    steps = log_e(known, means, np.ones(len(means)), Rule())
    for end in range(len(before) + 1, len(means) + 1):
        if shiryaev_roberts(steps[:end]) >= Rule().threshold:
            return (end - len(before)) * SIZE
    return float("inf")


def test_errors_that_rise_from_10_to_15_percent_are_found_in_about_400_labels() -> None:
    rng = np.random.default_rng(0)
    delays = [delay(baseline(rng, 80, 0.0), blocks(rng, 0.1, 40, 0.0), blocks(rng, 0.15, 120, 0.0)) for _ in range(100)]
    assert np.median(delays) <= 450
    assert np.mean(np.isfinite(delays)) >= 0.97


def test_ordinary_weeks_raise_few_false_alarms_even_with_a_short_baseline_and_uneasy_days() -> None:
    """60 days, against a mean run of at least 100 days to a false alarm when the baseline is known exactly."""
    rng = np.random.default_rng(0)
    for count, wobble in ((7, 0.0), (7, 0.3), (35, 0.0), (35, 0.3)):
        false = 0
        for _ in range(100):
            known, means = baseline(rng, count, wobble, 48), blocks(rng, 0.1, 60, wobble, 48)
            false += shiryaev_roberts(log_e(known, means, np.ones(60), Rule())) >= Rule().threshold
        assert false <= 12


def test_rows_and_blocks_give_the_same_evidence() -> None:
    rng = np.random.default_rng(3)
    known = baseline(rng, 40, 0.0)
    rows = (rng.random(SIZE * 30) < 0.12).astype(float)
    change = detect(known, rows, np.repeat(np.arange(30), SIZE))
    steps = log_e(known, rows.reshape(30, SIZE).mean(axis=1), np.ones(30), Rule())
    assert change.evidence == shiryaev_roberts(steps)
    assert change.verdict is (Verdict.HARM if change.evidence >= 100 else Verdict.OK)
