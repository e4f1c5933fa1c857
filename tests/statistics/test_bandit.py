"""Shares that follow the results: what they win, and that what is concluded stays right while hours and shares move."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from homeostat.domain.policy import SignalPolicy
from homeostat.domain.units import ALL
from homeostat.engines.bandit import follow, means, without
from homeostat.engines.evidence import mean_evidence, tally
from homeostat.engines.experiment import ALPHA, FEW, Units, effect, scaled

METRIC = SignalPolicy("bought", bounds=(0, 1), missing=0)
FLOOR, EACH, TURNS = 500, 400, 20
Rates = Callable[[int], Sequence[float]]


@dataclass
class Play:
    """Turns of `EACH` entities; after each the shares follow. `regret`: what the best arm would have sold more."""

    units: Units
    splits: list[list[int]]
    regret: float

    def rejects(self, truth: float) -> bool:
        """Whether the interval of the difference was ever without it, a look every two turns: E of either side."""
        shares = np.array(self.splits)[self.units.turn] / ALL
        z, largest = scaled(self.units.value, self.units.arm == 1, shares[:, 1], (0, 1), FLOOR / ALL)
        ends = range(2 * EACH, len(z) + 1, 2 * EACH)
        return any(
            mean_evidence(tally(side), at / largest) >= 2 / ALPHA
            for end in ends
            for side, at in ((z[:end], truth), (-z[:end], -truth))
        )


def play(seed: int, rates: Rates, first: list[int], metric: SignalPolicy = METRIC) -> Play:
    rng = np.random.default_rng(seed)
    made = Play(Units(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64)), [first], 0.0)
    for hour in range(TURNS):
        now = np.array(rates(hour))
        arm = rng.choice(len(now), EACH, p=np.array(made.splits[-1]) / ALL)
        value, turn = (rng.random(EACH) < now[arm]).astype(float), np.full(EACH, len(made.splits) - 1)
        made.regret += float((now.max() - now[arm]).sum())
        old = made.units
        made.units = Units(*map(np.concatenate, ((old.value, value), (old.arm, arm), (old.turn, turn))))
        split = follow(metric, made.units, made.splits, FLOOR, str(seed))
        made.splits += [split] if split else []
    return made


def steady(*rates: float) -> Rates:
    return lambda _: rates


def swinging(hour: int) -> list[float]:
    """Identical arms, in hours that get better and worse."""
    return [0.25 + 0.2 * np.sin(hour / 3)] * 2


def rising(hour: int) -> list[float]:
    """Six points apart, while both get better."""
    return [0.1 + 0.005 * hour, 0.16 + 0.005 * hour]


@pytest.mark.parametrize("rates", [(0.1, 0.14), (0.1, 0.12, 0.14)], ids=["two arms", "three arms"])
def test_it_costs_less_than_a_fixed_split(rates: tuple[float, ...]) -> None:
    """15 runs of 8,000 entities: a fixed split has a regret of 160; measured are 36 and 57."""
    beside = [ALL // len(rates)] * (len(rates) - 1)
    first = [ALL - sum(beside), *beside]
    fixed = EACH * TURNS * (max(rates) - sum(rates) / len(rates))
    runs = [play(seed, steady(*rates), first) for seed in range(15)]
    assert np.mean([run.regret for run in runs]) < fixed / 2
    assert np.mean([run.splits[-1][-1] for run in runs]) > 7_000
    for split in (one for run in runs for one in run.splits):
        assert sum(split) == ALL
        assert min(split) >= FLOOR


def test_identical_arms_are_hardly_ever_told_apart_while_hours_and_shares_move() -> None:
    """100 runs, 10 looks each: at most 5 %."""
    assert sum(play(seed, swinging, [5_000, 5_000]).rejects(0.0) for seed in range(100)) <= 5


def test_estimates_are_right_where_good_hours_and_large_shares_fall_together() -> None:
    """60 runs, a difference of .06. The plain means of the arms are .08 apart."""
    runs = [play(seed, rising, [5_000, 5_000]) for seed in range(60)]
    assert sum(run.rejects(0.06) for run in runs) <= 3
    found = [effect(METRIC, run.units, 1, run.splits, ALPHA, FLOOR) for run in runs[:30]]
    told = [one.difference for one in found if one.difference is not None]
    plain = [run.units.value[run.units.arm == 1].mean() - run.units.value[run.units.arm == 0].mean() for run in runs]
    assert np.mean(told) == pytest.approx(0.06, abs=0.01)
    assert np.mean(plain) > 0.075
    outside = [run.rejects(0.0) for run, one in zip(runs, found, strict=False) if one.low > 0]
    assert all(outside)


def test_shares_are_of_means_that_are_right_where_good_hours_and_large_shares_fall_together() -> None:
    """Identical arms; the second had nearly all callers in the better half of the time."""
    rng, turn = np.random.default_rng(0), np.repeat([0, 1], 10_000)
    arm = (rng.random(20_000) < np.where(turn, 0.9, 0.1)).astype(int)
    value = (rng.random(20_000) < np.where(turn, 0.5, 0.1)).astype(float)
    values, errors = means(METRIC, Units(value, arm, turn), np.array([[0.9, 0.1], [0.1, 0.9]]))
    assert values.mean(axis=0) == pytest.approx([0.3, 0.3], abs=0.03)
    assert abs(values.mean(axis=0) - 0.3).max() < 3 * errors.max()
    assert value[arm == 1].mean() - value[arm == 0].mean() > 0.3


def test_lower_can_be_better() -> None:
    metric = SignalPolicy("returned", better="lower", bounds=(0, 1))
    assert play(3, steady(0.3, 0.2), [5_000, 5_000], metric).splits[-1][1] > 7_000


def test_the_same_units_give_the_same_shares_and_few_give_none() -> None:
    run = play(1, steady(0.1, 0.1, 0.1), [4_000, 3_000, 3_000])
    assert play(1, steady(0.1, 0.1, 0.1), [4_000, 3_000, 3_000]).splits == run.splits
    few = np.repeat([0, 1], [5 * FEW, FEW - 1])
    assert follow(METRIC, Units(few.astype(float), few), [[5_000, 5_000]], FLOOR, "s") is None


def test_an_arm_that_did_harm_stays_out_and_the_champion_takes_over() -> None:
    split = without([2_000, 5_000, 3_000], {1})
    assert split == [7_000, 0, 3_000]
    run = play(1, steady(0.1, 0.5, 0.2), [4_000, 3_000, 3_000])
    units = Units(run.units.value, np.where(run.units.arm == 1, 2, run.units.arm), np.zeros(1, np.int64))
    later = follow(METRIC, units, [split], FLOOR, "s")
    assert later is not None
    assert later[1] == 0
    assert later[2] > 7_000
