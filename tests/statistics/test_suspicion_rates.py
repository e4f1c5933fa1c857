"""How often a source of labels is suspected though nothing happened, and how soon when something did."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from homeostat.engines.suspicion import MOST, contradiction, foretold, jump

WINDOW = 144


def noise(x: NDArray[np.float32], told: NDArray[np.float64], numbers: bool, scale: float) -> float:
    """How far the labels contradict each other."""
    rows, expected = foretold(x, told, numbers)
    return contradiction(told[rows], expected, numbers, scale)


def windows(n: int, wrong: float, seed: int, turned: bool = False) -> list[float]:
    """The noise of n windows, each of a world a little easier or harder than the one before; some of a window's
    labels are a matter of chance anyway."""
    made, rng = [], np.random.default_rng(seed)
    for _ in range(n):
        x = rng.standard_normal((WINDOW, 4))
        hard = 0.03 + 0.05 * rng.random()
        truth = (x[:, 0] + x[:, 1] > 0) ^ (rng.random(WINDOW) < hard) ^ (turned & (x[:, 0] > 0))
        told = truth ^ (rng.random(WINDOW) < wrong)
        made.append(noise(x.astype(np.float32), told.astype(float), False, 1.0))
    return made


def suspected(before: list[float], now: list[float], seed: int) -> NDArray[np.bool_]:
    """Each of `now` against windows drawn from `before`, many times over."""
    rng, found = np.random.default_rng(seed), []
    for one in rng.choice(now, 2_000):
        made = jump(list(rng.choice(before, MOST, replace=False)), float(one), WINDOW)
        assert made is not None
        found.append(made.suspicious)
    return np.array(found)


def test_a_steady_source_is_not_suspected() -> None:
    clean = windows(120, 0.0, 1)
    assert suspected(clean[:60], clean[60:], 2).mean() < 0.001


def test_a_turned_world_is_not_suspected() -> None:
    assert suspected(windows(60, 0.0, 3), windows(60, 0.0, 4, turned=True), 5).mean() < 0.005


def test_wrong_labels_are() -> None:
    clean = windows(60, 0.0, 3)
    assert suspected(clean, windows(60, 0.3, 6), 7).mean() > 0.5  # in one window; the next day there is another
    assert suspected(clean, windows(60, 0.4, 6), 7).mean() > 0.7
    assert suspected(clean, windows(60, 0.05, 6), 7).mean() < 0.05  # too few to matter


def test_too_short_a_history_says_nothing() -> None:
    assert jump([0.1] * 5, 0.9, WINDOW) is None
    one = jump([0.1] * 6, 0.9, WINDOW)
    assert one is not None
    assert one.suspicious
    assert not one.calm


def test_numbers_are_as_wrong_as_their_scale_says() -> None:
    x = np.arange(200, dtype=np.float32)[:, None]
    assert noise(x, np.arange(200.0), True, 100.0) < 0.05
    shuffled = np.random.default_rng(0).permutation(200).astype(float)
    assert noise(x, shuffled, True, 1.0) > 0.9
