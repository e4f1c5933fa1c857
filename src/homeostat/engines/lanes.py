"""What each lane of evidence says of a release, from the prediction log and the labels.

Frames have the columns of `LOG_COLUMNS` (`inputs` is not looked at), in order of time, and of `LABEL_COLUMNS`;
only rows logged under the release. Bad events are compared where both arms are alike: between answers, at the
candidate's share w of them; between shadow scores, where the shares are exchanged; and, where one arm answers all and
the other shadows all, at one half. A row that both arms fail on enters for both, which can only lessen E.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.bundle import Bundle
from homeostat.domain.gate import Verdict
from homeostat.domain.prediction import Role
from homeostat.domain.rollout import Lane
from homeostat.domain.schema import Task
from homeostat.domain.units import ALL, MINUTE_MS
from homeostat.engines import evidence, metrics
from homeostat.engines.answer import output_of
from homeostat.engines.evidence import Count

ERRORS_ALPHA = 0.01
SLOW_ALPHA = 0.01
SLOW_RATIO = 1.1
SAMPLE_ALPHA = 0.001
QUALITY_ALPHA = 0.02
PASS_ALPHA = 0.05
"""For "bounded" and "non-inferior": no rollback hangs on it."""

FIRST = 20
"""Half of so many first rows bad is a hard stop."""

CAREFUL = 1_000
BOUND, BOUND_ABOVE = 2.0, 1.25
"""The ratio of rates that must be excluded before a step ends: up to `CAREFUL` basis points, and above."""


@dataclass(frozen=True, slots=True)
class Side:
    """A version's number and its bundle."""

    version: int
    bundle: Bundle


@dataclass(frozen=True, slots=True)
class Case:
    """What is compared, and by which limits. `slow_us` 0: no limit for slow answers. `weight`: the step's."""

    champion: Side
    candidate: Side
    weight: int
    slow_us: int
    margin: float
    horizon_ms: int
    now_ms: int

    @property
    def bound(self) -> float:
        return bound(self.weight)


def bound(weight: int) -> float:
    """The ratio of rates that a step of this weight must exclude."""
    return BOUND if weight <= CAREFUL else BOUND_ABOVE


@dataclass(frozen=True, slots=True)
class Findings:
    """`hard_stop`: why the release must end without statistics, "" for no reason."""

    lanes: tuple[Lane, ...]
    hard_stop: str
    mature_labels: int


_PAIRED = pl.Schema({"id": pl.String, "mature": pl.Boolean, "difference": pl.Float64})
_SHADOW = pl.col("role") == Role.SHADOW.value
_SPLIT = pl.col("weight").is_between(1, ALL - 1)
_SHARE = (
    pl.when(~_SPLIT)
    .then(pl.lit(ALL // 2, pl.Int64))
    .when(_SHADOW)
    .then(ALL - pl.col("weight"))
    .otherwise(pl.col("weight"))
)


def judge(case: Case, log: pl.DataFrame, labels: pl.DataFrame) -> Findings:
    """Every lane at once."""
    rows = compared(case, log)
    pairs = paired(case, rows, labels)
    lanes = [errors(rows, case.bound), sample_ratio(rows), quality(case, pairs, _uneven(rows, labels))]
    if case.slow_us:
        lanes.insert(1, slow(rows, case.slow_us, case.bound))
    return Findings(tuple(lanes), hard_stop(rows), int(pairs["mature"].sum()))


def compared(case: Case, log: pl.DataFrame) -> pl.DataFrame:
    """The rows that a model saw, with columns added: `candidate` and `bad` (bool), `share` (of the candidate, where
    the row is compared), `entity`, `minute`."""
    versions = [case.champion.version, case.candidate.version]
    return log.filter(pl.col("version").is_in(versions) & (pl.col("role") != Role.REJECTED.value)).with_columns(
        candidate=pl.col("version") == case.candidate.version,
        bad=pl.col("status").is_in(["error", "nonfinite", "timeout"]),
        share=_SHARE,
        entity=pl.coalesce("key", "id"),
        minute=pl.col("at_ms") // MINUTE_MS,
    )


def errors(rows: pl.DataFrame, bound: float) -> Lane:
    """Errors, timeouts and non-finite outputs, at most one an entity and minute. The champion's answers in the place
    of a failed candidate are left out, and at 0 and 100 % the answers that nobody shadowed."""
    return _ratio_lane("errors", "bad answers", error_counts(rows), 1.0, ERRORS_ALPHA, bound)


def error_counts(rows: pl.DataFrame) -> list[Count]:
    """The bad events of `errors`, by share."""
    rescued = ~_SHADOW & ~pl.col("candidate") & (pl.col("arm") == "candidate")
    bad = rows.filter(pl.col("bad") & ~rescued)
    if bad.height:
        alone = bad.filter(~_SPLIT & (pl.col("role") == Role.ANSWER.value))
        alone = alone.join(rows.filter(_SHADOW), on="id", how="anti")
        bad = bad.join(alone, on=["id", "role"], how="anti").unique(["entity", "minute", "candidate", "share"])
    return _counts(bad)


def slow(rows: pl.DataFrame, slow_us: int, bound: float) -> Lane:
    """Model calls over `slow_us` microseconds behind answers that callers saw, while both arms answered.

    The unit is the call, since the rows of a batch share its time; an arm's share of the calls is measured, since a
    batch of many rows has a call for each arm at any weight. What breaks it: a call's time grows with its rows, so
    that the arm with less traffic looks a little quicker; and a pause that makes many calls in a row slow.
    """
    what = f"calls over {number(slow_us / 1_000)} ms"
    return _ratio_lane("slow", what, slow_counts(calls(rows), slow_us), SLOW_RATIO, SLOW_ALPHA, bound)


def calls(rows: pl.DataFrame) -> pl.DataFrame:
    """The model calls behind answers while both arms answered, one row each; `share`: the candidate's, of the calls
    at that weight."""
    answers = rows.filter(_SPLIT & (pl.col("role") == Role.ANSWER.value) & (pl.col("status") == "ok"))
    one_each = answers.unique(["at_ms", "weight", "candidate", "model_us"])
    share = (pl.col("candidate").mean().over("weight") * ALL).round().cast(pl.Int64)
    return one_each.with_columns(share=share).filter(pl.col("share").is_between(1, ALL - 1))


def slow_counts(calls: pl.DataFrame, slow_us: int) -> list[Count]:
    """Of those calls, the slow ones."""
    return _counts(calls.filter(pl.col("model_us") > slow_us))


def sample_ratio(rows: pl.DataFrame) -> Lane:
    """Did each arm get its share? Each entity counts once, at the weight it was first seen at: assignment is sticky."""
    counts = _assigned(rows)
    n = sum(count.candidate + count.champion for count in counts)
    e, threshold = evidence.share_evidence(counts), 1 / SAMPLE_ALPHA
    got = sum(count.candidate for count in counts)
    due = sum((count.candidate + count.champion) * count.weight for count in counts) / ALL
    told = f"{got:,} of {n:,} callers met the candidate, {due:,.0f} were due (E = {number(e)}, invalid at 1,000)"
    verdict = Verdict.INVALID if e >= threshold else Verdict.OK if n else Verdict.UNKNOWN
    return Lane("sample_ratio", verdict, told, n, e, threshold)


def _assigned(rows: pl.DataFrame) -> list[Count]:
    answers = rows.filter(_SPLIT & (pl.col("role") == Role.ANSWER.value))
    seen = answers.unique("entity", keep="first", maintain_order=True)
    return _counts(seen.select(share="weight", candidate=pl.col("arm") == "candidate"))


def _uneven(rows: pl.DataFrame, labels: pl.DataFrame) -> str:
    """Why the labels of the two arms can't be compared, "" if they can: under equal coverage the labelled entities
    fall on the arms as all do."""
    counts = _assigned(rows.join(labels, on="id", how="semi")) if labels.height else []
    e = evidence.share_evidence(counts)
    got, n = sum(count.candidate for count in counts), sum(count.candidate + count.champion for count in counts)
    if e < 1 / SAMPLE_ALPHA:
        return ""
    return f"labels do not come evenly: {got:,} of {n:,} are the candidate's (E = {number(e)}, invalid at 1,000)"


def _counts(events: pl.DataFrame) -> list[Count]:
    """Rows with `share` and `candidate` → counts by share."""
    if not events.height:
        return []
    mine = pl.col("candidate")
    return [Count(*row) for row in events.group_by("share").agg(mine.sum(), b=(~mine).sum()).sort("share").rows()]


def _ratio_lane(name: str, what: str, counts: Sequence[Count], r0: float, alpha: float, bound: float) -> Lane:
    mine, theirs = sum(count.candidate for count in counts), sum(count.champion for count in counts)
    e, threshold = evidence.ratio_evidence(counts, r0), 1 / alpha
    low, high = evidence.ratio_interval(counts, alpha)
    bounded = evidence.ratio_below(counts, bound) >= 1 / PASS_ALPHA
    verdict = Verdict.HARM if e >= threshold else Verdict.OK if bounded else Verdict.UNKNOWN
    found = "harm" if verdict is Verdict.HARM else "no harm seen"
    told = f"{found} (E = {number(e)}, harm at {threshold:,.0f}): {mine:,} {what} of the candidate, "
    told += f"{theirs:,} of the champion"
    if mine + theirs:
        told += f", ratio of rates in {interval(low, high)}"
    value = evidence.ratio_estimate(counts)
    return Lane(name, verdict, told, mine + theirs, e, threshold, value, low, high, bounded)


def hard_stop(rows: pl.DataFrame) -> str:
    """A non-finite output, or half of the first rows bad, where the champion answered the same rows."""
    if not rows["bad"].any():
        return ""
    mine = rows.filter("candidate")
    fine = rows.filter(~pl.col("candidate") & (pl.col("status") == "ok"))
    failed = mine.filter("bad").join(fine, on="id", how="semi", maintain_order="left")
    broken = failed.filter(pl.col("status") == "nonfinite")
    if broken.height:
        return f"the candidate gave a non-finite output for {broken['id'][0]}; the champion answered it"
    early = failed.join(mine.head(FIRST), on=["id", "role"], how="semi").height
    if early >= FIRST // 2:
        return f"{early} of the candidate's first {min(FIRST, mine.height)} rows were bad; the champion answered them"
    return ""


def paired(case: Case, rows: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """One row for each label of a row that both versions scored: `difference` = loss(candidate) - loss(champion) in
    [-1, 1], and `mature` (bool): the row is older than the label horizon."""
    if not labels.height:
        return pl.DataFrame(schema=_PAIRED)
    usable = (pl.col("role") != Role.FAILED.value) & (pl.col("status") == "ok")
    good = rows.filter(usable).select("id", "at_ms", "candidate", "score", "scores")
    good = good.join(labels.select("id", truth="label"), on="id", how="inner", maintain_order="left")
    good = good.unique(["id", "candidate"], keep="first", maintain_order=True)
    theirs = good.filter(~pl.col("candidate"))
    both = good.filter("candidate").join(theirs, on="id", how="inner", maintain_order="left", suffix="_old")
    old = both.select("truth", score="score_old", scores="scores_old")
    scale = case.champion.bundle.loss_scale
    difference = _losses(case.candidate.bundle, both, scale) - _losses(case.champion.bundle, old, scale)
    mature = pl.col("at_ms") + case.horizon_ms <= case.now_ms
    return both.select("id", mature=mature).with_columns(difference=pl.Series(difference, dtype=pl.Float64))


def _losses(bundle: Bundle, rows: pl.DataFrame, scale: float) -> NDArray[np.float64]:
    """(n,) in [0, 1]. A class that the bundle does not know can't be answered: a loss of 1."""
    schema, truth = bundle.schema, rows["truth"]
    if schema.task is not Task.REGRESSION:
        known = {str(name): i for i, name in enumerate(schema.classes)}
        truth = truth.replace_strict(known, default=None, return_dtype=pl.Int64)
    y = truth.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    loss, usable = np.ones(len(y)), np.isfinite(y)
    loss[usable] = metrics.losses(schema.task, y[usable], output_of(schema, rows)[usable], scale)
    return np.clip(np.nan_to_num(loss, nan=1.0), 0, 1)


def quality(case: Case, pairs: pl.DataFrame, uneven: str) -> Lane:
    """Harm from all labels; `value`, its interval, `n` and `bounded` (non-inferior) from mature ones only."""
    everything = evidence.tally(pairs["difference"].to_numpy())
    ripe = pairs.filter("mature")["difference"]
    mature = evidence.tally(ripe.to_numpy())
    e, threshold = evidence.mean_evidence(everything), 1 / QUALITY_ALPHA
    bounded = evidence.mean_below(mature, case.margin) >= 1 / PASS_ALPHA
    verdict = Verdict.HARM if e >= threshold else Verdict.OK if bounded else Verdict.UNKNOWN
    mean = float(ripe.to_numpy().mean()) if ripe.len() else None
    low, high = evidence.mean_interval(mature, PASS_ALPHA / 2)
    told = _quality_told(verdict, e, pairs.height, ripe.len(), mean, (low, high), case.margin)
    verdict, told = (Verdict.INVALID, uneven) if uneven else (verdict, told)
    return Lane("quality", verdict, told, ripe.len(), e, threshold, mean, low, high, bounded and not uneven)


def _quality_told(
    verdict: Verdict, e: float, n: int, ripe: int, mean: float | None, band: tuple[float, float], margin: float
) -> str:
    found = {Verdict.HARM: "harm", Verdict.OK: "not worse"}.get(verdict, "no harm seen")
    told = f"{found} (E = {number(e)} over {n:,} labels, harm at {1 / QUALITY_ALPHA:.0f})"
    if mean is None:
        return f"{told}; none of the labels is mature"
    measured = f"{number(mean)} {interval(*band)} over {ripe:,} mature labels"
    return f"{told}; mean difference of the loss {measured}, margin {number(margin)}"


def number(value: float) -> str:
    """Three significant digits, without the zero before the point."""
    if abs(value) >= 1_000:
        return f"{value:,.0f}" if abs(value) < 1e6 else f"{value:.1e}"
    text = f"{value:.3g}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def interval(low: float, high: float) -> str:
    return f"[{number(low)}, {'∞' if high == float('inf') else number(high)}]"
