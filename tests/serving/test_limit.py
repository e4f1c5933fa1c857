"""The adaptive limit on simulated ticks of known cost."""

from __future__ import annotations

import numpy as np
import pytest

from homeostat.serving.limit import BURST, PATIENCE_US, SHARE, Limit


def taught(fixed_us: float, each_us: float, sizes: np.ndarray, noise: float = 0.1, most: int = 100_000) -> Limit:
    rng, limit = np.random.default_rng(7), Limit(most)
    for size in sizes.tolist():
        limit.seen(size, (fixed_us + each_us * size) * (1 + noise * abs(rng.normal())))
    return limit


SIZES = np.random.default_rng(3).integers(1, 60, 2_000)


@pytest.mark.parametrize(("fixed_us", "each_us"), [(1_000, 100), (20_000, 500), (50_000, 5_000)])
def test_lets_in_what_still_brings_throughput(fixed_us: float, each_us: float) -> None:
    limit = taught(fixed_us, each_us, SIZES)
    useful = SHARE / (1 - SHARE) * fixed_us / each_us
    assert limit.value == pytest.approx(BURST + useful, rel=0.25)


def test_little_work_is_no_overload() -> None:
    assert taught(100, 10, SIZES).value == pytest.approx((PATIENCE_US - 100) / 10, rel=0.25)
    assert taught(100, 10, SIZES, most=64).value == 64


def test_slow_requests_wait_in_a_short_line() -> None:
    assert BURST <= taught(100, 50_000, SIZES).value <= BURST + 2


def test_ticks_of_one_size_tell_the_cost_of_that_size() -> None:
    limit = taught(1_000, 100, SIZES, noise=0)
    before = limit.value
    for _ in range(500):
        limit.seen(30, 2 * (1_000 + 100 * 30))
    assert limit.fixed_us + 30 * limit.each_us == pytest.approx(2 * (1_000 + 100 * 30), rel=0.01)
    assert before / 4 < limit.value < before * 4


def test_a_pause_of_the_machine_is_not_the_models_doing() -> None:
    limit = taught(1_000, 100, SIZES)
    before = limit.value
    limit.seen(30, 10_000_000)
    assert limit.value == pytest.approx(before, rel=0.3)


def test_learns_at_once_that_a_model_is_slow() -> None:
    """A flood that meets a new worker is let in once, not again."""
    limit = Limit(1_024)
    limit.seen(1, 5_000)
    limit.seen(limit.value, limit.value * 5_000)
    assert limit.value < 30
