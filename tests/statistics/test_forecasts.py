"""Forecasts of releases against futures that are simulated here, from the definitions of the tests."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from homeostat.domain.gate import Verdict
from homeostat.domain.outlook import Assumed, Forecast
from homeostat.engines.evidence import BETS, RHOS, Count, tally
from homeostat.engines.forecast import Paired, Ratio, forecast, paired_course, ratio_course

Array = NDArray[np.float64]
SHARE, PER_MS = 0.1, 0.01
MARGIN, RUNS = 0.005, 120


def crossed(paths: list[Array], alpha: float) -> Array:
    """(runs, t) logarithms of each product → (runs,) the events until their mean reaches 1/alpha, infinity: never."""
    log_e = np.logaddexp.reduce(paths) - np.log(len(paths))
    above = log_e >= np.log(1 / alpha)
    return np.where(above.any(axis=1), above.argmax(axis=1) + 1.0, np.inf)


def ratio_paths(mine: Array, theirs: Array, share: float, r0: float) -> list[Array]:
    return [
        mine * np.log(rho) + (mine + theirs) * np.log((r0 * share + 1 - share) / (r0 * rho * share + 1 - share))
        for rho in RHOS
    ]


def errors_from(mine: int, theirs: int, theta: Array, events: int, seed: int = 21) -> tuple[Array, Array]:
    """More events until harm, and until the ratio is below 2; `theta` (runs,): how likely one is the candidate's."""
    drawn = np.random.default_rng(seed).random((len(theta), events)) < theta[:, None]
    a = mine + np.cumsum(drawn, axis=1, dtype=np.float64)
    b = mine + theirs + np.arange(1.0, events + 1) - a
    return crossed(ratio_paths(a, b, SHARE, 1.0), 0.01), crossed(ratio_paths(b, a, 1 - SHARE, 0.5), 0.05)


def theta_of(ratio: float | Array) -> Array:
    return np.asarray(ratio * SHARE / (ratio * SHARE + 1 - SHARE))


def errors_forecast(mine: int, theirs: int, assumed: Assumed) -> Forecast:
    counts = [Count(1_000, mine, theirs)]
    state = Ratio(counts, counts, {1_000: 10_000}, {1_000: PER_MS}, 1.0, 0.01, 2.0)
    return forecast("errors", assumed, ratio_course(state, assumed), 0)


def labels_until(before: Array, chances: list[float], labels: int, above: float, alpha: float) -> Array:
    """More labels until the mean difference is shown to be more than `above`; `chances` of 1, 0 and -1."""
    drawn = np.random.default_rng(22).choice([1.0, 0.0, -1.0], (RUNS, labels), p=chances)

    def growth(d: Array, bet: float) -> Array:
        return np.asarray(np.log(1 + bet * ((1 + d) / (1 + above) - 1)))

    return crossed([growth(before, b).sum() + np.cumsum(growth(drawn, b), axis=1) for b in BETS], alpha)


def quality_forecast(before: Array, assumed: Assumed) -> Forecast:
    counts = tally(before)
    state = Paired(counts, counts, MARGIN, 0.02, PER_MS, 0)
    return forecast("quality", assumed, paired_course(state, assumed), 0)


def differences(worse: int, better: int, n: int) -> Array:
    return np.array([1.0] * worse + [-1.0] * better + [0.0] * (n - worse - better))


def near(said: int | None, simulated: Array, factor: float = 1.5) -> bool:
    median = float(np.median(simulated))
    return said is not None and median / factor <= said <= median * factor


def test_tripled_errors() -> None:
    harm, _ = errors_from(10, 30, np.full(RUNS, theta_of(3.0)), 1_000)
    said = errors_forecast(10, 30, Assumed.AS_NOW)
    assert (said.verdict, near(said.more, harm)) == (Verdict.HARM, True)
    assert said.at_ms is not None
    assert said.more == pytest.approx(said.at_ms * PER_MS * 40 / 10_000, abs=1)


def test_two_points_worse() -> None:
    before = differences(21, 9, 600)
    harm = labels_until(before, [0.035, 0.95, 0.015], 6_000, 0.0, 0.02)
    said = quality_forecast(before, Assumed.AS_NOW)
    assert (said.verdict, near(said.more, harm)) == (Verdict.HARM, True)


def test_two_points_better() -> None:
    before = differences(9, 21, 600)
    fine = labels_until(-before, [0.035, 0.95, 0.015], 2_000, -MARGIN, 0.05)
    said = quality_forecast(before, Assumed.AS_NOW)
    assert (said.verdict, near(said.more, fine)) == (Verdict.OK, True)


def test_at_the_margin_the_truth_is_known_and_the_range_is_right() -> None:
    harm, _ = errors_from(6, 30, np.full(RUNS, theta_of(2.0)), 2_000)
    said = errors_forecast(6, 30, Assumed.AT_MARGIN)
    assert (said.verdict, near(said.more, harm, 1.25)) == (Verdict.HARM, True)
    assert said.few is not None
    assert said.many is not None
    assert 0.65 <= float(np.mean((said.few <= harm) & (harm <= said.many))) <= 0.92
    before = differences(50, 50, 2_000)
    harm = labels_until(before, [0.0275, 0.95, 0.0225], 25_000, 0.0, 0.02)
    said = quality_forecast(before, Assumed.AT_MARGIN)
    assert said.value == MARGIN
    assert (said.verdict, near(said.more, harm, 1.3)) == (Verdict.HARM, True)


def test_as_often_right_as_it_says_when_the_ratio_is_not_known() -> None:
    """Ratios drawn as the forecast takes them to be spread; 25 events seen of each."""
    rng = np.random.default_rng(23)
    right, promised, inside = [], [], []
    for seed, ratio in enumerate(np.exp(rng.normal(0, 1.5, 200))):
        mine = int(rng.binomial(25, theta_of(ratio)))
        said = errors_forecast(mine, 25 - mine, Assumed.AS_NOW)
        if not said.more:
            continue  # found already
        (harm,), (fine,) = errors_from(mine, 25 - mine, theta_of(np.array([ratio])), 5_000, seed)
        came = Verdict.HARM if harm < fine else Verdict.OK
        right.append(came is said.verdict)
        promised.append(said.chance)
        if right[-1] and said.few is not None and said.many is not None:
            inside.append(said.few <= min(harm, fine) <= said.many)
    assert abs(np.mean(right) - np.mean(promised)) <= 0.1
    assert 0.65 <= np.mean(inside) <= 0.95
