"""A backtest: two versions' answers to the same recorded requests, chunk by chunk; and what the live rule says of them.

The answers are judged as if they had been given in a shadow step: by the lanes of a release, over the same columns.
What is kept between chunks adds up and does not grow with the log: sums, histograms, tallies; the rows on which a
version failed; a difference a label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.backtest import BacktestResult, Outputs, Recorded, Segment, Shift
from homeostat.domain.bundle import Bundle
from homeostat.domain.gate import Verdict
from homeostat.domain.prediction import Role
from homeostat.domain.rollout import Lane
from homeostat.domain.schema import Field, Task
from homeostat.engines import evidence, lanes, segments
from homeostat.engines.answer import answers
from homeostat.engines.drift.counts import NumberLayout, Numbers
from homeostat.engines.drift.numeric import distance
from homeostat.engines.itinerary import Rates
from homeostat.engines.judge import judge
from homeostat.engines.lanes import Case, Side

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

SHOWN = 12
"""Segments in a result."""
APART = 1.1
"""A segment is shown if the answers differ by so much more there than elsewhere."""
SAME = 1e-5
"""Relative and absolute: what a score may differ by from the one that was logged."""


@dataclass(frozen=True, slots=True)
class Given:
    """A version's answers to n requests: `output` (n, c), NaN where it has none; `raised` (n,): the model failed."""

    output: Array
    raised: Flags

    @property
    def good(self) -> Flags:
        return np.asarray(np.isfinite(self.output).all(axis=1), bool)


@dataclass(frozen=True, slots=True)
class Chunk:
    """n recorded requests in order of time. `rows`: id, key, at_ms; `columns`: the inputs, a column a field."""

    rows: pl.DataFrame
    columns: Mapping[str, pl.Series]
    champion: Given
    candidate: Given


def unchanged(bundle: Bundle, given: Given, score: pl.Series) -> Flags:
    """(n,) whether the logged score (null: not this version's) is the one that the version gives now."""
    logged = score.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    now = np.asarray(answers(bundle.schema, bundle.threshold, given.output).score, np.float64)
    return np.asarray(np.isnan(logged) | np.isclose(now, logged, rtol=SAME, atol=SAME))


def present(fields: Sequence[Field], columns: Mapping[str, pl.Series], n: int) -> Flags:
    """(n,) whether every input that must be there is."""
    there = np.ones(n, bool)
    for field in fields:
        if not field.nullable:
            there &= columns[field.name].is_not_null().to_numpy()
    return np.asarray(there)


def scored(side: Side, given: Given, role: Role) -> list[pl.Expr]:
    """Columns of the log for a version's answers to n requests, as the data plane would have logged them. They measure
    no time."""
    good, bundle = given.good, side.bundle
    said = answers(bundle.schema, bundle.threshold, np.where(good[:, None], given.output, 0.0))
    columns = (
        pl.Series("status", np.where(good, "ok", np.where(given.raised, "error", "nonfinite")), pl.String),
        pl.Series("score", said.score, pl.Float64),
        pl.Series("scores", said.scores, pl.List(pl.Float64)),
    )
    literals = {"version": pl.lit(side.version, pl.Int64), "role": pl.lit(role.value), "model_us": pl.lit(0, pl.Int64)}
    return [*(pl.lit(column) for column in columns), *(value.alias(name) for name, value in literals.items())]


class Comparison:
    """Both versions on the chunks so far. `case`: how the live rule would compare them."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.n = self.both = 0
        self._turns: Counter[tuple[str, str]] = Counter()
        self._flips = 0
        self._moved = 0.0
        self._sums = np.zeros(2)
        self._scores: list[Numbers] = []
        self._layout = NumberLayout(0.5, 1.0)
        self._outputs = [Outputs(0, 0, 0), Outputs(0, 0, 0)]
        self._missing: Counter[str] = Counter()
        self._tables: dict[str, segments.Table] = {}
        self._failed: list[pl.DataFrame] = []
        self._pairs: list[pl.DataFrame] = []

    def add(self, chunk: Chunk, labels: pl.DataFrame) -> None:
        """`labels`: the last label of each id, of requests that the champion can't have learned from."""
        if not chunk.rows.height:
            return
        if not self.n:
            self._lay_out(chunk)
        sides = (self.case.champion.bundle, chunk.champion), (self.case.candidate.bundle, chunk.candidate)
        self._outputs = [_add(old, *side) for old, side in zip(self._outputs, sides, strict=True)]
        self._count_missing(chunk)
        twins = self._twins(chunk)
        difference = self._label(twins, labels)
        moved, flipped = self._shift(chunk)
        failed = chunk.champion.good & ~chunk.candidate.good
        for name, table in self._tables.items():
            table.add(chunk.columns[name], segments.Rows(moved, flipped, failed, difference))
        self._keep_failures(chunk, twins)
        self.n += chunk.rows.height

    def _lay_out(self, chunk: Chunk) -> None:
        """Bins and cells, by the first chunk."""
        schema = self.case.champion.bundle.schema
        made = {field.name: segments.bins(field, chunk.columns[field.name]) for field in schema.fields}
        self._tables = {name: segments.Table(one) for name, one in made.items()}
        values = chunk.champion.output[chunk.champion.good, 0]
        if schema.task is Task.REGRESSION and len(values):
            low, center, high = np.quantile(values, (0.25, 0.5, 0.75))
            self._layout = NumberLayout(float(center), float(high - low) or float(values.std()) or 1.0)
        self._scores = [self._layout.count(pl.Series([], dtype=pl.Float64))] * 2

    def _count_missing(self, chunk: Chunk) -> None:
        for field in self.case.candidate.bundle.schema.fields:
            gone = chunk.columns[field.name].null_count()
            if gone and not field.nullable:
                self._missing[field.name] += gone

    def _shift(self, chunk: Chunk) -> tuple[Array, Flags]:
        """Count flips and scores. → (n,) the distance of the two answers, and whether the decision flipped."""
        old, new = self.case.champion.bundle, self.case.candidate.bundle
        both = chunk.champion.good & chunk.candidate.good
        before, after = (
            answers(bundle.schema, bundle.threshold, np.where(both[:, None], given.output, 0.0))
            for bundle, given in ((old, chunk.champion), (new, chunk.candidate))
        )
        flipped = np.asarray(before.label, object) != np.asarray(after.label, object)
        flipped &= both
        self._turns.update((str(before.label[i]), str(after.label[i])) for i in np.flatnonzero(flipped).tolist())
        scores = [np.asarray(one.score, np.float64)[both] for one in (before, after)]
        self._sums += [one.sum() for one in scores]
        self._scores = [
            Numbers.total([kept, self._layout.count(pl.Series(one))])
            for kept, one in zip(self._scores, scores, strict=True)
        ]
        moved = (chunk.champion.good ^ chunk.candidate.good).astype(np.float64)
        moved[both] = _apart(old, new, chunk.champion.output[both], chunk.candidate.output[both], flipped[both])
        self.both += int(both.sum())
        self._flips += int(flipped.sum())
        self._moved += float(moved[both].sum())
        return moved, flipped

    def _twins(self, chunk: Chunk) -> pl.DataFrame:
        """(2 n, columns of the log) as a shadow step would have logged them; the champion's rows first."""
        sides = (self.case.champion, chunk.champion, Role.ANSWER), (self.case.candidate, chunk.candidate, Role.SHADOW)
        made = [
            chunk.rows.select(
                "id",
                "key",
                "at_ms",
                *scored(side, given, role),
                arm=pl.lit("champion"),
                weight=pl.lit(0, pl.Int64),
                candidate=pl.lit(role is Role.SHADOW),
            )
            for side, given, role in sides
        ]
        return pl.concat(made)

    def _label(self, twins: pl.DataFrame, labels: pl.DataFrame) -> Array:
        """Keep the paired differences of the losses; where the candidate may have learned from the label, a difference
        counts for harm alone. → (n,) those of the others, NaN where there is none."""
        n = twins.height // 2
        difference = np.full(n, np.nan)
        pairs = lanes.paired(self.case, twins, labels)
        if pairs.height:
            rows = twins.head(n).select("id", "at_ms").with_row_index("place").join(pairs, on="id", how="inner")
            fresh = pl.col("at_ms") > self.case.candidate.bundle.trained_until_ms
            rows = rows.select("place", "outcome", "difference", "mature", fresh=fresh, fair=pl.col("mature") & fresh)
            self._pairs.append(rows.drop("place"))
            known = rows.filter("fresh")
            difference[known["place"].to_numpy()] = known["difference"].to_numpy()
        return difference

    def _keep_failures(self, chunk: Chunk, twins: pl.DataFrame) -> None:
        """The rows that the lane of errors and the hard stops look at."""
        early = np.arange(self.n, self.n + chunk.rows.height) < lanes.FIRST
        kept = (
            early
            | ~chunk.champion.good
            | ~chunk.candidate.good
            | _improper(self.case.candidate.bundle, chunk.candidate)
        )
        self._failed.append(twins.filter(pl.Series(np.tile(kept, 2))).drop("candidate"))

    def rates(self, per_day: float, hard_stop: str, labelled: float) -> Rates:
        """What a live release is to be foreseen from."""
        theirs, mine = (one.raised + one.nonfinite for one in self._outputs)
        known = self._labelled().filter("fresh")["difference"].to_numpy()
        return Rates(self.n, (mine, theirs), hard_stop, per_day, labelled, evidence.tally(known))

    def _labelled(self) -> pl.DataFrame:
        """What `lanes.paired` tells of each label, but its id; `fresh` (bool): the candidate can't have learned from
        it; `fair`: nor is it too young."""
        flags = dict.fromkeys(("mature", "fresh", "fair"), pl.Boolean)
        nothing = pl.DataFrame(schema={"outcome": pl.String, "difference": pl.Float64, **flags})
        return pl.concat([nothing, *self._pairs])

    def result(self, recorded: Recorded, learned: int, cannot_know: Sequence[str]) -> BacktestResult:
        """`expected` is left to the caller, who knows the policy."""
        found = segments.ranked(self._tables)
        judged, hard_stop = self._judged(found)
        worst = [one for one in judged if one.name == "segments" and one.verdict is Verdict.HARM]
        first = segments.harmed(found)[0] if worst else []
        shown = [*first, *(one for one in found if one not in first and one.moved > APART * one.elsewhere)]
        return BacktestResult(
            model=self.case.champion.bundle.model,
            champion=self.case.champion.version,
            candidate=self.case.candidate.version,
            recorded=recorded,
            shift=self._shifted(),
            champion_outputs=self._outputs[0],
            candidate_outputs=self._outputs[1],
            missing=dict(sorted(self._missing.items())),
            segments=tuple(shown[:SHOWN]),
            lanes=judged,
            hard_stop=hard_stop,
            labels=self._labelled().height,
            fresh=int(self._labelled()["fresh"].sum()),
            learned=learned,
            expected=(),
            cannot_know=tuple(cannot_know),
        )

    def _judged(self, found: list[Segment]) -> tuple[tuple[Lane, ...], str]:
        """The lanes of the live rule, and its hard stop."""
        if not self.n:
            return (), ""
        nobody = pl.DataFrame(schema={"id": pl.String, "label": pl.String})
        judged = judge(self.case, pl.concat(self._failed), nobody)
        errors = next(lane for lane in judged.lanes if lane.name == "errors")
        stop = judged.hard_stop or self._breach()
        return (errors, lanes.quality(self.case, self._labelled(), "", "fair"), _segments(found)), stop

    def _breach(self) -> str:
        """What the candidate does that no model may."""
        for name, rows in self._missing.items():
            if rows == self.n:
                return f"no recorded request has {name}, which version {self.case.candidate.version} must have"
        return ""

    def _shifted(self) -> Shift:
        regression = self.case.champion.bundle.schema.task is Task.REGRESSION
        turns = sorted(self._turns.items(), key=lambda one: (-one[1], one[0]))
        means = [float(total) / self.both for total in self._sums] if self.both else [None, None]
        return Shift(
            n=self.both,
            flips=None if regression else self._flips,
            turns=tuple((old, new, n) for (old, new), n in turns[:SHOWN]),
            champion_mean=means[0],
            candidate_mean=means[1],
            ks=distance(*self._scores) if self.both else None,
            moved=self._moved / self.both if self.both else 0.0,
        )


def _add(old: Outputs, bundle: Bundle, given: Given) -> Outputs:
    return replace(
        old,
        raised=old.raised + int(given.raised.sum()),
        nonfinite=old.nonfinite + int((~given.good & ~given.raised).sum()),
        out_of_range=old.out_of_range + int(_improper(bundle, given).sum()),
    )


def _improper(bundle: Bundle, given: Given) -> Flags:
    """(n,) outputs that are no probabilities."""
    if bundle.schema.task is Task.REGRESSION:
        return np.zeros(len(given.good), bool)
    values = np.where(given.good[:, None], given.output, 1 / given.output.shape[1])
    out = ((values < -lanes.OVER) | (values > 1 + lanes.OVER)).any(axis=1)
    return np.asarray(out | (np.abs(values.sum(axis=1) - 1) > lanes.OFF))


def _apart(old: Bundle, new: Bundle, before: Array, after: Array, flipped: Flags) -> Array:
    """(m,) in [0, 1]: the total variation of the probabilities, or the values' distance over the champion's
    `loss_scale`; between models with other classes whether the decision flipped."""
    if old.schema.task is Task.REGRESSION:
        return np.asarray(np.minimum(np.abs(after - before)[:, 0] / old.loss_scale, 1.0))
    if old.schema.classes != new.schema.classes:
        return flipped.astype(np.float64)
    return np.asarray(np.minimum(np.abs(after - before).sum(axis=1) / 2, 1.0))


def _segments(found: list[Segment]) -> Lane:
    """Is the candidate worse in one segment? Says harm or nothing: a segment that is fine promotes nobody."""
    worse, needed = segments.harmed(found)
    tested = [one for one in found if one.labels]
    top = max(tested, key=lambda one: one.evidence, default=None)
    if top is None:
        return Lane("segments", Verdict.UNKNOWN, "no segment has labels", 0, 0.0, needed)
    told = f"{top.field} = {top.values}, E = {lanes.number(top.evidence)} over {top.labels:,} labels"
    if not worse:
        told = f"no segment of {len(tested):,} is shown to be worse; the nearest to it: {told}"
        return Lane("segments", Verdict.UNKNOWN, told, top.labels, top.evidence, needed, top.difference)
    told = f"worse in {len(worse):,} of {len(tested):,} segments, most surely where {told}"
    return Lane("segments", Verdict.HARM, told, top.labels, top.evidence, needed, top.difference)
