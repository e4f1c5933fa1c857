"""Evidence that may be looked at all the time: e-values, and the intervals that invert them.

An e-value E has a mean of at most 1 while its null hypothesis holds, at every stopping time; so E >= 1/alpha happens
with probability at most alpha, however often one looks (Ville 1939; Ramdas, Grünwald, Vovk & Shafer 2023,
Game-Theoretic Statistics and Safe Anytime-Valid Inference).

All tests here keep constant state that adds up: counters for the ratio and the sample ratio, `tally` for paired
differences. The sum over replicas is the state of all; the order of the rows changes nothing. A mean of e-values is an
e-value: so the tests average over alternatives, bets and priors instead of choosing one.

`log_products`, `log_growth` and `log_mean` work on arrays of any shape: many releases, or many looks, at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from math import exp, lgamma, log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from homeostat.domain.units import ALL

Array = NDArray[np.float64]

RHOS = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
"""How many times worse than tolerated the alternatives are; E is the mean over them."""

BETS: Array = 0.96 * 2.0 ** (-np.arange(14) / 2)
"""The shares of the wealth that are bet: .96, .68, .48 … .011."""

CELLS = 1_001
"""Points of a tally, evenly from -1 to 1."""

FINEST = 2.0**-26
"""Of a cell: of values rounded so, up to 2^27, the sums of a tally are the same in any order, to the last bit."""

EARLY = 0.1
"""The part of alpha that is spent on labels that are not mature yet."""

CONCENTRATIONS = (10.0, 1_000.0, 100_000.0)
"""How near the alternatives to a sample ratio lie: the prior weights of the Dirichlet mixtures."""

LARGEST_RATIO = 1e6
OVERFLOW = 700.0  # exp() of more is infinite


class Count(NamedTuple):
    """Events while the candidate's share was `weight` basis points."""

    weight: int
    candidate: int
    champion: int


def ratio_evidence(counts: Sequence[Count], r0: float = 1.0) -> float:
    """E against "the candidate's rate of bad events is at most r0 times the champion's".

    Given a bad event, it falls on the candidate with probability theta(r) = r w / (r w + 1 - w), w its share of the
    traffic. For each rho the likelihood ratio of theta(r0 rho) to theta(r0) is multiplied up; E is their mean
    (Lindon & Malek 2022, Anytime-Valid Inference for Multinomial Count Data). Base rates and weights may move:
    conditioning on the event removes them.

    Assumes that rows are assigned at random and that bad events are independent given their arms. What breaks it:
    bursts of one entity, whose events all fall on one arm (count one event an entity a minute), and warming up.
    """
    return _exp(log_mean(log_products(*columns(counts), r0).sum(axis=1)))


def columns(counts: Sequence[Count]) -> tuple[Array, Array, Array]:
    """Weights, events of the candidate, events of the champion: (n,) each."""
    weight, candidate, champion = np.array(counts, np.float64).reshape(-1, 3).T
    return weight, candidate, champion


def log_products(weight: Array, candidate: Array, champion: Array, r0: float = 1.0) -> Array:
    """(...) bad events of each arm at the candidate's share `weight` → (RHOS, ...): what they add to the logarithm of
    each product. theta(r0 rho) / theta(r0) is rho times, and (1 - theta(r0 rho)) / (1 - theta(r0)) once, the same
    quotient. Adds up over looks, weights and replicas."""
    weight, candidate, champion = np.broadcast_arrays(weight, candidate, champion)
    share = weight / ALL
    rho = np.reshape(RHOS, (-1,) + (1,) * share.ndim)
    quotient = (r0 * share + 1 - share) / (r0 * rho * share + 1 - share)
    return np.asarray(candidate * np.log(rho) + (candidate + champion) * np.log(quotient))


def log_mean(logs: Array) -> Array:
    """(k, ...) logarithms → (...): the logarithm of the mean."""
    top = logs.max(axis=0)
    return np.asarray(top + np.log(np.exp(logs - top).mean(axis=0)))


def ratio_below(counts: Sequence[Count], bound: float) -> float:
    """E against "the candidate's rate is at least `bound` times the champion's": the test with the arms exchanged."""
    return ratio_evidence(_exchanged(counts), 1 / bound)


def ratio_interval(counts: Sequence[Count], alpha: float) -> tuple[float, float]:
    """The ratios that neither one-sided test at `alpha` rejects: (low, high) within 0 and infinity. It covers the
    true ratio at all times at once with probability 1 - 2 alpha. E falls as r0 grows: bisection finds the ends."""
    ceiling = 1 / alpha
    low = _largest_rejected(lambda r0: ratio_evidence(counts, r0) >= ceiling)
    high = _largest_rejected(lambda r0: ratio_evidence(_exchanged(counts), r0) >= ceiling)
    return low, 1 / high if high else float("inf")


def ratio_estimate(counts: Sequence[Count]) -> float | None:
    """The ratio at which as many events were to be expected on the candidate as fell on it (the maximum of the
    likelihood). None where all events fell on one arm."""
    mine, theirs = sum(count.candidate for count in counts), sum(count.champion for count in counts)
    if not mine or not theirs:
        return None
    return _largest_rejected(lambda r: _expected(counts, r) <= mine)


def _expected(counts: Sequence[Count], r: float) -> float:
    shares = [(count.candidate + count.champion, count.weight / ALL) for count in counts]
    return sum(n * r * share / (r * share + 1 - share) for n, share in shares)


def _exchanged(counts: Sequence[Count]) -> list[Count]:
    return [Count(ALL - weight, champion, candidate) for weight, candidate, champion in counts]


def _largest_rejected(rejected: Callable[[float], bool]) -> float:
    """The largest ratio of which it is true. On a logarithmic scale, to .1 %; 0 when none is."""
    low, high = log(1 / LARGEST_RATIO), log(LARGEST_RATIO)
    if not rejected(exp(low)):
        return 0.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (middle, high) if rejected(exp(middle)) else (low, middle)
    return exp(low)


def share_evidence(counts: Sequence[Count]) -> float:
    """E against "each row fell on the candidate with probability `weight`": the sample ratio test.

    A Dirichlet mixture over the true share, centred on the weight, against the weight itself (Lindon & Malek 2022,
    equation 6, for two arms); the product over weights, averaged over three concentrations of the prior.

    Assumes independent assignments: count each entity once, at the weight at which it was first seen. What breaks it:
    an entity that is counted by two replicas, and callers who choose their version.
    """
    seen = [count for count in merged(counts) if 0 < count.weight < ALL]
    return _exp(log_mean(np.array([sum(_log_mixture(count, k) for count in seen) for k in CONCENTRATIONS])))


def merged(*counts: Sequence[Count]) -> list[Count]:
    """The counts of several replicas as those of one: one a weight, in order."""
    sums: dict[int, tuple[int, int]] = {}
    for weight, candidate, champion in chain.from_iterable(counts):
        mine, theirs = sums.get(weight, (0, 0))
        sums[weight] = mine + candidate, theirs + champion
    return [Count(weight, *sums[weight]) for weight in sorted(sums)]


def _log_mixture(count: Count, concentration: float) -> float:
    share = count.weight / ALL
    a, b = concentration * share, concentration * (1 - share)
    grown = _log_beta(a + count.candidate, b + count.champion) - _log_beta(a, b)
    return grown - count.candidate * log(share) - count.champion * log(1 - share)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def tally(differences: Array) -> Array:
    """(n,) values in [-1, 1] → (CELLS,) counts, all that the tests of their mean need. Each value is shared out
    between its two neighbours in proportion: that keeps n and the mean, and, since log wealth is concave in the
    value, can only lessen the evidence (Jensen). Errors: ValueError for values outside, or NaN."""
    if len(differences) and not (np.min(differences) >= -1 and np.max(differences) <= 1):
        raise ValueError("a paired difference must lie in [-1, 1]")
    place = np.rint((differences + 1) * ((CELLS - 1) / 2 / FINEST)) * FINEST
    cell = np.minimum(place.astype(np.int64), CELLS - 2)
    part = place - cell
    lower = np.bincount(cell, weights=1 - part, minlength=CELLS)
    return np.asarray(lower + np.bincount(cell + 1, weights=part, minlength=CELLS))


def mean(counts: Array) -> float:
    """Of the values of a `tally` that is not empty."""
    return float(np.linspace(-1, 1, CELLS) @ counts / counts.sum())


def mean_evidence(counts: Array, above: float = 0.0) -> float:
    """E against "the mean difference is at most `above`", from a `tally`.

    The wealth of a bettor who stakes the fixed share b of it on each difference: the product of
    1 - b + b (1 + d) / (1 + above), averaged over the `BETS` (Waudby-Smith & Ramdas 2023, Estimating means of bounded
    random variables by betting, the grid of section 5.2). Shares that do not adapt make it blind to the order of rows.

    Assumes that, given the rows before, a difference has a mean of at most `above`. What breaks it: labels that
    come sooner where the candidate is worse (see `late_evidence`); rows of one entity that stand or fall together; a
    mean that moves with the season is read as harm in its worse stretch.
    """
    return _exp(_log_wealth(counts, above))


def _log_wealth(counts: Array, above: float = 0.0) -> Array:
    filled = np.flatnonzero(counts)
    return log_mean(log_growth(np.asarray(filled * (2 / (CELLS - 1)) - 1, np.float64), above) @ counts[filled])


def late_evidence(mature: Array, outcomes: Sequence[Array]) -> float:
    """E against "the mean difference is at most 0" while labels are under way: from tallies of the mature labels, and
    of all labels so far by the outcome they tell, one for each outcome there is; () where outcomes can't be listed.

    The bad news may come first: frauds are known in days, the absence of one at the horizon. Then the labels so far
    are no sample of all, and a candidate that errs elsewhere than the champion, no more often, looks worse. But if its
    mean is at most 0, it is so within one outcome at least, whatever the mix: the least E of the outcomes is an
    e-value. Mature labels have (1 - EARLY) of alpha, that least E has EARLY: the larger counts, a union bound.

    Assumes that, given the outcome, the time of a label does not depend on which model was right. What breaks it:
    labels that are made because of an answer, as where a refused payment is never known to be good.
    """
    return _exp(combined(_log_wealth(mature), [_log_wealth(tally) for tally in outcomes]))


def combined(mature: Array, outcomes: Sequence[Array]) -> Array:
    """Logarithms of E, of mature labels and of each outcome's → of both together; of any shape."""
    if not outcomes:
        return mature
    return np.asarray(np.maximum(log(1 - EARLY) + mature, log(EARLY) + np.min(outcomes, axis=0)))


def log_growth(differences: Array, above: float) -> Array:
    """(...) differences → (bets, ...): what each adds to the logarithm of each bet's wealth."""
    return np.asarray(np.log1p(np.multiply.outer(BETS, (1 + differences) / (1 + above) - 1)))


def mean_below(counts: Array, bound: float) -> float:
    """E against "the mean difference is at least `bound`": the test of the differences' negatives."""
    return mean_evidence(counts[::-1], -bound)


def mean_interval(counts: Array, alpha: float) -> tuple[float, float]:
    """The means that neither one-sided test at `alpha` rejects, within [-1, 1], to .0001. It covers the true mean at
    all times at once with probability 1 - 2 alpha."""
    low = _largest_mean(counts, 1 / alpha)
    return low, -_largest_mean(counts[::-1], 1 / alpha)


def _largest_mean(counts: Array, ceiling: float) -> float:
    """The largest mean that is rejected as too small; the wealth falls as the mean grows."""
    low, high = -1.0, 1.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if mean_evidence(counts, middle) >= ceiling else (low, middle)
    return low


def e_bh(found: Sequence[float], many: int, alpha: float) -> tuple[list[int], float]:
    """Which of `many` hypotheses are rejected, given the E of some of them (the others': 1): places in `found`, the
    surest first; and the E that the last of them needed, that the surest would need where none is rejected.

    e-BH: the k with the largest E, for the largest k whose k-th E is at least many / (alpha k). At any stopping time
    the false discovery rate is at most alpha, however the hypotheses depend on each other (Wang & Ramdas 2022, False
    discovery rate control with e-values). A rejection implies that the mean of all E is at least 1/alpha: so, with
    nothing to be found, there is ever one with probability at most alpha.

    Assumes that `many` is fixed beforehand. What breaks it: counting only the segments that were seen so far.
    """
    order = sorted(range(len(found)), key=lambda place: -found[place])
    last = max((k for k, place in enumerate(order, 1) if found[place] >= many / (alpha * k)), default=0)
    return order[:last], many / (alpha * max(last, 1))


def _exp(value: Array) -> float:
    """Never infinite: at most about 1e304."""
    return exp(min(float(value), OVERFLOW))
