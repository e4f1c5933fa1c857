"""What each lane of evidence says of a release, from the prediction log and the labels.

Frames have the columns of `LOG_COLUMNS` (of `inputs` only the guarded ones are looked at), in order of time, and of
`LABEL_COLUMNS`; only rows logged under the release. A row that comes twice counts once. Bad events are compared where
both arms are alike: between answers, at the candidate's share w of them; between the scores beside them, where the
shares are exchanged; and, where one arm answers all and the other is beside it, at one half. Beside an answer stands
the other version's shadow score, or the champion's answer in the place of a failed candidate. So a row that breaks both
versions enters for both, whoever had to answer it, which can only lessen E: one caller with such a row a minute proves
nothing, on whichever arm it is.
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
from homeostat.domain.schema import Schema, Task
from homeostat.domain.units import ALL, MINUTE_MS
from homeostat.engines import evidence, guarded, metrics
from homeostat.engines.answer import output_of
from homeostat.engines.evidence import Count
from homeostat.engines.guarded import Segment

ERRORS_ALPHA = 0.01
SLOW_ALPHA = 0.01
SLOW_RATIO = 1.1
SAMPLE_ALPHA = 0.001
QUALITY_ALPHA = 0.02
SEGMENTS_ALPHA = 0.01
PASS_ALPHA = 0.05
"""For "bounded" and "non-inferior": no rollback hangs on it."""

FIRST = 20
"""Half of so many first rows bad is a hard stop."""

OVER, OFF = 1e-6, 1e-3
"""By how much a probability may leave [0, 1], and their sum be off 1, before they are none."""

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
    """What is compared, and by which limits. `slow_us` 0: no limit for slow answers. `weight`: the step's. `segments`:
    the inputs in each value of which the candidate must do no harm."""

    champion: Side
    candidate: Side
    weight: int
    slow_us: int
    margin: float
    horizon_ms: int
    now_ms: int
    segments: tuple[str, ...] = ()

    @property
    def bound(self) -> float:
        return bound(self.weight)

    @property
    def classes(self) -> list[str]:
        """What a label may say, as far as either version knows; none for regression."""
        schemas = (self.champion.bundle.schema, self.candidate.bundle.schema)
        return list(dict.fromkeys(str(known) for schema in schemas for known in schema.classes))


def bound(weight: int) -> float:
    """The ratio of rates that a step of this weight must exclude."""
    return BOUND if weight <= CAREFUL else BOUND_ABOVE


@dataclass(frozen=True, slots=True)
class Findings:
    """`hard_stop`: why the release must end without statistics, "" for no reason."""

    lanes: tuple[Lane, ...]
    hard_stop: str
    mature_labels: int


_PAIRED = pl.Schema(
    {"id": pl.String, "at_ms": pl.Int64, "outcome": pl.String, "mature": pl.Boolean, "difference": pl.Float64}
)
_SHADOW = pl.col("role") == Role.SHADOW.value
_SPLIT = pl.col("weight").is_between(1, ALL - 1)
_SHARE = (
    pl.when(~_SPLIT)
    .then(pl.lit(ALL // 2, pl.Int64))
    .when("beside")
    .then(ALL - pl.col("weight"))
    .otherwise(pl.col("weight"))
)


def compared(case: Case, log: pl.DataFrame) -> pl.DataFrame:
    """The rows that a model saw, with columns added: `candidate`, `bad` and `beside` (bool: not the answer of its own
    arm), `share` (of the candidate, where the row is compared), `entity`, `minute`."""
    versions = [case.champion.version, case.candidate.version]
    mine = pl.col("version") == case.candidate.version
    rescue = (pl.col("role") == Role.ANSWER.value) & (pl.col("arm") == "candidate") & ~mine
    seen = log.lazy().filter(pl.col("version").is_in(versions) & (pl.col("role") != Role.REJECTED.value))
    marked = seen.with_columns(beside=_SHADOW | rescue).with_columns(
        candidate=mine,
        bad=pl.col("status").is_in(["error", "nonfinite", "timeout", "memory"]),
        share=_SHARE,
        entity=pl.coalesce("key", "id"),
        minute=pl.col("at_ms") // MINUTE_MS,
    )
    return marked.collect()


def errors(rows: pl.DataFrame, bound: float) -> Lane:
    """Errors, timeouts and non-finite outputs, at most one an entity and minute. At 0 and 100 % the answers that have
    nothing beside them are left out."""
    return _ratio_lane("errors", "bad answers", error_counts(rows), 1.0, ERRORS_ALPHA, bound)


def error_counts(rows: pl.DataFrame) -> list[Count]:
    """The bad events of `errors`, by share."""
    bad = rows.filter("bad")
    if bad.height:
        alone = bad.filter(~_SPLIT & (pl.col("role") == Role.ANSWER.value) & ~pl.col("beside"))
        alone = alone.join(rows.filter("beside"), on="id", how="anti")
        bad = bad.join(alone, on=["id", "role"], how="anti").unique(["entity", "minute", "candidate", "share"])
    return _counts(bad)


def slow(calls: pl.DataFrame, slow_us: int, bound: float) -> Lane:
    """Model `calls` over `slow_us` microseconds behind answers that callers saw, while both arms answered.

    The unit is the call, since the rows of a batch share its time; an arm's share of the calls is measured, since a
    batch of many rows has a call for each arm at any weight. What breaks it: a call's time grows with its rows, so
    that the arm with less traffic looks a little quicker; and a pause that makes many calls in a row slow.
    """
    what = f"calls over {number(slow_us / 1_000)} ms"
    return _ratio_lane("slow", what, slow_counts(shared(calls)), SLOW_RATIO, SLOW_ALPHA, bound)


def calls(rows: pl.DataFrame, slow_us: int) -> pl.DataFrame:
    """The model calls behind answers while both arms answered, one row each: `at_ms`, `weight`, `candidate`, `n` (1),
    `slow` (0 or 1). Calls add up where rows are parted between two times."""
    answers = rows.filter(_SPLIT & (pl.col("role") == Role.ANSWER.value) & (pl.col("status") == "ok"))
    made = answers.select("at_ms", "weight", "candidate", "model_us").unique()
    slow = (pl.col("model_us") > slow_us).cast(pl.Int64)
    return made.select("at_ms", "weight", "candidate", n=pl.lit(1, pl.Int64), slow=slow)


def summed(calls: pl.DataFrame) -> pl.DataFrame:
    """One row an arm and weight; adds up."""
    return calls.group_by("weight", "candidate").agg(pl.col("n", "slow").sum())


def shared(calls: pl.DataFrame) -> pl.DataFrame:
    """With `share`: the candidate's, of the calls at that weight; where it has one."""
    mine = pl.col("n").filter(pl.col("candidate")).sum().over("weight")
    share = (mine / pl.col("n").sum().over("weight") * ALL).round().cast(pl.Int64)
    return calls.with_columns(share=share).filter(pl.col("share").is_between(1, ALL - 1))


def slow_counts(calls: pl.DataFrame) -> list[Count]:
    """Of the `shared` calls, the slow ones."""
    return _counts(calls.filter(pl.col("slow") > 0), pl.col("slow"))


def sample_ratio(met: pl.DataFrame) -> Lane:
    """Did each arm get its share of those who `met` one? Each entity counts once, at the weight it was first seen at:
    assignment is sticky."""
    counts = _counts(met)
    n = sum(count.candidate + count.champion for count in counts)
    e, threshold = evidence.share_evidence(counts), 1 / SAMPLE_ALPHA
    got = sum(count.candidate for count in counts)
    due = sum((count.candidate + count.champion) * count.weight for count in counts) / ALL
    told = f"{got:,} of {n:,} callers met the candidate, {due:,.0f} were due (E = {number(e)}, invalid at 1,000)"
    verdict = Verdict.INVALID if e >= threshold else Verdict.OK if n else Verdict.UNKNOWN
    return Lane("sample_ratio", verdict, told, n, e, threshold)


def split(rows: pl.DataFrame) -> pl.DataFrame:
    """The answers while both arms answered: `id` and `entity` (hashes), the weight as `share`, `candidate`: whether it
    is of its arm."""
    answers = rows.lazy().filter(_SPLIT & (pl.col("role") == Role.ANSWER.value))
    hashes, mine = pl.col("id", "entity").hash(), pl.col("arm") == "candidate"
    return answers.select(hashes, share="weight", candidate=mine).collect()


def met(answers: pl.DataFrame) -> pl.DataFrame:
    """Of the `split` the first of each entity."""
    return answers.filter(pl.col("entity").is_first_distinct()).drop("id")


def uneven(told: pl.DataFrame) -> str:
    """Why the labels of the two arms can't be compared, "" if they can: under equal coverage the labelled entities, as
    they first `met` an arm, fall on the arms as all do."""
    counts = _counts(told)
    e = evidence.share_evidence(counts)
    got, n = sum(count.candidate for count in counts), sum(count.candidate + count.champion for count in counts)
    if e < 1 / SAMPLE_ALPHA:
        return ""
    return f"labels do not come evenly: {got:,} of {n:,} are the candidate's (E = {number(e)}, invalid at 1,000)"


def _counts(events: pl.DataFrame, n: pl.Expr | int = 1) -> list[Count]:
    """Rows with `share` and `candidate`, each of so many events → counts by share."""
    if not events.height:
        return []
    mine = pl.col("candidate")
    arms = (mine * n).sum(), (~mine * n).sum().alias("champion")
    return [Count(*row) for row in events.group_by("share").agg(arms).sort("share").rows()]


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


def odd(case: Case) -> pl.Expr:
    """Rows that `errors` or `hard_stop` may be about: they look at all rows of their ids, and at no other."""
    return pl.col("bad") | (pl.col("candidate") & _improper(case.candidate.bundle.schema))


def first_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """Of the candidate's rows the first `FIRST`; adds up."""
    return rows.filter(pl.struct("id", "role").is_first_distinct()).head(FIRST)


def hard_stop(case: Case, rows: pl.DataFrame, first: pl.DataFrame) -> str:
    """An output that no model may give (not finite; no probability), too much memory, or half of the `first_rows` bad,
    where the champion answered the same rows well."""
    improper = _improper(case.candidate.bundle.schema)
    suspect = rows.filter(pl.col("candidate") & (pl.col("bad") | improper))
    if not suspect.height:
        return ""
    fine = (pl.col("status") == "ok") & ~_improper(case.champion.bundle.schema)
    failed = suspect.join(rows.filter(~pl.col("candidate") & fine), on="id", how="semi", maintain_order="left")
    broken = failed.filter(pl.col("status") == "nonfinite")
    if broken.height:
        return f"the candidate gave a non-finite output for {broken['id'][0]}; the champion answered it"
    large = failed.filter(pl.col("status") == "memory")
    if large.height:
        return f"the candidate took more memory than serving.memory leaves, at {large['id'][0]}; the champion answered"
    strange = failed.filter(improper)
    if strange.height:
        return f"the candidate's output for {strange['id'][0]} is no probability; the champion's is one"
    early = first.filter("bad").join(failed, on=["id", "role"], how="semi").height
    if early >= FIRST // 2:
        return f"{early} of the candidate's first {first.height} rows were bad; the champion answered them"
    return ""


def _improper(schema: Schema) -> pl.Expr:
    """Answers that are no probabilities. A regression's target has no declared range."""
    outside = pl.lit(False)
    if schema.task is Task.BINARY:
        outside = ~pl.col("score").is_between(-OVER, 1 + OVER)
    if schema.task is Task.MULTICLASS:
        each = pl.col("scores").list
        outside = (each.min() < -OVER) | (each.max() > 1 + OVER) | ((each.sum() - 1).abs() > OFF)
    return (pl.col("status") == "ok") & outside.fill_null(False)


def paired(case: Case, rows: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """One row for each label of a row that both versions scored: its `at_ms`; `outcome` (text), what the label says;
    `difference` = loss(candidate) - loss(champion) in [-1, 1]; `mature` (bool): it is older than the label horizon."""
    if not labels.height:
        return pl.DataFrame(schema=_PAIRED)
    usable = (pl.col("role") != Role.FAILED.value) & (pl.col("status") == "ok")
    good = rows.filter(usable).select("id", "at_ms", "candidate", "score", "scores")
    good = good.join(labels.select("id", truth="label"), on="id", how="inner", maintain_order="left")
    mine, theirs = (
        good.filter(pl.col("candidate") == own).filter(pl.col("id").is_first_distinct()) for own in (True, False)
    )
    both = mine.join(theirs, on="id", how="inner", maintain_order="left", suffix="_old")
    old = both.select("truth", score="score_old", scores="scores_old")
    scale = case.champion.bundle.loss_scale
    difference = _losses(case.candidate.bundle, both, scale) - _losses(case.champion.bundle, old, scale)
    mature = pl.col("at_ms") + case.horizon_ms <= case.now_ms
    return both.select("id", "at_ms", outcome="truth", mature=mature).with_columns(
        difference=pl.Series(difference, dtype=pl.Float64)
    )


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


def quality(case: Case, pairs: pl.DataFrame, uneven: str, fair: str = "mature") -> Lane:
    """Harm from all labels (`evidence.late_evidence`); `value`, its interval, `n` and `bounded` (non-inferior) only
    from those that `fair` names, a column of `pairs` (bool)."""
    ripe = pairs.filter(fair)["difference"]
    mature = evidence.tally(ripe.to_numpy())
    e, threshold = guarded.worse(case.classes, pairs), 1 / QUALITY_ALPHA
    bounded = evidence.mean_below(mature, case.margin) >= 1 / PASS_ALPHA
    verdict = Verdict.HARM if e >= threshold else Verdict.OK if bounded else Verdict.UNKNOWN
    mean = evidence.mean(mature) if ripe.len() else None
    low, high = evidence.mean_interval(mature, PASS_ALPHA / 2)
    told = _quality_told(verdict, e, pairs.height, ripe.len(), mean, (low, high), case.margin)
    verdict, told = (Verdict.INVALID, uneven) if uneven else (verdict, told)
    return Lane("quality", verdict, told, ripe.len(), e, threshold, mean, low, high, bounded and not uneven)


def _quality_told(
    verdict: Verdict, e: float, n: int, ripe: int, mean: float | None, band: tuple[float, float], margin: float
) -> str:
    found = {Verdict.HARM: "harm", Verdict.OK: "not worse" if margin else "better"}.get(verdict, "no harm seen")
    told = f"{found} (E = {number(e)} over {n:,} labels, harm at {1 / QUALITY_ALPHA:.0f})"
    if mean is None:
        return f"{told}; none of the labels is mature"
    measured = f"{number(mean)} {interval(*band)} over {ripe:,} mature labels"
    return f"{told}; mean difference of the loss {measured}, margin {number(margin)}"


def with_inputs(pairs: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """The pairs with the guarded inputs, which are logged with the answer, whoever gave it."""
    answers = rows.filter(pl.col("role") == Role.ANSWER.value).select("id", "inputs")
    answers = answers.unique("id", keep="first", maintain_order=True)
    return pairs.join(answers, on="id", how="left", maintain_order="left")


def segments(case: Case, pairs: pl.DataFrame, uneven: str) -> Lane:
    """Is the candidate worse for one value of a guarded input? Each segment's labels are judged as those of `quality`,
    and e-BH keeps the false discoveries over all of them together at `SEGMENTS_ALPHA`. Harm from all labels; `bounded`
    (not worse in each segment that has labels) from mature ones only. `value` and its interval are of the segment that
    is the surest to be worse; the interval covers at e-BH's level: it lies above 0 where that finds harm."""
    schema = case.champion.bundle.schema
    wrong = guarded.fault(schema, case.segments) or uneven
    if wrong:
        return Lane("segments", Verdict.INVALID, wrong)
    found = list(guarded.segments(schema, case.segments, case.classes, pairs))
    many = guarded.many(schema, case.segments)
    if not found:
        return Lane(
            "segments", Verdict.UNKNOWN, f"none of {many:,} segments has labels", threshold=many / SEGMENTS_ALPHA
        )
    each = [segment.evidence for segment in found]
    worse, needed = evidence.e_bh(each, many, SEGMENTS_ALPHA)
    e = max(each)
    top = found[each.index(e)]
    bounded = all(evidence.mean_below(segment.mature, case.margin) >= 1 / PASS_ALPHA for segment in found)
    verdict = Verdict.HARM if worse else Verdict.OK if bounded else Verdict.UNKNOWN
    low, high = evidence.mean_interval(top.everything, 1 / needed)
    told = _segments_told(verdict, [found[place] for place in worse], top, len(found), many)
    told += f" (E = {number(e)} over {top.n:,} labels, harm at {needed:,.0f}), mean difference of the loss "
    told += f"{number(top.mean)} {interval(low, high)}"
    return Lane("segments", verdict, told, top.n, e, needed, top.mean, low, high, bounded)


def _segments_told(verdict: Verdict, worse: Sequence[Segment], top: Segment, seen: int, many: int) -> str:
    if verdict is Verdict.HARM:
        others = "".join(f" and {segment}" for segment in worse[1:])
        return f"harm where {worse[0]}{others}, {len(worse)} of {many:,} segments: {worse[0]}"
    found = "not worse in any of" if verdict is Verdict.OK else "no harm seen in"
    return f"{found} {seen:,} segments with labels, {many:,} in all; the nearest to it: {top}"


def number(value: float) -> str:
    """Three significant digits, without the zero before the point."""
    if abs(value) >= 1_000:
        return f"{value:,.0f}" if abs(value) < 1e6 else f"{value:.1e}"
    text = f"{value:.3g}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def interval(low: float, high: float) -> str:
    return f"[{number(low)}, {'∞' if high == float('inf') else number(high)}]"
