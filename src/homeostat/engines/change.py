"""Has the model become worse? A change of the mean loss, found on labelled rows as their labels come.

The losses lie in [0, 1] and are taken in blocks (days), since neighbouring rows are alike. Under "no worse" a
block's mean x has expectation at most m. For an alternative q > m,
    e = (q / m)^x ((1 - q) / (1 - m))^(1 - x)
is an e-value: it is convex in x, so its mean is at most that of a coin with rate m, which is 1 (Hoeffding 1963).
A block is worth nu such coins: nu = m (1 - m) / s^2, s the standard deviation of the baseline's own block means, so
that whatever makes blocks wobble (dependence, ordinary life) is accounted for. e^nu is capped at the square root of
the threshold: one odd block raises no alarm, two that agree may.
The detector sums over all possible starts of the change: R <- (1 + R) e^nu, averaged over several q; harm when it
reaches A: then ordinary blocks raise a false alarm at most once in A blocks on average (e-detectors: Shin, Ramdas,
Rinaldo, "E-detectors", New England Journal of Statistics in Data Science 2024; Shiryaev 1963, Roberts 1966).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri

from homeostat.domain.gate import Verdict

Array = NDArray[np.float64]
LEAST_BLOCKS = 3


@dataclass(frozen=True, slots=True)
class Baseline:
    """The losses of the same model when it was made: mean over `n` rows, and the means of their blocks in order."""

    mean: float
    n: int
    block_means: tuple[float, ...]

    @property
    def spread(self) -> float:
        """s: the standard deviation of block means, at the 75 % upper limit of what few blocks can tell
        (chi-squared), and at least what independent rows with the same mean would show by half."""
        k = len(self.block_means)
        sample = float(np.var(self.block_means, ddof=1)) * (k - 1) / float(chdtri(k - 1, 0.75))
        rows_a_block = max(1.0, self.n / k)
        return float(np.sqrt(max(sample, self.mean * (1 - self.mean) / rows_a_block / 16, 1e-12)))

    def scaled(self, factor: float) -> Baseline:
        """The same losses in another unit."""
        return Baseline(self.mean * factor, self.n, tuple(mean * factor for mean in self.block_means))

    def worse(self, ratio: float) -> float:
        """The mean loss whose odds are so many times as high."""
        return ratio * self.mean / (1 - self.mean + ratio * self.mean)

    @property
    def error(self) -> float:
        """Standard error of `mean`."""
        return self.spread / float(np.sqrt(len(self.block_means)))


def baseline_of(losses: Array, blocks: NDArray[np.int64]) -> Baseline:
    """From losses (n,) in [0, 1], n > 0, with the ascending ids (n,) of the blocks (days) they lie in. The first and
    the last block count only if they hold at least half as many rows as the others do in the median."""
    _, first, counts = np.unique(blocks, return_index=True, return_counts=True)
    means = np.add.reduceat(losses, first) / counts
    whole = counts >= np.median(counts) / 2
    whole[1:-1] = True
    return Baseline(float(losses.mean()), len(losses), tuple(means[whole].tolist()))


def pooled(baselines: Sequence[Baseline]) -> Baseline:
    """One baseline from several, at least one, each weighted by its rows."""
    n = sum(one.n for one in baselines)
    blocks = tuple(mean for one in baselines for mean in one.block_means)
    return Baseline(sum(one.mean * one.n for one in baselines) / n, n, blocks)


@dataclass(frozen=True, slots=True)
class Rule:
    """`threshold`: ordinary blocks between false alarms. `ratios`: how much worse, in odds, the alternatives are.
    `allowance`: standard errors added to the baseline's mean, for it is estimated."""

    threshold: float = 100.0
    ratios: tuple[float, ...] = (1.1, 1.25, 1.5, 2.0, 3.0)
    allowance: float = 1.0


ORDINARY = Rule()


@dataclass(frozen=True, slots=True)
class Change:
    """`evidence` against `threshold`; `since`: the block in which the change most likely began (None: no sign of
    one); `mean` of the `n` losses over `blocks`, beside the baseline's."""

    verdict: Verdict
    reason: str
    evidence: float
    threshold: float
    since: int | None
    mean: float
    baseline: float
    n: int
    blocks: int


def detect(baseline: Baseline, losses: Array, blocks: NDArray[np.int64], rule: Rule = ORDINARY) -> Change:
    """Losses (n,) in [0, 1] with the ascending ids (n,) of the blocks they lie in."""
    ids, first, counts = np.unique(blocks, return_index=True, return_counts=True)
    means = np.add.reduceat(losses, first) / counts if len(losses) else np.zeros(0)
    if len(baseline.block_means) < LEAST_BLOCKS:
        reason = f"the baseline holds {len(baseline.block_means)} days of labels; {LEAST_BLOCKS} are needed"
        return _change(Verdict.UNKNOWN, reason, 0.0, None, baseline, losses, len(ids), rule)
    if not len(ids):
        return _change(Verdict.UNKNOWN, "no whole day of mature labels yet", 0.0, None, baseline, losses, 0, rule)
    weight = np.minimum(1.0, counts / (baseline.n / len(baseline.block_means)))
    steps = log_e(baseline, means, weight, rule)
    evidence = shiryaev_roberts(steps)
    since = _start(steps, ids)
    harm = evidence >= rule.threshold
    return _change(
        Verdict.HARM if harm else Verdict.OK,
        _words(harm, evidence, rule, baseline, means, ids >= (ids[0] if since is None else since)),
        evidence,
        since,
        baseline,
        losses,
        len(ids),
        rule,
    )


def log_e(baseline: Baseline, means: Array, weight: Array, rule: Rule) -> Array:
    """(blocks, ratios) log e-values of block means (blocks,), each worth `weight` of a whole block."""
    m = float(np.clip(baseline.mean + rule.allowance * baseline.error, 1e-6, 1 - 1e-6))
    ratios = np.asarray(rule.ratios)
    q = ratios * m / (1 - m + ratios * m)
    coins = m * (1 - m) / baseline.spread**2
    x = np.minimum(means, 1 - 1e-6)[:, None]
    steps = coins * weight[:, None] * (x * np.log(q / m) + (1 - x) * np.log((1 - q) / (1 - m)))
    return np.asarray(np.minimum(steps, np.log(rule.threshold) / 2))


def shiryaev_roberts(steps: Array) -> float:
    """The mean over alternatives of R <- (1 + R) e, from log e (blocks, ratios); at most 1e300."""
    total = np.full(steps.shape[1], -np.inf)
    for step in steps:
        total = np.logaddexp(0.0, total) + step
    return float(np.mean(np.exp(np.minimum(total, 690.0))))


def _start(steps: Array, ids: NDArray[np.int64]) -> int | None:
    """The block from which the evidence, over the best alternative, is largest; None when it is nowhere above 1."""
    tails = np.cumsum(steps[::-1], axis=0)[::-1]
    best = int(np.argmax(tails.max(axis=1)))
    return int(ids[best]) if tails[best].max() > 0 else None


def _words(
    harm: bool,
    evidence: float,
    rule: Rule,
    baseline: Baseline,
    means: Array,
    recent: NDArray[np.bool_],
) -> str:
    held = f"E = {evidence:.3g}, harm at {rule.threshold:g}"
    if harm:
        now, days = means[recent].mean(), recent.sum()
        return f"the loss rose from {baseline.mean:.3g} to {now:.3g} in the last {days} days with labels ({held})"
    return f"no harm seen: loss {means.mean():.3g} over {len(means)} days, {baseline.mean:.3g} when made ({held})"


def _change(
    verdict: Verdict,
    reason: str,
    evidence: float,
    since: int | None,
    baseline: Baseline,
    losses: Array,
    blocks: int,
    rule: Rule,
) -> Change:
    mean = float(losses.mean()) if len(losses) else float("nan")
    return Change(verdict, reason, evidence, rule.threshold, since, mean, baseline.mean, len(losses), blocks)
