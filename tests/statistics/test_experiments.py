"""What experiments conclude while one looks all the time: on identical arms, on a lift, on amounts with long tails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from homeostat.domain.experiment import Conclusion, Effect
from homeostat.domain.policy import ExperimentPolicy, SignalPolicy
from homeostat.engines.evidence import mean_evidence, tally
from homeostat.engines.experiment import (
    ALPHA,
    Units,
    conclude,
    effect,
    scaled,
    split_evidence,
    units_needed,
)

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, NDArray[np.int64]], Array]
CONVERSION = SignalPolicy("conversion", bounds=(0, 1), missing=0, margin=0.02)
AMOUNT = SignalPolicy("amount", missing=0, margin=1.0)
RATING = SignalPolicy("rating", bounds=(1, 5))


def converts(*rates: float) -> Draw:
    return lambda rng, arm: (rng.random(len(arm)) < np.array(rates)[arm]).astype(float)


def spends(*more: float) -> Draw:
    """Nine in ten spend nothing, the others a lognormal amount: mean 4.7, standard deviation 34; and some `more`."""

    def draw(rng: np.random.Generator, arm: NDArray[np.int64]) -> Array:
        amount = np.where(rng.random(len(arm)) < 0.1, rng.lognormal(3, 1.3, len(arm)), 0)
        return np.asarray(amount + np.array(more)[arm])

    return draw


def rates(*means: float) -> Draw:
    return lambda rng, arm: np.clip(np.round(rng.normal(np.array(means)[arm], 1)), 1, 5)


def drifting(rng: np.random.Generator, arm: NDArray[np.int64]) -> Array:
    """Identical arms whose rate moves between .02 and .3 with the hour."""
    rate = 0.16 + 0.14 * np.sin(np.arange(len(arm)) / 300)
    return (rng.random(len(arm)) < rate).astype(float)


def drawn(seed: int, n: int, shares: list[int], draw: Draw) -> Units:
    rng = np.random.default_rng(seed)
    arm = rng.choice(len(shares), n, p=np.array(shares) / 10_000)
    return Units(draw(rng, arm), arm)


def looks(metric: SignalPolicy, found: Units, arm: int, shares: list[int], alpha: float, every: int) -> list[Effect]:
    ends = range(every, len(found.arm) + 1, every)
    return [effect(metric, Units(found.value[:end], found.arm[:end]), arm, [shares], alpha) for end in ends]


def decided(metric: SignalPolicy, found: Units, arm: int, shares: list[int], alpha: float, every: int) -> str:
    """As `conclude` says better or worse at the first look at which it does, without the whole interval at each: E at
    no difference, of both sides."""
    if metric.bounds is None:
        for one in looks(metric, found, arm, shares, alpha, every):
            if (said := conclude(metric, one)) in (Conclusion.BETTER, Conclusion.WORSE):
                return said.value
        return ""
    both = (found.arm == 0) | (found.arm == arm)
    p = shares[arm] / (shares[0] + shares[arm])
    z, _ = scaled(found.value[both], found.arm[both] == arm, p, metric.bounds, min(p, 1 - p))
    counts = tally(z[:0])
    for end in range(every, len(z) + 1, every):
        counts = counts + tally(z[end - every : end])
        for side, name in ((counts, "better"), (counts[::-1], "worse")):
            if mean_evidence(side) >= 2 / alpha:
                return name
    return ""


def test_the_shortcut_is_the_rule() -> None:
    for seed, draw in ((1, converts(0.1, 0.1)), (2, converts(0.1, 0.16)), (3, converts(0.1, 0.05))):
        found = drawn(seed, 2_000, [5_000, 5_000], draw)
        slow = [conclude(CONVERSION, one) for one in looks(CONVERSION, found, 1, [5_000, 5_000], ALPHA, 200)]
        first = next((one.value for one in slow if one in (Conclusion.BETTER, Conclusion.WORSE)), "")
        both = int(((found.arm == 0) | (found.arm == 1)).sum())
        assert both == len(found.arm)
        assert decided(CONVERSION, found, 1, [5_000, 5_000], ALPHA, 200) == first


@pytest.mark.parametrize(
    ("metric", "draw", "shares"),
    [
        (CONVERSION, converts(0.05, 0.05), [5_000, 5_000]),
        (CONVERSION, drifting, [9_000, 1_000]),
        (RATING, rates(4, 4), [5_000, 5_000]),
        (AMOUNT, spends(0, 0), [5_000, 5_000]),
    ],
    ids=["conversion", "rate drifts, 10 %", "rating", "amount without bounds"],
)
def test_identical_arms_are_hardly_ever_told_apart(metric: SignalPolicy, draw: Draw, shares: list[int]) -> None:
    """400 runs, 100 looks each, at most 5 %; ten more would miss a rule at 7.5 %."""
    wrong = sum(bool(decided(metric, drawn(seed, 5_000, shares, draw), 1, shares, ALPHA, 50)) for seed in range(400))
    assert wrong <= 20


def test_several_identical_variants_share_the_error_rate() -> None:
    """Three variants, 400 runs, 30 looks each: any of them."""
    shares = [2_500] * 4
    wrong = 0
    for seed in range(400):
        found = drawn(seed, 6_000, shares, converts(0.1, 0.1, 0.1, 0.1))
        wrong += any(decided(CONVERSION, found, arm, shares, ALPHA / 3, 100) for arm in (1, 2, 3))
    assert wrong <= 20


@pytest.mark.parametrize(
    ("metric", "draw", "truth"),
    [(CONVERSION, converts(0.1, 0.13), 0.03), (AMOUNT, spends(0, 1.3), 1.3)],
    ids=["conversion", "amount without bounds"],
)
def test_intervals_cover_the_truth_at_all_looks_at_once(metric: SignalPolicy, draw: Draw, truth: float) -> None:
    """100 runs, 10 looks each: at most 5 % of the runs have an interval without the truth."""
    missed = 0
    for seed in range(100):
        found = drawn(seed, 4_000, [5_000, 5_000], draw)
        missed += any(not one.low <= truth <= one.high for one in looks(metric, found, 1, [5_000, 5_000], ALPHA, 400))
    assert missed <= 5


@pytest.mark.parametrize(
    ("metric", "draw", "deviation", "lift"),
    [
        (CONVERSION, converts(0.1, 0.11), 0.3, 0.01),
        (replace(CONVERSION, better="lower"), converts(0.1, 0.09), 0.3, 0.01),
        (AMOUNT, spends(0, 2), 34.1, 2.0),
    ],
    ids=["a tenth more", "a tenth less, where lower is better", "amount without bounds"],
)
def test_a_lift_is_found_after_the_planned_units(
    metric: SignalPolicy, draw: Draw, deviation: float, lift: float
) -> None:
    """60 runs of the planned length: four in five are due; 38 of them would be if it were .75 in truth and luck bad."""
    rules = ExperimentPolicy(metric)
    n = units_needed(rules, 1, deviation, lift)
    runs = [drawn(seed, n, [5_000, 5_000], draw) for seed in range(60)]
    found = [conclude(metric, effect(metric, one, 1, [[5_000, 5_000]], ALPHA)) for one in runs]
    assert found.count(Conclusion.WORSE) == 0
    assert 38 <= found.count(Conclusion.BETTER) <= 58


def test_arms_alike_are_said_to_be_alike() -> None:
    """A margin of two points, 40 runs of 40,000 entities: nearly all."""
    runs = [drawn(seed, 40_000, [5_000, 5_000], converts(0.1, 0.1)) for seed in range(40)]
    found = [conclude(CONVERSION, effect(CONVERSION, one, 1, [[5_000, 5_000]], ALPHA)) for one in runs]
    assert found.count(Conclusion.ALIKE) >= 36


def test_a_wrong_split_is_noticed_and_a_right_one_is_not() -> None:
    shares = [4_000, 3_000, 3_000]
    rng = np.random.default_rng(5)
    right = [rng.multinomial(20, np.array(shares) / 10_000, 250).cumsum(axis=0) for _ in range(200)]
    wrong = [rng.multinomial(20, [0.43, 0.3, 0.27], 250).cumsum(axis=0) for _ in range(50)]
    alarms = [any(split_evidence(row, shares) >= 1_000 for row in run[::10].tolist()) for run in right]
    seen = [split_evidence(run[-1].tolist(), shares) >= 1_000 for run in wrong]
    assert sum(alarms) <= 1
    assert sum(seen) >= 20
