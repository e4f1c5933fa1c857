"""What an experiment says: who took part, the difference of the means, and the conclusion in plain words.

The unit is the entity, since its rows are alike: the mean of a metric over its rows, each once their window is over, in
the order in which the windows end. Given that a unit is in one of two arms, it is in the variant with probability p by
lot; so z = (y - m) (t / p - (1 - t) / (1 - p)) has the difference of the means as its mean, for any m known before:
here the mean of the units before (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2024, Time-uniform central limit theory
and asymptotic confidence sequences, section 3). Intervals for the mean of z hold at all times at once.

Where shares follow the results, p is the one of the shares that the unit met: they were set by what was known before it
came, so z keeps its mean (Waudby-Smith, Wu, Ramdas, Karampatziakis & Mineiro 2024, Anytime-valid off-policy inference
for contextual bandits).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, inf, lgamma, log, prod, sqrt

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.experiment import Compared, Conclusion, Effect, Experiment, Guard, Result
from homeostat.domain.gate import Verdict
from homeostat.domain.policy import ExperimentPolicy, SignalPolicy
from homeostat.domain.prediction import Role
from homeostat.domain.units import ALL, MINUTE_MS
from homeostat.engines import evidence
from homeostat.engines.evidence import Count, tally

Array = NDArray[np.float64]
ALPHA = 0.05
"""The chance that any variant is ever called better or worse though it is neither."""
GUARD_ALPHA = 0.01
"""The same of each guardrail, over all variants."""
SPLIT_ALPHA = 0.001
FEW = 100
"""Units that each arm must have before a variance is estimated."""
TUNED = 5_000
"""Units at which an asymptotic interval is tightest."""
_CONCENTRATIONS = (10.0, 1_000.0, 100_000.0)
_FINE = 1e-7  # of an interval for a mean within [-1, 1]


@dataclass(frozen=True, slots=True)
class Units:
    """Entities in the order their windows ended: `value` (n,) and `arm` (n,), 0 the champion's; `turn` (n,) says which
    split of the callers they met, (1,) that it was the same."""

    value: Array
    arm: NDArray[np.int64]
    turn: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))


def names(experiment: Experiment) -> list[str]:
    """The arms as the log has them, the champion's first."""
    return ["champion", "candidate", *(f"version {one.number}" for one in experiment.variants[1:])]


def turned(experiment: Experiment, rows: pl.DataFrame) -> pl.DataFrame:
    """With `turn`: which of the experiment's splits the row met."""
    later = pl.col("release").str.extract(r"\.(\d+)$").cast(pl.Int64).fill_null(0)
    return rows.with_columns(turn=later if experiment.later else pl.lit(0, pl.Int64))


def found(experiment: Experiment, rows: pl.DataFrame, signals: pl.DataFrame, now_ms: int) -> Units:
    """Of the metric that decides."""
    ripe = taking_part(experiment, turned(experiment, rows), now_ms).filter("ripe")
    return units(experiment.rules.metric, experiment.rules.window, ripe, signals)


def judge(experiment: Experiment, rows: pl.DataFrame, signals: pl.DataFrame, now_ms: int) -> Result:
    """Everything at once. `rows`: of the log under the experiment; `signals`: `SIGNAL_COLUMNS`."""
    rows = turned(experiment, rows)
    part = taking_part(experiment, rows, now_ms)
    ripe, rules = part.filter("ripe"), experiment.rules
    entities = part.unique("entity")
    seen = {metric: units(metric, rules.window, ripe, signals) for metric in (rules.metric, *rules.guardrails)}
    bad = _bad(rows)
    compared = tuple(_compared(experiment, number, seen, bad) for number in range(1, len(experiment.variants) + 1))
    grown = int(entities["ripe"].sum())
    cut, invalid = _cut(rules.metric, ripe, signals), _uneven(experiment, entities, seen[rules.metric])
    return Result(rules.metric, grown, entities.height - grown, () if invalid else compared, cut, invalid)


def _cut(metric: SignalPolicy, ripe: pl.DataFrame, signals: pl.DataFrame) -> int:
    if metric.bounds is None:
        return 0
    outside = (pl.col("name") == metric.signal) & ~pl.col("value").is_between(*metric.bounds)
    return signals.filter(outside).join(ripe, on="id", how="semi").height


def taking_part(experiment: Experiment, rows: pl.DataFrame, now_ms: int) -> pl.DataFrame:
    """As `windows`, of the entities that had a share of the variants: a row without weight was kept from them by a
    rule. `rows` are `turned`."""
    answers = rows.filter((pl.col("role") == Role.ANSWER.value) & (pl.col("weight") > 0))
    arms = {name: number for number, name in enumerate(names(experiment))}
    numbered = answers.with_columns(pl.col("arm").replace_strict(arms, return_dtype=pl.Int64))
    return windows(numbered, experiment.rules.window, now_ms, level=experiment.rules.bandit > 0)


def windows(answers: pl.DataFrame, window_ms: int, now_ms: int, level: bool = False) -> pl.DataFrame:
    """The answers that each entity got in its first window, under the split it came in: id, at_ms, entity, arm (its
    first), turn, due (when the last of its windows ends; `level`: as late for one without a key, so that entities are
    counted in the order they came), ripe."""
    first, alone = pl.col("at_ms").min().over("entity"), 2 * window_ms if level else window_ms
    return (
        answers.select("id", "at_ms", "key", "arm", "turn", entity=pl.coalesce("key", "id"))
        .sort("at_ms", maintain_order=True)
        .with_columns(
            pl.col("arm").first().over("entity"),
            due=first + pl.when(pl.col("key").is_null()).then(alone).otherwise(2 * window_ms),
        )
        .filter(pl.col("at_ms") < first + window_ms, pl.col("turn") == pl.col("turn").first().over("entity"))
        .with_columns(ripe=pl.col("due") <= now_ms)
        .drop("key")
    )


def units(metric: SignalPolicy, window_ms: int, ripe: pl.DataFrame, signals: pl.DataFrame) -> Units:
    """Each entity's mean. A signal counts that came within the window of its row."""
    mine = signals.filter(pl.col("name") == metric.signal).select("id", "value", came="at_ms")
    value: pl.Expr = pl.when(pl.col("came") <= pl.col("at_ms") + window_ms).then("value")
    value = value if metric.missing is None else value.fill_null(metric.missing)
    value = value.clip(*metric.bounds) if metric.bounds else value
    made = (
        ripe.join(mine, on="id", how="left", maintain_order="left")
        .with_columns(value)
        .group_by("entity", maintain_order=True)
        .agg(pl.col("value").mean(), pl.col("arm", "turn", "due").first())
        .drop_nulls("value")
        .sort("due", "entity")
    )
    return Units(made["value"].cast(pl.Float64).to_numpy(), made["arm"].to_numpy(), made["turn"].to_numpy())


def effect(
    metric: SignalPolicy, found: Units, arm: int, splits: Sequence[Sequence[int]], alpha: float, floor: int = 0
) -> Effect:
    """Of an arm against the champion: an interval that covers the difference at all times at once with probability
    1 - alpha. `splits`: the shares of all arms, turn by turn; with several, no share but 0 is below `floor`, and the
    metric has bounds. Units that could not meet the arm do not count."""
    shares = np.broadcast_to(np.asarray(splits, np.float64)[found.turn], (len(found.arm), len(splits[0])))
    both = ((found.arm == 0) | (found.arm == arm)) & (shares[:, arm] > 0)
    y, treated = found.value[both], found.arm[both] == arm
    p = (shares[:, arm] / (shares[:, 0] + shares[:, arm]))[both]
    counts = int(treated.sum()), int((~treated).sum())
    if not all(counts):
        return Effect(len(y), None, None, None, -inf, inf)
    least = floor / ALL or min(float(p[0]), 1 - float(p[0]))
    low, high = (
        bounded(y, treated, p, metric.bounds, alpha, least) if metric.bounds else unbounded(y, treated, p, alpha)
    )
    mean = float(np.average(y[treated], weights=1 / p[treated]))  # right too where shares and values move together
    theirs = float(np.average(y[~treated], weights=1 / (1 - p[~treated])))
    return Effect(len(y), mean, theirs, mean - theirs, low, high)


def differences(y: Array, treated: NDArray[np.bool_], p: float | Array, start: float) -> Array:
    """(n,) z of the units, whose mean is the difference; `p`: of all, or of each; `start`: what m is before the first
    unit."""
    before = np.concatenate([[start], (start + np.cumsum(y)[:-1]) / np.arange(2, len(y) + 1)])
    return np.asarray((y - before) * np.where(treated, 1 / p, -1 / (1 - p)))


def scaled(
    y: Array, treated: NDArray[np.bool_], p: float | Array, bounds: tuple[float, float], least: float
) -> tuple[Array, float]:
    """(n,) z over the largest that |z| can be, so within [-1, 1]; and that. `least`: what p and 1 - p are at least."""
    low, high = bounds
    z = differences((y - low) / (high - low), treated, p, 0.5)
    return np.clip(z * least, -1, 1), (high - low) / least


def bounded(
    y: Array, treated: NDArray[np.bool_], p: float | Array, bounds: tuple[float, float], alpha: float, least: float
) -> tuple[float, float]:
    """By betting (`evidence.mean_evidence`). Assumes the bounds and the lot, and nothing of the distribution; holds
    for any n. What breaks it: an effect that changes with time is averaged, and the interval is of one that does
    not."""
    z, largest = scaled(y, treated, p, bounds, least)
    counts = tally(z)
    middle = float(z.mean())
    return largest * _end(counts, 2 / alpha, middle), -largest * _end(counts[::-1], 2 / alpha, -middle)


def _end(counts: Array, ceiling: float, mean: float) -> float:
    """The largest mean that is rejected as too small: below the observed one."""
    low, high = -1.0, mean
    while high - low > _FINE:
        middle = (low + high) / 2
        low, high = (middle, high) if evidence.mean_evidence(counts, middle) >= ceiling else (low, middle)
    return low


def unbounded(y: Array, treated: NDArray[np.bool_], p: float | Array, alpha: float) -> tuple[float, float]:
    """The asymptotic confidence sequence (Waudby-Smith et al. 2024, theorem 2.2): mean ± s sqrt(2 (n r² + 1) / (n r)²
    log(sqrt(n r² + 1) / alpha)), s the standard deviation of z so far, r such that it is tightest at `TUNED`.

    Assumes more than two finite moments, and enough units for the variance to be known: nothing is said before each
    arm has `FEW`. What breaks it: tails so heavy that one unit outweighs the others. Declared bounds are safer."""
    if min(treated.sum(), (~treated).sum()) < FEW:
        return -inf, inf
    z = differences(y, treated, p, float(y[0]))[1:]
    half = float(z.std(ddof=1)) * boundary(len(z), alpha)
    return float(z.mean()) - half, float(z.mean()) + half


def boundary(n: int, alpha: float) -> float:
    """Half the width of the asymptotic interval after n units, in standard deviations of one."""
    r2 = (-2 * log(alpha) + log(-2 * log(alpha) + 1)) / TUNED
    return sqrt(2 * (n * r2 + 1) / (n**2 * r2) * log(sqrt(n * r2 + 1) / alpha))


def _compared(
    experiment: Experiment, number: int, seen: Mapping[SignalPolicy, Units], bad: Mapping[tuple[int, str], int]
) -> Compared:
    """Variants share the error rates between them (Bonferroni)."""
    rules, splits, many = experiment.rules, experiment.splits, len(experiment.variants)
    main = effect(rules.metric, seen[rules.metric], number, splits, ALPHA / many, rules.bandit)
    version = experiment.variants[number - 1].number
    conclusion = conclude(rules.metric, main)
    guards = [
        _guarded(metric, effect(metric, seen[metric], number, splits, 2 * GUARD_ALPHA / many, rules.bandit))
        for metric in rules.guardrails
    ]
    arms = names(experiment)
    counts = [
        Count(
            ALL * split[number] // (split[0] + split[number]),
            bad.get((turn, arms[number]), 0),
            bad.get((turn, arms[0]), 0),
        )
        for turn, split in enumerate(splits)
        if split[number]
    ]
    said = told(rules.metric, version, main, conclusion)
    return Compared(version, main, conclusion, said, (_errors(counts, many), *guards))


def conclude(metric: SignalPolicy, found: Effect) -> Conclusion:
    """By the interval alone."""
    low, high = (found.low, found.high) if metric.better == "higher" else (-found.high, -found.low)
    if low > 0:
        return Conclusion.BETTER
    if high < 0:
        return Conclusion.WORSE
    return Conclusion.ALIKE if -metric.margin < low and high < metric.margin else Conclusion.UNKNOWN


def told(metric: SignalPolicy, version: int, found: Effect, conclusion: Conclusion) -> str:
    """`Version 4 is better than the champion on amount: 1.2 more [.4, 2] over 3,000 entities.`"""
    if found.difference is None:
        return f"Version {version}: {conclusion}, no entity of both arms has its {metric.signal} yet."
    span = (
        f"[{_number(found.low)}, {_number(found.high)}]"
        if found.low > -inf
        else f"no interval before {FEW} in each arm"
    )
    measured = f"{metric.signal} {_number(found.mean)} against {_number(found.champion_mean)}, difference "
    measured += f"{_number(found.difference)} {span} over {found.n:,} entities"
    match conclusion:
        case Conclusion.BETTER | Conclusion.WORSE:
            return f"Version {version} is {conclusion} than the champion: {measured}."
        case Conclusion.ALIKE:
            return f"Version {version} and the champion differ by less than {_number(metric.margin)}: {measured}."
    return f"Version {version}: {conclusion}; {measured}."


def _guarded(metric: SignalPolicy, found: Effect) -> Guard:
    low, high = (found.low, found.high) if metric.better == "higher" else (-found.high, -found.low)
    lost = f"{metric.signal} {'fell' if metric.better == 'higher' else 'rose'} by more than {_number(metric.margin)}"
    verdict = Verdict.HARM if high < -metric.margin else Verdict.OK if low > -metric.margin else Verdict.UNKNOWN
    said = {Verdict.HARM: lost, Verdict.OK: f"not so that {lost}"}.get(verdict, f"not known whether {lost}")
    return Guard(metric.signal, verdict, f"{said}, [{_number(found.low)}, {_number(found.high)}]", found)


def _errors(counts: Sequence[Count], many: int) -> Guard:
    """Bad answers of a variant against the champion's: `evidence.ratio_evidence`, as in a release."""
    e, ceiling = evidence.ratio_evidence(counts, 1.0), many / GUARD_ALPHA
    verdict = Verdict.HARM if e >= ceiling else Verdict.UNKNOWN
    own, theirs = sum(count.candidate for count in counts), sum(count.champion for count in counts)
    said = f"{own:,} bad answers of the variant, {theirs:,} of the champion"
    return Guard("errors", verdict, f"{said} (E = {_number(e)}, harm at {ceiling:,.0f})")


def _bad(rows: pl.DataFrame) -> dict[tuple[int, str], int]:
    """Turn and arm → bad answers, at most one an entity and minute."""
    own = (pl.col("role") == Role.FAILED.value) | (pl.col("arm") == "champion")
    bad = rows.filter(own & (pl.col("weight") > 0) & pl.col("status").is_in(["error", "nonfinite", "timeout"]))
    once = bad.select("turn", "arm", entity=pl.coalesce("key", "id"), minute=pl.col("at_ms") // MINUTE_MS).unique()
    return {(turn, arm): n for turn, arm, n in once.group_by("turn", "arm").len().iter_rows()}


def _uneven(experiment: Experiment, entities: pl.DataFrame, found: Units) -> str:
    """Why the arms can't be compared, "" if they can: each must have its share of the entities, and of those that have
    a value. E of the turns are multiplied up."""
    splits = experiment.splits
    for what, arm, turn in (
        ("entities", entities["arm"].to_numpy(), entities["turn"].to_numpy()),
        (f"entities with their {experiment.rules.metric.signal}", found.arm, found.turn),
    ):
        counts = np.zeros((len(splits), len(splits[0])), np.int64)
        np.add.at(counts, (turn, arm), 1)
        e = prod(split_evidence(seen, split) for seen, split in zip(counts.tolist(), splits, strict=True))
        if e >= 1 / SPLIT_ALPHA:
            shown = counts.sum(axis=0).tolist()
            return f"the {what} do not fall on the arms as they should: {shown} (E = {_number(e)}, invalid at 1,000)"
    return ""


def split_evidence(counts: Sequence[int], shares: Sequence[int]) -> float:
    """E against "each fell on its arm with the share of it": a Dirichlet mixture over the true shares, centred on
    them, against them, averaged over three concentrations (Lindon & Malek 2022, equation 6). An arm without a share is
    none."""
    held = [arm for arm, share in enumerate(shares) if share]
    logs = [_log_mixture([counts[arm] for arm in held], [shares[arm] for arm in held], k) for k in _CONCENTRATIONS]
    return exp(min(float(np.logaddexp.reduce(logs)) - log(len(logs)), evidence.OVERFLOW))


def _log_mixture(counts: Sequence[int], shares: Sequence[int], concentration: float) -> float:
    prior = [concentration * share / ALL for share in shares]
    grown = sum(lgamma(a + n) - lgamma(a) for a, n in zip(prior, counts, strict=True))
    grown += lgamma(concentration) - lgamma(concentration + sum(counts))
    return grown - sum(n * log(share / ALL) for n, share in zip(counts, shares, strict=True))


def units_needed(rules: ExperimentPolicy, many: int, deviation: float, difference: float) -> int:
    """Units in all arms after which a difference of that size is found four times in five, `deviation` being a unit's
    standard deviation. By normal approximation: of the asymptotic interval, or of the wealth of each bet."""
    shares = [rules.share or ALL // (many + 1)] * many
    champion = ALL - sum(shares)
    p = shares[0] / (champion + shares[0])
    spread = deviation / sqrt(p * (1 - p))
    if rules.metric.bounds:
        low, high = rules.metric.bounds
        largest = max(1 / p, 1 / (1 - p)) * (high - low)
        enough = _bets(difference / largest, spread / largest, ALPHA / many)
    else:
        enough = _looks(difference / spread, ALPHA / many)
    return int(np.ceil(enough * ALL / (champion + shares[0])))


_POWER = 0.8416  # the normal quantile of four in five


def _bets(mean: float, sd: float, alpha: float) -> float:
    """The fewest units after which one bet has won enough: n g - .84 b s sqrt(n) = log(2 · bets / alpha), where
    g = b m - b² (s² + m²) / 2 is what log wealth grows by."""
    target, fewest = log(2 * len(evidence.BETS) / alpha), inf
    for bet in evidence.BETS.tolist():
        growth, noise = bet * mean - bet**2 * (sd**2 + mean**2) / 2, _POWER * bet * sd
        if growth > 0:
            fewest = min(fewest, ((noise + sqrt(noise**2 + 4 * growth * target)) / (2 * growth)) ** 2)
    return fewest


def _looks(ratio: float, alpha: float) -> float:
    """The fewest units after which the interval excludes nothing: `ratio` >= boundary + .84 / sqrt(n)."""
    low, high = 2 * FEW, 1 << 40
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if ratio >= boundary(middle, alpha) + _POWER / sqrt(middle) else (middle + 1, high)
    return float(low)


def _number(value: float | None) -> str:
    """Three significant digits."""
    return "?" if value is None else f"{value:,.0f}" if 1_000 <= abs(value) < inf else f"{value:.3g}"
