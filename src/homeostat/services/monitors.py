"""Watching: each whole window of the prediction log is judged once.

All that is kept in memory is a cache: what was decided stands in the journal, what is computed follows from the
logs, so a restart changes no outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from types import MappingProxyType

import numpy as np

from homeostat.domain.errors import NotFound, PipelineError
from homeostat.domain.event import Event
from homeostat.domain.gate import Measurement, Verdict
from homeostat.domain.monitor import Alert, Reading, Window, of_rows
from homeostat.domain.moved import Explained
from homeostat.domain.policy import Policy
from homeostat.domain.units import DAY_MS
from homeostat.engines import metrics
from homeostat.engines.answer import output_of
from homeostat.engines.causes import ranked
from homeostat.engines.declared import by_segment
from homeostat.engines.groups import Group
from homeostat.ports import Clock, Journal, LabelLog
from homeostat.services.alerts import Alerts
from homeostat.services.champion import Champion, Champions
from homeostat.services.counts import Counts
from homeostat.services.drifts import KIND, Drifts
from homeostat.services.estimates import Estimates
from homeostat.services.performance import SILENT, Performances
from homeostat.services.quarantine import Quarantine
from homeostat.services.scored import labelled
from homeostat.services.windows import Windows

METRIC = "monitor.metric"
CATCH_UP = 31
"""Windows that are made up for after a standstill."""


class Monitors:
    """Every window of the policy's lengths, for what is served."""

    def __init__(
        self,
        policy: Policy,
        windows: Windows,
        labels: LabelLog,
        journal: Journal,
        clock: Clock,
        champions: Champions,
        drifts: Drifts,
        performances: Performances,
        alerts: Alerts,
        quarantine: Quarantine,
        estimates: Estimates,
        explain: Callable[[int, int], Explained],
    ) -> None:
        self.policy, self.windows, self.labels, self.journal, self.clock = policy, windows, labels, journal, clock
        self.champions, self.drifts, self.performances = champions, drifts, performances
        self.alerts, self.quarantine, self.estimates, self.explain = alerts, quarantine, estimates, explain
        self._ends: dict[tuple[str, int], int] = {}
        self.counts = Counts(policy, windows.log)
        self._waiting: dict[tuple[int, int], list[Window]] = {}

    def watch(self) -> tuple[Reading, ...]:
        """Judge every window that has become due: drift when it has passed, the metric when its labels are mature.
        → their readings."""
        self.alerts.watch_log()
        champion = self.champions.now()
        if champion is None:
            return ()
        readings: list[Reading] = []
        for length in sorted(self.policy.monitor.windows):  # the longer ones are made of the shorter
            for start in self._due(KIND, length, 0, champion):
                if self.drifts.waits(start + length, self.clock.now_ms()):
                    break
                if length == min(self.policy.monitor.windows):
                    self.quarantine.judge(champion, start, start + length)
                readings += self._drift(champion, Window(start, start + length))
            for start in self._due(METRIC, length, self.policy.data.label_horizon, champion):
                readings += self._metric(champion, Window(start, start + length))
        for count in self.policy.monitor.rows:
            readings += self._watch_rows(champion, count)
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

    def _watch_rows(self, champion: Champion, count: int) -> Iterator[Reading]:
        """Windows of so many answers since the champion's release started: drift when the last one was given, the
        metric when its labels are mature."""
        version, horizon = champion.arm.version, self.policy.data.label_horizon
        if (version, count) not in self._waiting:
            self._recall(champion, count)
        waiting, now = self._waiting[version, count], self.clock.now_ms()
        for _ in range(CATCH_UP):
            window = self.counts.next(champion, count, now)
            if window is None:
                break
            yield from self._drift(champion, window)
            self.counts.done(window)
            waiting.append(window)
        while waiting and waiting[0].end_ms + horizon <= now:
            yield from self._metric(champion, waiting[0])
            waiting.pop(0)

    def _recall(self, champion: Champion, count: int) -> None:
        """Which windows of so many answers were judged, and which of them wait for their labels."""
        version, series = champion.arm.version, of_rows(count)
        judged, measured = (
            [one.body for one in self.journal.read(self.policy.name, kind, series) if one.body["version"] == version]
            for kind in (KIND, METRIC)
        )
        done = {body["end_ms"] for body in measured}
        waiting = [Window(body["start_ms"], body["end_ms"], 0, count) for body in judged if body["end_ms"] not in done]
        self._waiting = {key: kept for key, kept in self._waiting.items() if key[0] == version}
        self._waiting[version, count] = waiting
        self.counts.begin(champion, count, max((champion.started_ms, *(body["end_ms"] for body in judged))))

    def _drift(self, champion: Champion, due: Window) -> Sequence[Reading]:
        judged = self.drifts.judge(champion, due)
        if judged is None:
            return ()
        found = self.windows.read(champion, due.start_ms, due.end_ms, judged.rows)
        window = replace(due, rows=judged.rows)
        shows = partial(found.example, champion.reference, champion.bundle.schema.classes)
        refused = partial(self.windows.refused, due.start_ms, due.end_ms)
        self.alerts.drifted(judged.readings, window, shows, refused, champion.importance)
        estimated = self.estimates.judge(champion, window, found, judged.readings)
        self._record(KIND, window, judged.readings, champion, {"profile": judged.profile})  # the window is done with
        return [*judged.readings, *estimated]

    def _metric(self, champion: Champion, window: Window) -> Sequence[Reading]:
        """The policy's metric on the rows of the window that have a label, and in each declared segment."""
        start, schema = window.start_ms, champion.bundle.schema
        found = self.windows.read(champion, start, window.end_ms, self._known(window))
        rows = found.rows
        if rows.is_empty():
            return ()
        joined, y = labelled(schema, rows, self.labels.read(start, self.clock.now_ms() + 1, rows["id"]))
        output, metric, why, parts = output_of(schema, joined), self.policy.train.metric, "", []
        inputs = found.inputs.filter(rows["id"].is_in(joined["id"].to_list()))
        try:
            measured = metrics.measure(metric, y, output)
            parts = list(by_segment(schema, self.policy.monitor.segments, metric, inputs, y, output))
        except PipelineError as error:  # a function of the project: what else is watched goes on
            measured, why = Measurement(metric, np.nan, np.nan, np.nan, len(y)), f": {error.what}"
        known = bool(np.isfinite(measured.value))
        some = f"{measured.n:,} labels of {len(rows):,} answers{why}"
        words = f"{measured} of {len(rows):,}{found.words}" if known else f"{metric} can't be measured on {some}"
        verdict = Verdict.OK if known else Verdict.UNKNOWN
        reading = Reading(measured.metric, "metric", verdict, measured.value if known else 0.0, 1.0, words)
        readings = [reading, *(_of_segment(group, one) for group, one in parts)]
        self._record(METRIC, replace(window, rows=len(joined)), readings, champion)
        return readings

    def _known(self, window: Window) -> int:
        """How many answers it holds, as its drift was judged on all of them; 0: that was not seen."""
        judged = self.journal.read(self.policy.name, KIND, window.series)
        return next((int(one.body["rows"]) for one in reversed(judged) if one.body["end_ms"] == window.end_ms), 0)

    def _record(
        self,
        kind: str,
        window: Window,
        readings: Sequence[Reading],
        champion: Champion,
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        harm = [reading.reason for reading in readings if reading.verdict is Verdict.HARM]
        text = "; ".join(harm) or (readings[0].reason if kind == METRIC or len(readings) == 1 else "no drift")
        body = {**asdict(window), "version": champion.arm.version, "readings": [asdict(r) for r in readings], **more}
        key = f"{kind}:{window.series}:{window.end_ms}"
        at = self.clock.now_ms()
        self.journal.append(Event(at, self.policy.name, kind, key, window.series, text, body))

    def _alert_performance(self) -> None:
        performance, now = self.performances.now(), self.clock.now_ms()
        if performance is None:
            return
        silent = f"no label that counts came for the last {performance.silent} days that are due"
        missing = Alert("", "labels", silent, now, subject="labels")
        held = any(one.kind == "labels" and one.subject != "labels" for one in self.alerts.open())
        if performance.silent >= SILENT or performance.change.n:  # after a training the count of days begins anew
            told = performance.silent >= SILENT and not held  # those of a source that are held back have their alert
            self.alerts.settle("labels", missing if told else None, now)
        change = performance.change
        if change.verdict is Verdict.UNKNOWN:
            return
        worse = Alert("", "performance", change.reason, now, subject="performance")
        if change.verdict is Verdict.HARM and not self.alerts.on("performance"):
            worse = self._why(worse, (change.since or 0) * DAY_MS)
        self.alerts.settle("performance", worse if change.verdict is Verdict.HARM else None, now)

    def _why(self, alert: Alert, since_ms: int) -> Alert:
        """With its likely causes since then, and an example of the first that has one."""
        try:
            explained = self.explain(since_ms, alert.opened_ms)
            found = explained.causes if explained.move > 0 else ()  # its own holdout may have been an odd week
        except NotFound:  # no label of that stretch, or a bundle from before holdouts were kept
            found = ()
        own = self.alerts.likely("performance", since_ms, alert.opened_ms)
        example = next((one.example for one in found if one.example), "")
        return replace(alert, causes=ranked(own, found), example=example)


def _of_segment(group: Group, one: Measurement) -> Reading:
    return Reading(str(group), "segment", Verdict.OK, one.value, 1.0, f"{group}: {one}")
