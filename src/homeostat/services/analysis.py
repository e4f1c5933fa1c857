"""Why a metric is what it is: failure modes, what moved a window, how labels come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.bundle import Bundle, Version
from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.errors import NotFound
from homeostat.domain.failures import Failures
from homeostat.domain.gate import Measurement
from homeostat.domain.monitor import of_rows
from homeostat.domain.moved import Explained
from homeostat.domain.policy import Policy
from homeostat.domain.prediction import Role
from homeostat.domain.report import Delays, MonitorReport, Needs, Stretch
from homeostat.domain.schema import Task
from homeostat.engines import metrics
from homeostat.engines.declared import by_segment
from homeostat.engines.delay import Law, law
from homeostat.engines.failures import Known, Labelled, failures
from homeostat.engines.importance import agreement
from homeostat.engines.report import words
from homeostat.engines.value import mean
from homeostat.ports import Clock, Code, Journal, LabelLog, PredictionLog, Rollouts
from homeostat.services.bundles import Bundles
from homeostat.services.champion import Champion, Champions
from homeostat.services.data import Data
from homeostat.services.holdout import held
from homeostat.services.moves import Moves
from homeostat.services.worth import worths

Array = NDArray[np.float64]
LEARNED = 100_000
"""Rows of the training data that are looked at, at most, evenly."""
MOST_WINDOWS = 60


class Analyses:
    """Reads only."""

    def __init__(
        self,
        policy: Policy,
        log: PredictionLog,
        labels: LabelLog,
        journal: Journal,
        rollouts: Rollouts,
        bundles: Bundles,
        data: Data,
        clock: Clock,
        champions: Champions,
        moves: Moves,
        code: Code,
    ) -> None:
        self.policy, self.log, self.labels, self.journal = policy, log, labels, journal
        self.rollouts, self.bundles, self.data, self.clock = rollouts, bundles, data, clock
        self.champions, self.moves, self.code = champions, moves, code

    def explain(self, start_ms: int, end_ms: int) -> Explained:
        """Why the loss in that window is not what it was when the version that answered it was made. Errors:
        `NotFound`."""
        version = self._answered(start_ms, end_ms)
        bundle = self.bundles.load(self._bundle(version))
        found = self.moves.explain(bundle, version, start_ms, end_ms)
        if found is None:
            raise NotFound(f"version {version} keeps no holdout to compare with", way_out="Train anew.")
        return found

    def report(self, last_ms: int) -> MonitorReport:
        """How the champion does on what it scored in the last `last_ms`. Errors: `NotFound` before the first
        release."""
        champion = self.served()
        now, bundle, version = self.clock.now_ms(), champion.bundle, champion.arm.version
        rows, frame = self._labelled(bundle, version, now - last_ms, now + 1)
        delays, share = self.delays(last_ms)
        metric = self.policy.train.metric
        classes = bundle.schema.task is not Task.REGRESSION
        return MonitorReport(
            model=self.policy.name,
            version=version,
            from_ms=now - last_ms,
            until_ms=now,
            higher_is_better=metrics.known(metric).higher_is_better,
            holdout=self._held_measured(bundle),
            now=metrics.measure(metric, rows.y, rows.output),
            calibration=metrics.measure("ece", rows.y, rows.output) if classes else None,
            windows=tuple(self._stretches(rows, frame, delays, now - last_ms, now)),
            failures=self._failures(bundle, rows),
            delays=self._delays(delays, share),
            needs=self._needs(version, bundle),
            value=None if rows.values is None else mean(rows.values),
            counted={
                str(count): tuple(self._counted(rows, frame, delays, now - last_ms, now, count))
                for count in self.policy.monitor.rows
            },
            segments=self._segments(bundle, rows),
        )

    def served(self) -> Champion:
        """Errors: `NotFound` before the first release."""
        champion = self.champions.now()
        if champion is None:
            raise NotFound(f"{self.policy.name} serves no version yet", way_out="Start with `homeostat up`.")
        return champion

    def delays(self, last_ms: int) -> tuple[Law, float]:
        """Learned from what was answered in the last `last_ms`, by whichever version, and the labels of it; and from
        which share of the ids."""
        now = self.clock.now_ms()
        rows, share = self.moves.read(now - last_ms, now + 1, False)
        rows = rows.filter(pl.col("role") == Role.ANSWER.value).select("id", "at_ms")
        came = self.labels.read(now - last_ms, now + 1, rows["id"] if share < 1 else None).select("id", came="at_ms")
        joined = rows.join(came, on="id", how="left", maintain_order="left")
        at = joined["came"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        return law(joined["at_ms"].to_numpy(), at, now), share

    def late(self, last_ms: int) -> Delays | None:
        """The same in short; None where nothing was answered."""
        found, share = self.delays(last_ms)
        return self._delays(found, share) if found.predictions else None

    def _answered(self, start_ms: int, end_ms: int) -> int:
        """The version that answered most of that window."""
        rows, _ = self.moves.read(start_ms, end_ms, False)
        rows = rows.filter(pl.col("role") == Role.ANSWER.value)
        if rows.is_empty():
            where, way_out = (
                f"{words.time(start_ms)} to {words.time(end_ms)}",
                "A window is START or START..END, in UTC.",
            )
            raise NotFound("nothing was answered in that window", where=where, way_out=way_out)
        return int(rows["version"].value_counts(sort=True)["version"][0])

    def _bundle(self, version: int) -> str:
        for one in self.rollouts.all(self.policy.name):
            if one.candidate.number == version:
                return one.candidate.bundle
        raise NotFound(f"version {version} was never released", way_out="Only released versions can be explained.")

    def _labelled(self, bundle: Bundle, version: int, start_ms: int, end_ms: int) -> tuple[Labelled, pl.DataFrame]:
        """As `Moves.rows`, with what each answer was worth."""
        rows, told, _ = self.moves.rows(bundle, version, start_ms, end_ms)
        of = self.policy.monitor.value, self.code, bundle.threshold, bundle.schema
        return replace(rows, values=worths(*of, rows.frame, rows.y, rows.output)), told

    def _segments(self, bundle: Bundle, rows: Labelled) -> Mapping[str, Measurement]:
        of = bundle.schema, self.policy.monitor.segments, self.policy.train.metric
        return {str(group): found for group, found in by_segment(*of, rows.frame, rows.y, rows.output)}

    def _failures(self, bundle: Bundle, rows: Labelled) -> Failures:
        kept = held(self.bundles.blobs, bundle)
        holdout = kept.frame if kept else rows.frame.clear()
        task, scale = bundle.schema.task, bundle.loss_scale
        losses = metrics.losses(task, kept.y, kept.output, scale) if kept else np.zeros(0)
        known = Known(self.learned(bundle), holdout, losses)
        return failures(bundle.schema, self.policy.train.metric, self.policy.monitor.segments, rows, known)

    def learned(self, bundle: Bundle) -> pl.DataFrame | None:
        """The rows that it learned from, None where they are gone."""
        try:
            rows = self.data.read(self.data.version(bundle.dataset_version))
        except NotFound:
            return None
        rows = rows.filter(pl.col(EVENT_MS) <= bundle.trained_until_ms)
        if self.policy.train.window:
            rows = rows.filter(pl.col(EVENT_MS) > bundle.trained_until_ms - self.policy.train.window)
        return rows.gather_every(-(-len(rows) // LEARNED) or 1)

    def _held_measured(self, bundle: Bundle) -> Measurement | None:
        kept = held(self.bundles.blobs, bundle)
        return metrics.measure(self.policy.train.metric, kept.y, kept.output) if kept else None

    def _stretches(
        self, rows: Labelled, answered: pl.DataFrame, delays: Law, from_ms: int, now_ms: int
    ) -> Iterator[Stretch]:
        """The policy's shortest windows since the first answer, or longer ones when there would be too many."""
        from_ms = max(from_ms, int(answered["at_ms"].to_numpy().min(initial=now_ms)))
        length = min(self.policy.monitor.windows)
        length *= -(-(now_ms + 1 - from_ms) // (length * MOST_WINDOWS))
        bounds = [(start, start + length) for start in range(from_ms // length * length, now_ms + 1, length)]
        yield from self._stretched(rows, answered, delays, now_ms, bounds, str(length))

    def _counted(
        self, rows: Labelled, answered: pl.DataFrame, delays: Law, from_ms: int, now_ms: int, count: int
    ) -> Iterator[Stretch]:
        """The newest windows of so many answers, as they were judged."""
        events = self.journal.read(self.policy.name, "monitor.drift", of_rows(count))
        bounds = [(one.body["start_ms"], one.body["end_ms"]) for one in events if one.body["start_ms"] >= from_ms]
        yield from self._stretched(rows, answered, delays, now_ms, bounds[-MOST_WINDOWS:], of_rows(count))

    def _stretched(
        self,
        rows: Labelled,
        answered: pl.DataFrame,
        delays: Law,
        now_ms: int,
        bounds: Sequence[tuple[int, int]],
        series: str,
    ) -> Iterator[Stretch]:
        """Those of the windows [start, end) that hold an answer."""
        estimates = self._estimates(series)
        at = answered.filter("known")["at_ms"].to_numpy()
        for start, end in bounds:
            n = len(answered.filter(pl.col("at_ms").is_between(start, end, closed="left")))
            if n:
                part = rows.only((at >= start) & (at < end))
                measured = metrics.measure(self.policy.train.metric, part.y, part.output)
                mature = delays.mature(start, end, now_ms) if delays.known else None
                known = measured if np.isfinite(measured.value) else None
                yield Stretch(start, end, known, estimates.get(start), n, mature)

    def _estimates(self, series: str) -> Mapping[int, tuple[float, float, float]]:
        events = self.journal.read(self.policy.name, "monitor.estimate", series)
        said = {one.body["start_ms"]: one.body["estimate"] for one in events if "estimate" in one.body}
        return {start: (one["value"], one["low"], one["high"]) for start, one in said.items()}

    def _delays(self, found: Law, share: float) -> Delays:
        horizon = self.policy.data.label_horizon
        law = found.labels, found.predictions, found.age(0.5), found.age(0.95), horizon, found.share(horizon)
        return Delays(*law, share)

    def _needs(self, version: int, bundle: Bundle) -> Needs:
        """Beside the version that served before it."""
        made = [one for one in self.rollouts.all(self.policy.name) if one.candidate.number == version and one.champion]
        return self._beside(bundle, made[-1].champion if made else None)

    def needs(self, candidate: Version, champion: Version | None) -> Needs:
        """What a version needs, beside another one. Errors: `NotFound`, `Corrupt`."""
        return self._beside(self.bundles.load(candidate.bundle), champion)

    def _beside(self, bundle: Bundle, before: Version | None) -> Needs:
        now = self.moves.evaluation(bundle).importance
        if before is None:
            return Needs(now, 0, {}, None)
        earlier = self.moves.evaluation(self.bundles.load(before.bundle)).importance
        return Needs(now, before.number, earlier, agreement(earlier, now))
