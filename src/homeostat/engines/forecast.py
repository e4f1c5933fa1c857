"""How much more evidence a lane needs: its e-processes, continued into many futures.

A future draws new events from the distribution that is assumed and multiplies them into the evidence there is, until
harm or "not worse" is found. Medians and percentiles over the futures are the forecast. "As now" is uncertain itself:
each future has a candidate of its own, drawn from what the evidence so far leaves open (the ratio's posterior; for the
differences the Bayesian bootstrap, Rubin 1981). What stays assumed is that the candidate, the traffic and the
labels do not change. The draws are seeded: the same evidence gives the same forecast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray

from homeostat.domain.gate import Verdict
from homeostat.domain.outlook import FUTURES, Assumed, Forecast
from homeostat.domain.units import ALL, DAY_MS
from homeostat.engines.evidence import CELLS, Array, Count, columns, log_growth, log_mean, log_products
from homeostat.engines.lanes import PASS_ALPHA

FARTHEST_MS = 365 * DAY_MS
FARTHEST = 1_000_000
"""No future is followed for longer, nor for more events."""

STRIDE = 1.12
"""A future is looked at after 1, 2, … events, each look so many times later than the one before."""

RATIOS: Array = np.exp(np.linspace(-log(100), log(100), 241))
SPREAD = 1.5
"""Before anything is seen, the logarithm of the ratio of rates is taken to be normal around 0, this wide."""

POINTS = 61
"""Differences are rounded to so many values between -1 and 1, in a way that keeps their mean."""


@dataclass(frozen=True, slots=True)
class Test:
    """An e-process on its way: the logarithm of each product so far (k,), what each kind of event adds to it
    (k, kinds), and the logarithm that their mean must reach."""

    start: Array
    steps: Array
    ceiling: float


@dataclass(frozen=True, slots=True)
class Course:
    """A lane under an assumption, `value`: the ratio or the mean difference. `chances` (futures, kinds) of the kinds of
    events, which come at `pace` a millisecond after `wait_ms`."""

    value: float

    harm: Test
    fine: Test
    chances: Array
    pace: float
    wait_ms: int = 0


@dataclass(frozen=True, slots=True)
class Ratio:
    """Bad events so far, by share of the candidate: `counts` are evidence, `known` are those that tell what to expect,
    out of `tried` rows; `flow`: rows a millisecond, from now on. `alpha` and `r0` are harm's, `bound` is what must be
    excluded."""

    counts: Sequence[Count]
    known: Sequence[Count]
    tried: Mapping[int, int]
    flow: Mapping[int, float]
    r0: float
    alpha: float
    bound: float


@dataclass(frozen=True, slots=True)
class Paired:
    """Differences of the loss: tallies of mature ones, which are evidence, and of those `known`, which tell what to
    expect; `pace`: new ones a millisecond, the first of which is mature in `wait_ms`."""

    mature: Array
    known: Array
    margin: float
    alpha: float
    pace: float
    wait_ms: int


def ratio_course(state: Ratio, assumed: Assumed) -> Course:
    """Events that fall on the arms as the ratio says, as often as the rate of bad events so far lets expect."""
    belief = _belief(state.known)
    value, ratios = state.bound, np.full(FUTURES, state.bound)
    if assumed is Assumed.AS_NOW:
        value = float(RATIOS[np.searchsorted(np.cumsum(belief), 0.5)])
        ratios = np.random.default_rng(2).choice(RATIOS, FUTURES, p=belief)
    kinds, chances = [], []
    for share, rows in state.flow.items():
        kinds += [Count(share, 1, 0), Count(share, 0, 1)]
        chances += [rows * ratios * share / ALL, np.full(FUTURES, rows * (1 - share / ALL))]
    among = np.array(chances).T
    seen = sum(count.candidate + count.champion for count in state.known)
    rate = seen / sum(n * _weight(share, value) for share, n in state.tried.items())
    pace = rate * sum(rows * _weight(share, value) for share, rows in state.flow.items())
    harm = _ratio_test(state.counts, kinds, state.r0, state.alpha)
    fine = _ratio_test(_exchanged(state.counts), _exchanged(kinds), 1 / state.bound, PASS_ALPHA)
    return Course(value, harm, fine, among / among.sum(axis=1, keepdims=True), pace)


def _belief(counts: Sequence[Count]) -> Array:
    """→ (ratios,) the posterior chance of each of the `RATIOS`."""
    logs = -0.5 * (np.log(RATIOS) / SPREAD) ** 2
    for weight, mine, theirs in counts:
        odds = RATIOS * weight / (ALL - weight)
        logs = logs + mine * np.log(odds) - (mine + theirs) * np.log1p(odds)
    chances = np.exp(logs - logs.max())
    return np.asarray(chances / chances.sum())


def _weight(share: int, ratio: float) -> float:
    """How many bad events there are beside those of a champion alone."""
    return 1 + (ratio - 1) * share / ALL


def _exchanged(counts: Sequence[Count]) -> list[Count]:
    return [Count(ALL - weight, champion, candidate) for weight, candidate, champion in counts]


def _ratio_test(counts: Sequence[Count], kinds: Sequence[Count], r0: float, alpha: float) -> Test:
    start, steps = log_products(*columns(counts), r0).sum(axis=1), log_products(*columns(kinds), r0)
    return Test(start, steps, log(1 / alpha))


def paired_course(state: Paired, assumed: Assumed) -> Course:
    """Differences distributed as those so far; for the margin, tilted exponentially to that mean."""
    values, weights = _distribution(state.known)
    chances = np.random.default_rng(2).dirichlet(weights, FUTURES)
    value = float(values @ weights / weights.sum())
    if assumed is Assumed.AT_MARGIN:
        value = state.margin
        chances = np.tile(_tilted(values, weights / weights.sum(), value), (FUTURES, 1))
    grid, below = np.linspace(-1, 1, CELLS), -state.margin
    harm = Test(_wealth(grid, state.mature, 0.0), log_growth(values, 0.0), log(1 / state.alpha))
    fine = Test(_wealth(-grid, state.mature, below), log_growth(-values, below), log(1 / PASS_ALPHA))
    return Course(value, harm, fine, chances, state.pace, state.wait_ms)


def _wealth(values: Array, counts: Array, above: float) -> Array:
    filled = np.flatnonzero(counts)
    return np.asarray(log_growth(values[filled], above) @ counts[filled])


def _distribution(known: Array) -> tuple[Array, Array]:
    """→ (points,) values and how many labels have them; half a label more at each end keeps it open to what has not
    been seen."""
    place = np.linspace(0, POINTS - 1, CELLS)
    cell = np.minimum(place.astype(np.int64), POINTS - 2)
    part = place - cell
    weights = np.zeros(POINTS)
    np.add.at(weights, cell, known * (1 - part))
    np.add.at(weights, cell + 1, known * part)
    weights[[0, -1]] += 0.5
    filled = weights > 0
    return np.linspace(-1, 1, POINTS)[filled], weights[filled]


def _tilted(values: Array, chances: Array, mean: float) -> Array:
    """The distribution nearest to `chances` that has this mean: each multiplied by exp(t value)."""
    low, high = -60.0, 60.0
    for _ in range(60):
        t = (low + high) / 2
        tilted = chances * np.exp(t * values - abs(t))
        tilted /= tilted.sum()
        low, high = (t, high) if tilted @ values < mean else (low, t)
    return np.asarray(tilted)


def forecast(lane: str, assumed: Assumed, course: Course, now_ms: int) -> Forecast:
    """What comes of a lane if it goes on like that."""
    farthest = min(FARTHEST, int(course.pace * FARTHEST_MS))
    harm, fine = passages(course.chances, (course.harm, course.fine), farthest)
    if assumed is Assumed.AT_MARGIN and not fine.any():
        fine[:] = np.inf  # found already; what is asked is when harm would be
    harm_ms, fine_ms = (np.where(n > 0, n / course.pace + course.wait_ms, 0.0) for n in (harm, fine))
    worse = harm_ms <= fine_ms
    found = {
        Verdict.HARM: worse & np.isfinite(harm_ms),
        Verdict.OK: ~worse & np.isfinite(fine_ms),
        Verdict.UNKNOWN: ~np.isfinite(harm_ms) & ~np.isfinite(fine_ms),
    }
    verdict = max(found, key=lambda one: int(found[one].sum()))
    these, chance = found[verdict], float(found[verdict].mean())
    if verdict is Verdict.UNKNOWN:
        return Forecast(lane, assumed, course.value, verdict, chance)
    more, after = (harm, harm_ms) if verdict is Verdict.HARM else (fine, fine_ms)
    counts = [int(np.ceil(n)) for n in np.quantile(more[these], (0.5, 0.1, 0.9))]
    times = [now_ms + int(ms) for ms in np.quantile(after[these], (0.5, 0.1, 0.9))]
    return Forecast(lane, assumed, course.value, verdict, chance, *counts, *times)


def passages(chances: Array, tests: Sequence[Test], farthest: int) -> list[Array]:
    """How many events each test needs in each future, by the `chances` (futures, kinds). → (futures,) for each; 0 where
    it has found already, infinity where it finds nothing in `farthest` events."""
    rng = np.random.default_rng(1)
    drawn, before = np.zeros(chances.shape, dtype=np.int64), 0
    found = [np.full(FUTURES, 0.0 if _reached(test, drawn[:1])[0] else np.inf) for test in tests]
    for n in _looks(farthest):
        drawn += rng.multinomial(n - before, chances)
        for test, when in zip(tests, found, strict=True):
            when[np.isinf(when) & _reached(test, drawn)] = (before + n + 1) / 2
        if not any(np.isinf(when).any() for when in found):
            break
        before = n
    return found


def _reached(test: Test, drawn: NDArray[np.int64]) -> NDArray[np.bool_]:
    logs = test.start + drawn @ test.steps.T
    return np.asarray(log_mean(logs.T) >= test.ceiling)


def _looks(farthest: int) -> list[int]:
    if farthest < 1:
        return []
    steps = np.arange(int(log(farthest) / log(STRIDE)) + 1)
    return [int(n) for n in np.unique(np.ceil(STRIDE**steps))]
