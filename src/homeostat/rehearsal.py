"""The whole loop on the project's own history: the real serving code and the real control loop on a simulated clock.

No look-ahead: the training data is what the source held before the start plus what was served since and whose labels
have come; a label comes `label_horizon` after its row, or when a scenario says, at the next turn of the control loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.control import Control
from homeostat.domain.dataset import ENTITY, EVENT_MS
from homeostat.domain.errors import DataError, UsageError
from homeostat.domain.event import LOOK, Event
from homeostat.domain.gate import Measurement
from homeostat.domain.policy import Policy
from homeostat.domain.prediction import Role
from homeostat.domain.rehearsal import Course, RehearsalResult
from homeostat.domain.rollout import Rollout
from homeostat.domain.scenario import Injection
from homeostat.domain.schema import Schema, Value
from homeostat.domain.units import DAY_MS, HOUR_MS, iso
from homeostat.engines import labels, metrics
from homeostat.engines.answer import aligned, output_of, width
from homeostat.engines.infer import classes_of
from homeostat.engines.inject import BROKEN_RELEASE, DUE_MS, TOLD, misled
from homeostat.engines.reaction import SCENARIO, Life, false_alarms, reactions
from homeostat.ports import Journal, PredictionLog, Progress
from homeostat.serving.messages import Request
from homeostat.serving.tick import Engine

Array = NDArray[np.float64]
WEEK_MS = 7 * DAY_MS
TURN_MS = 6 * HOUR_MS
"""How often the control loop turns on the simulated clock."""
PERIODS = 60
"""Points of a curve in the report, at most."""


class MovableClock(Protocol):
    """A clock that is set by hand."""

    def move_to(self, now_ms: int) -> None: ...


Fit = Callable[[pl.DataFrame], tuple[Schema, Callable[[pl.DataFrame], Array]]]
"""The project's training function alone: labelled rows → what a model of them knows, and the model: rows → output
(n, c)."""


@dataclass(frozen=True)
class Loop:
    """A whole system of its own, built by wiring for one rehearsal. `schemas`: of each version that was released. `fit`
    makes the baselines, without gates or releases; `values`: what answers were worth, by schema, inputs, truth and
    output, None where the policy does not say; `release`: train a version on these rows alone and start its
    release, None where its gates refuse it."""

    control: Control
    engine: Engine
    clock: MovableClock
    log: PredictionLog
    journal: Journal
    schema: Callable[[], Schema]
    schemas: Callable[[], Mapping[int, Schema]]
    fit: Fit
    values: Callable[[Schema, pl.DataFrame, Array, Array], Array | None]
    release: Callable[[pl.DataFrame], Rollout | None]


def _nothing(_now_ms: int) -> None:
    pass


@dataclass(frozen=True)
class Rehearsal:
    """`history`: the prepared frame, sorted by event time, with its labels as they are told (`engines.inject`); rows in
    [start_ms, end_ms) are streamed. `each_turn` is called with the time after every turn of the control loop; `beside`
    makes the baselines while the loop turns (None: after it)."""

    policy: Policy
    history: pl.DataFrame
    start_ms: int
    end_ms: int
    loop: Loop
    injections: tuple[Injection, ...] = ()
    each_turn: Callable[[int], None] = _nothing
    beside: Callable[[], AbstractContextManager[Callable[[Progress], Baselines]]] | None = None

    def run(self, progress: Progress) -> RehearsalResult:
        """Errors: `DataError` when there is nothing to stream; whatever the first training raises."""
        started = time.monotonic()
        rows = self._rows()
        if rows.is_empty():
            raise DataError(
                f"no rows to rehearse on between {iso(self.start_ms)} and {iso(self.end_ms)}",
                way_out="Shorten --warmup, or widen --from and --to.",
            )
        self._begin()
        with self.beside() if self.beside else nullcontext(self.baselines) as compare:
            failed = self._stream(rows, progress)
            compared = compare(progress)
        return self._result(rows, failed, compared, round(1_000 * (time.monotonic() - started)))

    def baselines(self, progress: Progress) -> Baselines:
        """What the two alternatives would have answered."""
        return baselines(self.policy, self.history, self._rows(), self.loop.fit, progress)

    def _rows(self) -> pl.DataFrame:
        return self.history.filter(pl.col(EVENT_MS).is_between(self.start_ms, self.end_ms, closed="left"))

    def _begin(self) -> None:
        """Train and release the first champion."""
        self.loop.clock.move_to(self.start_ms)
        self.loop.control.begin()
        self.loop.control.settle()
        self.loop.engine.refresh()
        if not self.loop.control.releases.history():
            ended = self.loop.journal.read(self.policy.name, "training.")
            why = ended[0].text if ended else "nothing was trained"
            raise DataError(f"there is no first champion: {why}", way_out="Mend it with `homeostat run`.")

    def _stream(self, rows: pl.DataFrame, progress: Progress) -> int:
        """Every row once, in event time, with the turns of the control loop between. → the requests that failed."""
        at_ms, requests = rows[EVENT_MS].to_numpy(), self._requests(rows)
        told = rows.select(pl.int_range(pl.len()).alias("row"), TOLD, DUE_MS).sort(DUE_MS, maintain_order=True)
        due_ms, given = told[DUE_MS].to_numpy(), told.select("row", TOLD).rows()
        broken = [one for one in self.injections if one.kind == BROKEN_RELEASE]
        waiting: Sequence[Injection] = sorted(broken, key=lambda one: one.from_ms)
        failed = done = labelled = 0
        for turn_ms in range(self.start_ms + TURN_MS, self.end_ms + TURN_MS, TURN_MS):
            until = int(np.searchsorted(at_ms, turn_ms))
            for row in range(done, until):
                failed += self._ask(int(at_ms[row]), next(requests))
            matured = int(np.searchsorted(due_ms, turn_ms, side="right"))
            self.loop.clock.move_to(turn_ms)
            self._label(given[labelled:matured])
            waiting = self._broken_releases(waiting, rows, turn_ms)
            self.loop.control.turn()
            self.each_turn(turn_ms)
            self.loop.engine.refresh()
            done, labelled = until, matured
            progress(done, len(rows), f"{self.policy.name} on {iso(turn_ms)[:10]}")
        for one in waiting:
            self._tell(turn_ms, one, "waited", "", "another release was always under way")
        return failed

    def _requests(self, rows: pl.DataFrame) -> Iterator[bytes]:
        names = [*self.loop.schema().names, ENTITY]
        for number, row in enumerate(rows.select(names).iter_rows(named=True)):
            key = row.pop(ENTITY)
            record = {**row, "id": f"r{number}"} | ({} if key is None else {"key": key})
            yield msgspec.json.encode({"records": [record]})

    def _ask(self, at_ms: int, body: bytes) -> bool:
        """One request at its time. → whether it failed."""
        self.loop.clock.move_to(at_ms)
        response = self.loop.engine.answer([Request("POST", f"/v1/models/{self.policy.name}/predict", body)])[0]
        self.loop.engine.shadow()
        return response.status != 200

    def _label(self, told: Sequence[tuple[int, Value]]) -> None:
        source = self.policy.feedback.most_trusted or None
        given = [{"id": f"r{row}", "label": value, "source": source} for row, value in told]
        if given:
            body = msgspec.json.encode({"labels": given})
            response = self.loop.engine.answer([Request("POST", "/v1/feedback", body)])[0]
            if response.status >= 300:
                raise DataError(f"labels were refused: {response.body.decode()}")

    def _broken_releases(self, waiting: Sequence[Injection], rows: pl.DataFrame, now_ms: int) -> Sequence[Injection]:
        """Release a version that learned turned labels where its time has come, once no release is under way. → those
        that still wait."""
        under_way = any(one.ended_ms is None for one in self.loop.control.releases.history())
        if under_way or not waiting or waiting[0].from_ms > now_ms:
            return waiting
        release = self.loop.release(misled(plain(self._learnable(rows, now_ms)), self.policy.data.target))
        if release is None:
            self._tell(now_ms, waiting[0], "refused", "", "its gates refused it")
        else:
            self._tell(now_ms, waiting[0], "released", release.id, f"released as {release.id}")
        return waiting[1:]

    def _learnable(self, rows: pl.DataFrame, now_ms: int) -> pl.DataFrame:
        """What was before the start, and what was answered since; a refused row would break the project's checks."""
        log = self.loop.log.read(self.policy.name, self.start_ms, now_ms).filter(pl.col("role") == Role.ANSWER)
        answered = rows[log["id"].str.slice(1).cast(pl.Int64).sort()]
        before = self.history.filter(pl.col(EVENT_MS) < self.start_ms)
        return pl.concat([before, answered]).filter(pl.col(DUE_MS) <= now_ms)

    def _tell(self, now_ms: int, one: Injection, kind: str, subject: str, what: str) -> None:
        key, text = SCENARIO + one.text, f"{one.text}: {what}"
        self.loop.journal.append(Event(now_ms, self.policy.name, SCENARIO + kind, key, subject, text))

    def _result(self, rows: pl.DataFrame, failed: int, compared: Baselines, wall_ms: int) -> RehearsalResult:
        """Metrics on the answered rows, the same for all three."""
        name, schema = self.policy.name, replace(self.loop.schema(), classes=classes_in(self.policy, self.history))
        served = self.loop.log.read(name, self.start_ms, self.end_ms + TURN_MS).filter(pl.col("role") == Role.ANSWER)
        answered = served["id"].str.slice(1).cast(pl.Int64).to_numpy()
        y = labels.truth(schema, rows[self.policy.data.target].to_list())[answered]
        at_ms, inputs = rows[EVENT_MS].to_numpy()[answered], rows.select(schema.names)[answered]
        period_ms = DAY_MS * max(1, round((at_ms[-1] - at_ms[0]) / DAY_MS / PERIODS))
        events = [event for event in self.loop.journal.read(name) if event.kind != LOOK]

        def course(output: Array, trainings: int, fitted: int, probes: int = 0) -> Course:
            metric = self.policy.train.metric
            periods = tuple(_periods(metric, period_ms, at_ms, y, output))
            worth = self.loop.values(schema, inputs, y, output)
            value = None if worth is None else float(worth.sum())
            return Course(metrics.measure(metric, y, output), periods, trainings, fitted, probes, value)

        kept = course(_outputs(served, self.loop.schemas(), schema), *_cost(events))
        higher = metrics.known(self.policy.train.metric).higher_is_better
        settle_ms = self.policy.data.label_horizon + 2 * max(self.policy.monitor.windows)
        life = Life(events, kept.periods, period_ms, higher, self.end_ms, settle_ms)
        return RehearsalResult(
            model=name,
            rows=len(rows),
            from_ms=int(rows[EVENT_MS][0]),
            until_ms=int(rows[EVENT_MS][-1]),
            period_ms=period_ms,
            label_horizon_ms=self.policy.data.label_horizon,
            higher_is_better=higher,
            loop=kept,
            frozen=course(compared.frozen[answered], 1, compared.fitted[0]),
            weekly=course(compared.weekly[answered], len(compared.fitted), sum(compared.fitted)),
            releases=tuple(self.loop.control.releases.history()),
            events=tuple(events),
            settled=sum(_settled(event) for event in events),
            failed_requests=failed,
            seed=self.policy.train.seed,
            wall_ms=wall_ms,
            reactions=reactions(self.injections, life),
            false_alarms=false_alarms(self.injections, life) if self.injections else None,
        )


def classes_in(policy: Policy, history: pl.DataFrame) -> tuple[Value, ...]:
    """Those that appear later too."""
    return classes_of(history[policy.data.target], policy.task)


def _outputs(served: pl.DataFrame, schemas: Mapping[int, Schema], schema: Schema) -> Array:
    """(n, c) of the answers, each by the version that gave it, over the classes of `schema`."""
    versions = served["version"].to_numpy()
    outputs = np.empty((len(served), width(schema)))
    for version in np.unique(versions).tolist():
        here, own = versions == version, schemas[version]
        outputs[here] = aligned(output_of(own, served.filter(pl.Series(here))), own.classes, schema.classes)
    return outputs


def _settled(event: Event) -> bool:
    """A step that the best estimate ended, or a release that it would not let through."""
    estimated = event.kind == "release.advanced" and "by the best estimate" in event.text
    return estimated or event.kind == "release.rejected"


def _cost(events: Sequence[Event]) -> tuple[int, int, int]:
    """→ trainings, the rows of all fits, and how many of these were probes."""
    trainings = sum(event.kind.startswith("training.") for event in events)
    trained = [event.body["rows"] for event in events if event.kind == "cost.training"]
    asked = [event.body["rows"] for event in events if event.kind == "probe.made" and event.body["rows"]]
    return trainings, sum(trained) + sum(asked), len(asked)


@dataclass(frozen=True)
class Baselines:
    """What the two alternatives would have answered, (n, c) each, and what they cost: the rows of each week's fit, the
    first of which is all that the one pays that is left alone."""

    frozen: Array
    weekly: Array
    fitted: tuple[int, ...]


def baselines(policy: Policy, history: pl.DataFrame, rows: pl.DataFrame, fit: Fit, progress: Progress) -> Baselines:
    """A champion trained once, at the first of `rows`, and one trained anew every week: the same training function on
    the same window of labels that were there at the time, promoted at once. A week whose training fails keeps the model
    before it."""
    start_ms, at_ms = int(rows[EVENT_MS][0]), rows[EVENT_MS].to_numpy()
    classes = classes_in(policy, history)
    weeks = range(start_ms, int(at_ms[-1]) + 1, WEEK_MS)
    frozen, parts, fitted = np.empty((0, 0)), list[Array](), list[int]()
    for number, week_ms in enumerate(weeks):
        known = known_at(history, week_ms, policy)
        fitted.append(len(known))
        try:
            schema, predict = fit(known)
        except UsageError:
            if number == 0:
                raise
        if number == 0:
            frozen = aligned(predict(rows), schema.classes, classes)
        week = rows.filter(pl.col(EVENT_MS).is_between(week_ms, week_ms + WEEK_MS, closed="left"))
        if len(week):
            parts.append(aligned(predict(week), schema.classes, classes))
        progress(number + 1, len(weeks), "the same, retrained every week")
    return Baselines(frozen, np.concatenate(parts), tuple(fitted))


def known_at(history: pl.DataFrame, now_ms: int, policy: Policy) -> pl.DataFrame:
    """The rows of the training window whose labels had come by `now_ms`."""
    newest, target = now_ms - policy.data.label_horizon, policy.data.target
    known = history.filter(pl.col(EVENT_MS) <= newest, pl.col(DUE_MS) <= now_ms)
    known = known.filter(pl.col(EVENT_MS) > newest - policy.train.window) if policy.train.window else known
    return plain(known.with_columns(pl.col(TOLD).alias(target)))


def plain(history: pl.DataFrame) -> pl.DataFrame:
    """A prepared frame, without what a rehearsal adds."""
    return history.drop(TOLD, DUE_MS)


def _periods(
    metric: str, period_ms: int, at_ms: NDArray[np.int64], y: Array, output: Array
) -> Iterator[tuple[int, Measurement]]:
    """The metric period by period, each from its first row on; those in which it is not defined are left out."""
    for begin in range(int(at_ms[0]), int(at_ms[-1]) + 1, period_ms):
        here = (at_ms >= begin) & (at_ms < begin + period_ms)
        if here.any():
            measured = metrics.measure(metric, y[here], output[here])
            if np.isfinite(measured.value):
                yield begin + period_ms // 2, measured
