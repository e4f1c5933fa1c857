"""Simulated releases: what the lanes count, minute by minute, and the E that the engine makes of the counters.

Arrays are (runs, looks), a look a minute. The formulas of E are the product's (`homeostat.engines.evidence`), over the
counters it keeps; tests/statistics/test_release_frames.py shows that the lanes make the same of logs in frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from homeostat.engines.evidence import combined, e_bh, log_growth, log_mean, log_products
from homeostat.engines.lanes import ERRORS_ALPHA, QUALITY_ALPHA, SEGMENTS_ALPHA, SLOW_ALPHA, SLOW_RATIO

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

AT_ONCE = 5
"""Runs that are simulated together: their arrays stay in the processor's cache."""
NEVER = -1
"""A look that did not come."""
VALUES = np.array([-1.0, 0.0, 1.0])
"""Of a difference of the 0/1 loss."""
SEGMENTS = (0.5, 0.3, 0.2)
"""The shares of three segments."""
MANY = len(SEGMENTS) + 2
"""With those of values that are not known, and of nulls."""


@dataclass(frozen=True, slots=True)
class Events:
    """New bad events and requests of each arm, at the candidate's share `weight` (basis points). `broke`: how many of
    the rows of either arm broke the other version too, beside it."""

    weight: Array
    candidate: Ints
    champion: Ints
    shown: tuple[Ints, Ints]
    broke: tuple[Ints, Ints] | None = None

    def path(self, r0: float) -> Array:
        """log E after each look."""
        products = log_products(self.weight, self.candidate, self.champion, r0)
        if self.broke is not None:
            products += log_products(10_000 - self.weight, self.broke[1], self.broke[0], r0)
        return log_mean(np.cumsum(products, axis=-1))

    def with_rows_that_break_both(self, mine: Ints, theirs: Ints) -> Events:
        """And those of the candidate's arm, and of the champion's."""
        return replace(self, candidate=self.candidate + mine, champion=self.champion + theirs, broke=(mine, theirs))


def events(
    rng: np.random.Generator, runs: int, base: Array, weight: Array, per_minute: int = 600, ratio: float = 1.0
) -> Events:
    """`base` and `weight`, (looks,) or (runs, looks): the champion's rate of bad answers, the candidate's share."""
    shape = (runs, base.shape[-1])
    mine = rng.binomial(per_minute, np.broadcast_to(weight / 10_000, shape))
    theirs = per_minute - mine
    bad = rng.binomial(mine, np.minimum(base * ratio, 1)), rng.binomial(theirs, base)
    return Events(np.broadcast_to(weight, shape), *bad, (mine, theirs))


def with_bursts(rng: np.random.Generator, seen: Events, every: int, counted: int) -> Events:
    """Now and then (every so many minutes) one entity has a burst of bad answers that reaches into a second minute;
    they all fall on its arm. `counted`: how many of them count in each of the two minutes."""
    starts = rng.random(seen.candidate.shape) < 1 / every
    mine = rng.random(starts.shape) < seen.weight / 10_000
    extra = []
    for here in (starts & mine, starts & ~mine):
        late = np.zeros_like(here)
        late[:, 1:] = here[:, :-1]
        extra.append((here.astype(np.int64) + late) * counted)
    return replace(seen, candidate=seen.candidate + extra[0], champion=seen.champion + extra[1])


def with_stuck(rng: np.random.Generator, seen: Events, entities: int, both: bool = True) -> Events:
    """Entities with a bad answer every minute, each always on its arm; it breaks both versions, or one at a time."""
    buckets = rng.random((len(seen.candidate), entities, 1))
    mine = (buckets < (np.atleast_2d(seen.weight) / 10_000)[:, None]).sum(axis=1)
    theirs = entities - mine
    if both:
        return seen.with_rows_that_break_both(mine, theirs)
    return replace(seen, candidate=seen.candidate + mine, champion=seen.champion + theirs)


def whole_calls(rng: np.random.Generator, runs: int, looks: int, rows: int) -> Events:
    """Sixty calls of each arm a minute, over batches of so many rows, one in ten of them the candidate's; one call in
    2,000 fails, with all its rows. A row by itself (1) has one call, of its arm."""
    shape, chance = (runs, looks), 1 / 2_000
    failed = rng.binomial(60, chance, shape), rng.binomial(60, chance, shape)
    bad = [np.zeros(shape, np.int64), np.zeros(shape, np.int64)]
    if rows == 1:
        mine = rng.binomial(60, 0.1, shape)
        bad = [rng.binomial(mine, chance), rng.binomial(60 - mine, chance)]
    for nth in range(1, 4 if rows > 1 else 1):
        for arm, share in enumerate((0.1, 0.9)):
            bad[arm] += (failed[arm] >= nth) * rng.binomial(rows, share, shape)
    return Events(np.broadcast_to(at(looks), shape), bad[0], bad[1], (bad[0], bad[1]))


@dataclass(frozen=True, slots=True)
class Kind:
    """Labelled rows of one outcome: its share, how much more often the candidate is wrong, how often the two differ,
    and after how many minutes the label comes."""

    share: float = 0.5
    loss: float = 0.0
    flips: float = 0.05
    delay: int = 0

    @property
    def chances(self) -> list[float]:
        """Of a difference of -1, 0, 1."""
        return [(self.flips - self.loss) / 2, 1 - self.flips, (self.flips + self.loss) / 2]


BOTH = (Kind(), Kind())


def labels(rng: np.random.Generator, runs: int, looks: int, kinds: Sequence[Kind], per_minute: float) -> list[Ints]:
    """For each outcome (3, runs, looks): how many rows had each of the `VALUES`, in each minute."""
    chances = np.array([np.multiply(kind.share, kind.chances) for kind in kinds])
    return [rng.poisson(per_minute * one[:, None, None], (3, runs, looks)) for one in chances]


def paired_path(rows: Sequence[Ints], kinds: Sequence[Kind], horizon: int) -> Array:
    """log E after each look, from the labels that came by then."""
    summed = [np.cumsum(one, axis=-1) for one in rows]
    mature = sum(_later(one, max(horizon, kind.delay)) for one, kind in zip(summed, kinds, strict=True))
    early = [_wealth(_later(one, kind.delay)) for one, kind in zip(summed, kinds, strict=True)] if horizon else []
    return combined(_wealth(np.asarray(mature)), early)


def as_they_come(rows: Sequence[Ints], kinds: Sequence[Kind]) -> Array:
    """The same for a rule that takes the labels so far for a sample of all."""
    summed = [_later(np.cumsum(one, axis=-1), kind.delay) for one, kind in zip(rows, kinds, strict=True)]
    return _wealth(np.asarray(sum(summed)))


def _later(counts: Ints, minutes: int) -> Ints:
    if not minutes:
        return counts
    shifted = np.zeros_like(counts)
    shifted[..., minutes:] = counts[..., :-minutes]
    return shifted


def _wealth(counts: Ints) -> Array:
    growth = log_growth(VALUES, 0.0)
    blocks = [counts[:, start : start + AT_ONCE].astype(np.float64) for start in range(0, counts.shape[1], AT_ONCE)]
    return np.concatenate([log_mean(np.tensordot(growth, block, axes=1)) for block in blocks])


def first(path: Array, alpha: float) -> Ints:
    """(runs,) the look, from 1 on, at which E reaches 1/alpha; `NEVER`."""
    crossed = path >= np.log(1 / alpha)
    return np.where(crossed.any(axis=-1), crossed.argmax(axis=-1) + 1, NEVER)


def named(paths: Array, many: int = MANY) -> tuple[Ints, list[list[int]]]:
    """(segments, runs, looks) log E → (runs,) the look at which e-BH first finds harm, and which segments it names.
    It can do so only where an E has reached 1/alpha."""
    looks, who = np.full(paths.shape[1], NEVER), [list[int]() for _ in range(paths.shape[1])]
    for run in range(paths.shape[1]):
        for look in np.flatnonzero(paths[:, run].max(axis=0) >= np.log(1 / SEGMENTS_ALPHA)):
            found, _ = e_bh(np.exp(np.minimum(paths[:, run, look], 700)).tolist(), many, SEGMENTS_ALPHA)
            if found:
                looks[run], who[run] = look + 1, found
                break
    return looks, who


@dataclass(frozen=True, slots=True)
class World:
    """What an identical release meets. `base`, `weight`: (looks,) or (runs, looks); `kinds`: of the labels; `horizon`:
    of labels, in minutes; `burst`: minutes from one burst of an entity to the next, 0: none; `stuck`: entities that
    send a row a minute that breaks both versions."""

    base: Array
    weight: Array
    kinds: Sequence[Kind] = BOTH
    horizon: int = 0
    burst: int = 0
    stuck: int = 0
    per_minute: int = 600


def identical(seed: int, runs: int, world: World, counted: int = 1) -> dict[str, NDArray[np.bool_]]:
    """Which runs each lane calls harmful, (runs,) each: two versions alike, looked at after every minute. One label a
    minute; slow answers are twice as frequent as bad ones. `counted`: see `with_bursts`."""
    parts = [
        _identical(np.random.default_rng((seed, start)), world, start, counted) for start in range(0, runs, AT_ONCE)
    ]
    return {lane: np.concatenate([part[lane] for part in parts])[:runs] for lane in parts[0]}


def _identical(rng: np.random.Generator, world: World, start: int, counted: int) -> dict[str, NDArray[np.bool_]]:
    looks = world.base.shape[-1]
    own = range(start, start + AT_ONCE)
    weight = world.weight if world.weight.ndim == 1 else np.take(world.weight, own, axis=0, mode="wrap")
    errors = events(rng, AT_ONCE, world.base, weight, world.per_minute)
    slow = events(rng, AT_ONCE, 2 * world.base, weight, world.per_minute)
    if world.burst:
        errors = with_bursts(rng, errors, world.burst, counted)
    if world.stuck:
        errors = with_stuck(rng, errors, world.stuck)
    parts = [labels(rng, AT_ONCE, looks, world.kinds, share) for share in SEGMENTS]
    whole = [np.sum(one, axis=0) for one in zip(*parts, strict=True)]
    each = np.array([paired_path(part, world.kinds, world.horizon) for part in parts])
    return {
        "errors": first(errors.path(1.0), ERRORS_ALPHA) != NEVER,
        "slow": first(slow.path(SLOW_RATIO), SLOW_ALPHA) != NEVER,
        "quality": first(paired_path(whole, world.kinds, world.horizon), QUALITY_ALPHA) != NEVER,
        "segments": named(each)[0] != NEVER,
    }


def steady(looks: int, rate: float = 0.005) -> Array:
    return np.full(looks, rate)


def swinging(looks: int, rate: float = 0.005, period: int = 1_440) -> Array:
    """A base rate that moves by 80 % with the hour of the day."""
    return np.asarray(rate * (1 + 0.8 * np.sin(2 * np.pi * np.arange(looks) / period)))


def at(looks: int, weight: int = 1_000) -> Array:
    return np.full(looks, float(weight))


def wandering(rng: np.random.Generator, runs: int, looks: int) -> Array:
    """(runs, looks) weights of 1, 10 or 50 %, each for half an hour to ten hours, in any order."""
    made = np.empty((runs, looks))
    for row in made:
        start = 0
        while start < looks:
            length = int(rng.integers(30, 600))
            row[start : start + length] = rng.choice([100.0, 1_000.0, 5_000.0])
            start += length
    return made


def worlds(rng: np.random.Generator, runs: int, looks: int = 10_000) -> dict[str, World]:
    """What may make two versions look different that are alike."""
    late = Kind(0.2, delay=60), Kind(0.8, delay=2_880)
    other = Kind(0.2, 0.04, 0.08, delay=60), Kind(0.8, -0.01, 0.04, delay=2_880)
    rough = wandering(rng, runs, looks)
    return {
        "as it was": World(steady(looks), at(looks)),
        "base rates swing by 80 %": World(swinging(looks), at(looks)),
        "weights change at random": World(steady(looks), wandering(rng, runs, looks)),
        "bursts of one entity": World(steady(looks), at(looks), burst=20),
        "bad news comes first": World(steady(looks), at(looks), late, horizon=2_880),
        "it errs elsewhere, no more often; bad news first": World(steady(looks), at(looks), other, horizon=2_880),
        "all of it, at 60 requests a minute": World(swinging(looks), rough, other, 2_880, burst=200, per_minute=60),
        "two entities whose rows always break both": World(steady(looks, 0.0005), at(looks), stuck=2),
    }


def bound(found: int, runs: int, sure: float = 0.99) -> float:
    """The rate that is not exceeded, `sure`ly: Clopper & Pearson's upper end (1934)."""
    return float(beta.ppf(sure, found + 1, runs - found)) if found < runs else 1.0
