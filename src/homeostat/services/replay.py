"""Recorded requests put to two bundles: the log read stretch by stretch, in the memory of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.backtest import BacktestResult, Recorded
from homeostat.domain.bundle import Bundle, Version
from homeostat.domain.policy import Policy
from homeostat.domain.prediction import Role
from homeostat.domain.rollout import Rollout, Status, StepKind
from homeostat.domain.schema import Field, Kind
from homeostat.domain.units import MINUTE_MS
from homeostat.engines import lanes, steps
from homeostat.engines.answer import width
from homeostat.engines.backtest import Chunk, Comparison, Given, present, unchanged
from homeostat.engines.itinerary import itinerary
from homeostat.engines.transform import matrix
from homeostat.ports import LabelLog, Model, PredictionLog
from homeostat.services.evidence_log import answered, rate

Matrix = NDArray[np.float32]
Flags = NDArray[np.bool_]

ROWS = 20_000
"""Requests of a chunk: about half a second of work, and what is in memory at a time."""
TIMED = 500
"""Requests on which the calls are timed."""
_AT_ONCE = 4_096  # rows a model call
_FIRST_MS, _GROWTH = 5 * MINUTE_MS, 8  # the first stretch, and how much longer or shorter the next may be
_TYPES = {Kind.NUMBER: pl.Float64, Kind.INTEGER: pl.Int64, Kind.BOOLEAN: pl.Boolean, Kind.TEXT: pl.String}
_IN = "in."

CANNOT_KNOW = (
    "what the candidate's own answers would change: who asks next, and which labels come",
    "latency under load, and whether the candidate leaks memory: here its calls are few and one after the other",
)


@dataclass(frozen=True, slots=True)
class Arm:
    """A version that can be asked."""

    version: Version
    bundle: Bundle
    model: Model

    @property
    def side(self) -> lanes.Side:
        return lanes.Side(self.version.number, self.bundle)


def respond(arm: Arm, columns: Mapping[str, pl.Series], n: int) -> tuple[Given, Matrix]:
    """The version's answers to n requests, and what its model saw. Never raises: a model that fails is an outcome, and
    the rows that it fails on are found by halving."""
    schema = arm.bundle.schema
    output, raised = np.full((n, width(schema)), np.nan), np.zeros(n, bool)
    try:
        x = matrix(schema, columns)
    except Exception:  # a field that has another kind in the log: the data plane fails on it too
        return Given(output, ~raised), np.zeros((n, len(schema.fields)), np.float32)
    for start in range(0, n, _AT_ONCE):
        _ask(arm.model, x, slice(start, min(start + _AT_ONCE, n)), output, raised)
    return Given(output, raised), x


def _ask(model: Model, x: Matrix, rows: slice, output: NDArray[np.float64], raised: Flags) -> None:
    try:
        made = model(x[rows])
    except Exception:  # a model may raise anything
        made = None
    if made is not None and made.shape == output[rows].shape:
        output[rows] = made
    elif rows.stop - rows.start == 1:
        raised[rows] = True
    else:
        middle = (rows.start + rows.stop) // 2
        _ask(model, x, slice(rows.start, middle), output, raised)
        _ask(model, x, slice(middle, rows.stop), output, raised)


def typed(inputs: pl.Series, field: Field) -> pl.Series:
    """The logged values of a field; null where there is none, or one of another kind."""
    if field.name not in inputs.struct.fields:
        return pl.Series(field.name, [None] * len(inputs), _TYPES[field.kind])
    column = inputs.struct.field(field.name)
    if field.kind is Kind.BOOLEAN and column.dtype == pl.String:  # a hash
        return pl.Series(field.name, [None] * len(inputs), pl.Boolean)
    return column.cast(_TYPES[field.kind], strict=False)


class Replay:
    """One backtest under way: a turn reads a stretch of the log and puts what is there to both versions."""

    def __init__(
        self,
        policy: Policy,
        log: PredictionLog,
        labels: LabelLog,
        champion: Arm,
        candidate: Arm,
        start_ms: int,
        end_ms: int,
    ) -> None:
        self.policy, self.log, self.champion, self.candidate = policy, log, champion, candidate
        self.start_ms, self.at_ms, self.end_ms = start_ms, start_ms, end_ms
        self.horizon_ms = policy.data.label_horizon
        margin = policy.release.margin
        self.comparison = Comparison(lanes.Case(champion.side, candidate.side, 0, 0, margin, self.horizon_ms, end_ms))
        own = champion.bundle.schema.fields
        names = {field.name for field in own}
        self._fields = (*own, *(field for field in candidate.bundle.schema.fields if field.name not in names))
        self._labels = labels.read(start_ms, end_ms).select("id", "label")
        self._answers = self._hidden = self._changed = self._refused = self._away = 0
        self._ripe = self._labelled = self._learned = 0
        self._first_ms, self._step_ms = end_ms, _FIRST_MS
        self._held = self._recorded(log.read(policy.name, start_ms, start_ms))
        self.timed: list[tuple[Matrix, Matrix]] = []
        """What both models saw of the same requests, evenly from all chunks."""

    def turn(self) -> bool:
        """One chunk. → whether nothing is left. Chunks are whole but for the last: the same log makes the same."""
        while self._held.height < ROWS and self.at_ms < self.end_ms:
            self._read()
        self._compare(self._held.head(ROWS))
        self._held = self._held.slice(ROWS)
        return self.at_ms >= self.end_ms and self._held.is_empty()

    def _read(self) -> None:
        until = min(self.at_ms + self._step_ms, self.end_ms)
        rows = self.log.read(self.policy.name, self.at_ms, until)
        self._step_ms = round(self._step_ms * float(np.clip(ROWS / max(rows.height, 1), 1 / _GROWTH, _GROWTH)))
        self._held, self.at_ms = self._held.vstack(self._recorded(rows)), until

    def _recorded(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Answers in order of time: id, key, at_ms, the score `logged` if it is the champion's, and `in.FIELD`."""
        refused = pl.col("role").is_in([Role.REJECTED.value, Role.SHED.value])
        found = answered(rows).sort("at_ms", maintain_order=True)
        self._refused += rows.filter(refused).height
        self._away += rows.filter(pl.col("role") == Role.ANSWER.value).height - found.height
        self._answers += found.height
        if found.height:
            self._first_ms = min(self._first_ms, int(found["at_ms"][0]))
        mine = (pl.col("version") == self.champion.version.number) & (pl.col("status") == "ok")
        inputs = [typed(found["inputs"], field).alias(_IN + field.name) for field in self._fields]
        return found.select("id", "key", "at_ms", logged=pl.when(mine).then("score")).with_columns(inputs)

    def _columns(self, rows: pl.DataFrame) -> dict[str, pl.Series]:
        return {field.name: rows[_IN + field.name] for field in self._fields}

    def _compare(self, rows: pl.DataFrame) -> None:
        there = present(self.champion.bundle.schema.fields, self._columns(rows), rows.height)
        there &= not self.policy.log.hidden.intersection(field.name for field in self._fields)
        rows = rows.filter(pl.Series(there))
        old, old_x = respond(self.champion, self._columns(rows), rows.height)
        same = unchanged(self.champion.bundle, old, rows["logged"])
        rows, old = rows.filter(pl.Series(same)), Given(old.output[same], old.raised[same])
        columns = self._columns(rows)
        new, new_x = respond(self.candidate, columns, rows.height)
        self._hidden += int((~there).sum())
        self._changed += int((~same).sum())
        timed = evenly(np.flatnonzero(old.good & new.good), TIMED)
        self.timed.append((old_x[same][timed], new_x[timed]))
        self.comparison.add(Chunk(rows, columns, old, new), self._known(rows))

    def _known(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The labels of these requests, but for those that the champion may have learned from: they speak for it."""
        known = rows.select("id", "at_ms").join(self._labels, on="id", how="inner", maintain_order="left")
        ripe = pl.col("at_ms") + self.horizon_ms <= self.end_ms
        self._ripe += rows.filter(ripe).height
        self._labelled += known.filter(ripe).height
        fresh = known.filter(pl.col("at_ms") > self.champion.bundle.trained_until_ms)
        self._learned += known.height - fresh.height
        return fresh

    def result(self) -> BacktestResult:
        """What was found; the same log gives the same."""
        per_day = rate(self._answers, self._first_ms, self.end_ms)
        recorded = Recorded(
            start_ms=self.start_ms,
            end_ms=self.end_ms,
            answers=self._answers,
            replayed=self.comparison.n,
            hidden=self._hidden,
            changed=self._changed,
            refused=self._refused,
            away=self._away,
            per_day=per_day,
        )
        found = self.comparison.result(recorded, self._learned, ())
        found = replace(found, cannot_know=unknown(found))
        if per_day is None or not self.comparison.n:
            return found
        rates = self.comparison.rates(per_day, found.hard_stop, self._labelled / max(self._ripe, 1))
        return replace(found, expected=itinerary(self._release(per_day), rates, self.policy.release, self.horizon_ms))

    def _release(self, per_day: float) -> Rollout:
        """The release that is to be foreseen."""
        planned, _ = steps.plan(self.policy.release, per_day, first=False)
        live = tuple(step for step in planned if step.kind is not StepKind.BACKTEST)
        sides = self.champion.version, self.candidate.version
        return Rollout("", self.policy.name, *sides, live, 0, Status.RUNNING, 0, 0, "", 0)


def evenly(places: NDArray[np.intp], n: int) -> NDArray[np.intp]:
    """At most n of them."""
    return places[np.linspace(0, len(places) - 1, n).astype(np.intp)] if len(places) > n else places


def unknown(found: BacktestResult) -> tuple[str, ...]:
    """What it can't know, in general and of these requests."""
    recorded, told = found.recorded, list(CANNOT_KNOW)
    if recorded.refused:
        told.append(f"{recorded.refused:,} refused or shed requests: no model saw them")
    if recorded.hidden:
        told.append(
            f"{recorded.hidden:,} requests whose inputs are not in the log as they were served (log.drop, log.hash)"
        )
    if recorded.changed:
        told.append(f"{recorded.changed:,} requests on which the champion no longer gives the answer that was logged")
    unlabelled = recorded.replayed - found.labels - found.learned
    if unlabelled > 0:
        told.append(f"who is right on {unlabelled:,} requests: their labels are not there")
    if found.learned:
        told.append(f"who is right on {found.learned:,} labelled requests that the champion may have learned from")
    if found.labels > found.fresh:
        told.append(
            f"whether it is better on {found.labels - found.fresh:,} labelled requests that it may have learned from"
        )
    if recorded.per_day is None:
        told.append("how long a release would take: the log goes back less than a day")
    return tuple(told)
