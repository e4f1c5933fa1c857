"""Watching: each whole window of the prediction log is judged once.

All that is kept in memory is a cache: what was decided stands in the journal, what is computed follows from the
logs, so a restart changes no outcome.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import asdict

import numpy as np
import polars as pl

from homeostat.domain.event import Event
from homeostat.domain.gate import Verdict
from homeostat.domain.monitor import Reading, Window
from homeostat.domain.policy import Policy
from homeostat.domain.units import show_duration
from homeostat.engines import metrics
from homeostat.engines.answer import output_of
from homeostat.engines.drift import drift
from homeostat.engines.drift.counts import CategoryLayout
from homeostat.engines.drift.profile import PREDICTION, Reference, profile
from homeostat.ports import Clock, Journal, LabelLog, PredictionLog
from homeostat.services.alerts import Alerts
from homeostat.services.champion import Champion, Champions
from homeostat.services.performance import SILENT, Performances
from homeostat.services.scored import inputs_of, labelled, scored_by

CATCH_UP = 31
"""Windows that are made up for after a standstill."""


class Monitors:
    """Every window of the policy's lengths, for what is served."""

    def __init__(
        self,
        policy: Policy,
        log: PredictionLog,
        labels: LabelLog,
        journal: Journal,
        clock: Clock,
        champions: Champions,
        performances: Performances,
        alerts: Alerts,
    ) -> None:
        self.policy, self.log, self.labels, self.journal, self.clock = policy, log, labels, journal, clock
        self.champions, self.performances, self.alerts = champions, performances, alerts
        self._ends: dict[tuple[str, int], int] = {}

    def watch(self) -> tuple[Reading, ...]:
        """Judge every window that has become due: drift when it has passed, the metric when its labels are mature.
        → their readings."""
        self.alerts.watch_log()
        champion = self.champions.now()
        if champion is None:
            return ()
        readings: list[Reading] = []
        for length in self.policy.monitor.windows:
            for start in self._due("monitor.drift", length, 0, champion):
                readings += self._drift(champion, start, start + length)
            for start in self._due("monitor.metric", length, self.policy.data.label_horizon, champion):
                readings += self._metric(champion, start, start + length)
        self._alert_performance()
        return tuple(readings)

    def _due(self, kind: str, length: int, wait: int, champion: Champion) -> Iterator[int]:
        """Starts of the windows, aligned to the epoch, that have ended `wait` ago and were not judged."""
        newest = (self.clock.now_ms() - wait) // length * length
        if (kind, length) not in self._ends:
            judged = [event.body["end_ms"] for event in self.journal.read(self.policy.name, kind, str(length))]
            self._ends[kind, length] = max((0, *judged))
        first = -(-champion.started_ms // length) * length
        for start in range(max(first, self._ends[kind, length], newest - CATCH_UP * length), newest, length):
            yield start
            self._ends[kind, length] = start + length

    def _drift(self, champion: Champion, start: int, end: int) -> Sequence[Reading]:
        log = self.log.read(self.policy.name, start, end)
        rows = scored_by(log, champion.arm.version)
        if rows.is_empty():
            return ()
        hidden = self.policy.log.hidden
        inputs = _without(hidden, champion.reference, inputs_of(log, rows))
        window = profile(champion.reference, inputs, output_of(champion.bundle.schema, rows))
        found = drift(champion.reference, window, self.policy.monitor.false_alarms, end - start)
        readings = [reading for reading in found if reading.subject not in hidden]
        self._alert_drift(readings, start, end)
        self._record("monitor.drift", Window(start, end, len(rows)), readings, champion)
        return readings

    def _metric(self, champion: Champion, start: int, end: int) -> Sequence[Reading]:
        """The policy's metric on the rows of the window that have a label."""
        rows = scored_by(self.log.read(self.policy.name, start, end), champion.arm.version)
        if rows.is_empty():
            return ()
        joined, y = labelled(champion.bundle.schema, rows, self.labels.read(start, self.clock.now_ms() + 1))
        measured = metrics.measure(self.policy.train.metric, y, output_of(champion.bundle.schema, joined))
        known = bool(np.isfinite(measured.value))
        words = str(measured) if known else f"{measured.metric} can't be measured on {measured.n} labels"
        verdict = Verdict.OK if known else Verdict.UNKNOWN
        reading = Reading(measured.metric, "metric", verdict, measured.value if known else 0.0, 1.0, words)
        self._record("monitor.metric", Window(start, end, len(joined)), [reading], champion)
        return (reading,)

    def _record(self, kind: str, window: Window, readings: Sequence[Reading], champion: Champion) -> None:
        length = window.end_ms - window.start_ms
        harm = [reading.reason for reading in readings if reading.verdict is Verdict.HARM]
        text = "; ".join(harm) or (readings[0].reason if kind == "monitor.metric" else "no drift")
        body = {**asdict(window), "version": champion.arm.version, "readings": [asdict(r) for r in readings]}
        key = f"{kind}:{length}:{window.end_ms}"
        at = self.clock.now_ms()
        self.journal.append(Event(at, self.policy.name, kind, key, str(length), text, body))

    def _alert_drift(self, readings: Sequence[Reading], start: int, end: int) -> None:
        """One alert for the inputs and one for the predictions, a window length."""
        span = show_duration(end - start)
        inputs = [r for r in readings if r.subject != PREDICTION and r.verdict is Verdict.HARM]
        answers = [r for r in readings if r.subject == PREDICTION and r.verdict is Verdict.HARM]
        self.alerts.settle(f"inputs drifted ({span} window)", inputs, end)
        self.alerts.settle(f"predictions drifted ({span} window)", answers, end)

    def _alert_performance(self) -> None:
        performance = self.performances.now()
        if performance is None:
            return
        silent = f"no label that counts came for the last {performance.silent} days that are due"
        missing = Reading("label", "labels", Verdict.HARM, float(performance.silent), 1.0, silent)
        self.alerts.settle("labels", [missing] if performance.silent >= SILENT else [], self.clock.now_ms())
        if performance.change.verdict is Verdict.UNKNOWN:
            return
        change = performance.change
        harm = [Reading("loss", "change", change.verdict, change.mean, 1.0, change.reason)]
        self.alerts.settle("performance", harm if change.verdict is Verdict.HARM else [], self.clock.now_ms())


def _without(hidden: Set[str], reference: Reference, inputs: pl.DataFrame) -> pl.DataFrame:
    """The inputs with nulls for those that the log does not hold as they were served: they can't be compared."""
    kinds = {
        name: pl.String if isinstance(one, CategoryLayout) else pl.Float64 for name, one in reference.layouts.items()
    }
    return inputs.with_columns(pl.lit(None, kinds[name]).alias(name) for name in hidden & kinds.keys())
