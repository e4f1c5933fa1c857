"""Watching: each whole window of the prediction log is judged once, and the champion's losses as labels come.

All that is kept in memory is a cache: what was decided stands in the journal, what is computed follows from the
logs, so a restart changes no outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace

import numpy as np
import polars as pl

from homeostat import codec
from homeostat.domain.bundle import Bundle
from homeostat.domain.event import Event
from homeostat.domain.gate import Verdict
from homeostat.domain.monitor import Alert, Reading, Window
from homeostat.domain.policy import Policy
from homeostat.domain.rollout import Arm
from homeostat.domain.units import DAY_MS, show_duration
from homeostat.engines import metrics
from homeostat.engines.answer import output_of
from homeostat.engines.change import ORDINARY, Baseline, Change, Rule, detect, pooled
from homeostat.engines.drift import drift
from homeostat.engines.drift.counts import CategoryLayout
from homeostat.engines.drift.profile import PREDICTION, Reference, profile
from homeostat.engines.evaluation import Evaluation
from homeostat.ports import Blobs, Clock, Journal, LabelLog, PredictionLog, Rollouts, Router
from homeostat.services.scored import LiveRows, inputs_of, labelled, scored_by

POOLED = 5
"""Trainings whose holdouts make the baseline."""
SILENT = 3
"""Days without a label until quality is unknown."""
EXCUSED = 2.0
"""How much worse, in odds, an outdated model may have been and still tell what is ordinary."""
LOG = "log "
"""How the titles of alerts about the log itself begin."""
CATCH_UP = 31
"""Windows that are made up for after a standstill."""


@dataclass(frozen=True, slots=True)
class Performance:
    """The champion's losses since `since_ms`; `key` names the champion and that moment. `trained_ms`: when its release
    started, for what it learned from may be much older. `silent`: so many days with answers are the last ones and have
    no label, though their labels are due."""

    change: Change
    key: str
    since_ms: int
    trained_ms: int
    silent: int = 0


@dataclass(frozen=True, slots=True)
class _Champion:
    """`started_ms`: when its release started; from then on it scored every row, so that windows are whole."""

    arm: Arm
    bundle: Bundle
    reference: Reference
    baseline: Baseline
    started_ms: int


class Monitors:
    """`load` gives the bundle of an id; `troubles` what is wrong with the log itself: cause → evidence."""

    def __init__(
        self,
        policy: Policy,
        log: PredictionLog,
        labels: LabelLog,
        journal: Journal,
        router: Router,
        rollouts: Rollouts,
        blobs: Blobs,
        clock: Clock,
        load: Callable[[str], Bundle],
        rule: Rule = ORDINARY,
        troubles: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.policy, self.log, self.labels, self.journal = policy, log, labels, journal
        self.router, self.rollouts, self.blobs, self.clock = router, rollouts, blobs, clock
        self.load, self.rule, self.troubles = load, rule, troubles
        self._told: Mapping[str, str] | None = None
        self._loaded: _Champion | None = None
        self._ends: dict[tuple[str, int], int] = {}
        self._live: LiveRows | None = None
        self._performance: tuple[tuple[str, int], Performance] | None = None

    def watch(self) -> tuple[Reading, ...]:
        """Judge every window that has become due: drift when it has passed, the metric when its labels are mature.
        → their readings."""
        self._alert_troubles()
        champion = self._champion()
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

    def performance(self) -> Performance | None:
        """The champion on all mature labels of rows it scored since it was trained, or since the last training that
        brought no new champion. None: nothing is served."""
        champion = self._champion()
        if champion is None:
            return None
        since = self._since(champion)
        key = f"{champion.arm.bundle[:12]}:{since}"
        now = self.clock.now_ms()
        end = (now - self.policy.data.label_horizon) // DAY_MS * DAY_MS
        if self._performance is None or self._performance[0] != (key, end):
            change, silent = self._change(champion, since, end, now)
            self._performance = (key, end), Performance(change, key, since, champion.started_ms, silent)
        return self._performance[1]

    def alerts(self) -> tuple[Alert, ...]:
        """The open ones. Of the log's the evidence is that of this moment: what is lost grows."""
        last = {event.subject: event for event in self.journal.read(self.policy.name, "alert.")}
        found = [Alert(**event.body) for event in last.values() if event.kind == "alert.opened"]
        now = self.troubles() if any(alert.title.startswith(LOG) for alert in found) else {}
        return tuple(replace(alert, evidence=now.get(alert.title, alert.evidence)) for alert in found)

    def _champion(self) -> _Champion | None:
        route = self.router.read().routes.get(self.policy.name)
        if route is None:
            return None
        if self._loaded is None or self._loaded.arm != route.champion:
            bundle_id = route.champion.bundle
            bundle = self.load(bundle_id)
            reference = Reference.from_bytes(self.blobs.get(bundle.files["profile"]))
            started = [r.started_ms for r in self.rollouts.all(self.policy.name) if r.candidate.bundle == bundle_id]
            first = max(bundle.trained_until_ms, min(started, default=0))
            self._loaded = _Champion(route.champion, bundle, reference, self._baseline(bundle_id, bundle), first)
        return self._loaded

    def _baseline(self, bundle_id: str, champion: Bundle) -> Baseline:
        """What models of this stream lose when they are made: the champion's holdout and those of the releases before
        it. One holdout alone may be an odd week, and that of a model made in haste excuses whatever it does."""
        made = [record.candidate.bundle for record in self.rollouts.all(self.policy.name)]
        before = dict.fromkeys(made[: made.index(bundle_id)] if bundle_id in made else ())
        bundles = [*(self.load(one) for one in list(before)[-(POOLED - 1) :]), champion]
        losses = [(one, self._evaluated(one).scaled(one.loss_scale / champion.loss_scale)) for one in bundles]
        steady = [loss for one, loss in losses if not self._outdated(one)]
        if not steady:
            return pooled([loss for _, loss in losses])
        limit = pooled(steady).worse(EXCUSED)
        return pooled([loss for _, loss in losses if loss in steady or loss.mean < limit])

    def _outdated(self, bundle: Bundle) -> bool:
        """Was it evaluated when it had learned mostly from before the change that it answers? Then its holdout may say
        what an outdated model loses, and would excuse the next one."""
        trained = self.journal.read(self.policy.name, "training.done")
        causes = {event.subject for event in trained if event.body["run"] == bundle.run}
        fired = self.journal.read(self.policy.name, "trigger.fired")
        began = max((event.body.get("since_ms", 0) for event in fired if event.subject in causes), default=0)
        return bundle.evaluated_until_ms - self.policy.train.window // 2 < began

    def _evaluated(self, bundle: Bundle) -> Baseline:
        return codec.decode(self.blobs.get(bundle.files["evaluation.json"]), Evaluation).loss

    def _due(self, kind: str, length: int, wait: int, champion: _Champion) -> Iterator[int]:
        """Starts of the windows, aligned to the epoch, that have ended `wait` ago and were not judged."""
        newest = (self.clock.now_ms() - wait) // length * length
        if (kind, length) not in self._ends:
            judged = [event.body["end_ms"] for event in self.journal.read(self.policy.name, kind, str(length))]
            self._ends[kind, length] = max((0, *judged))
        first = -(-champion.started_ms // length) * length
        for start in range(max(first, self._ends[kind, length], newest - CATCH_UP * length), newest, length):
            yield start
            self._ends[kind, length] = start + length

    def _drift(self, champion: _Champion, start: int, end: int) -> Sequence[Reading]:
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

    def _metric(self, champion: _Champion, start: int, end: int) -> Sequence[Reading]:
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

    def _record(self, kind: str, window: Window, readings: Sequence[Reading], champion: _Champion) -> None:
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
        self._settle(f"inputs drifted ({span} window)", inputs, end)
        self._settle(f"predictions drifted ({span} window)", answers, end)

    def _alert_performance(self) -> None:
        performance = self.performance()
        if performance is None:
            return
        silent = f"no label came for the last {performance.silent} days that are due"
        missing = Reading("label", "labels", Verdict.HARM, float(performance.silent), 1.0, silent)
        self._settle("labels", [missing] if performance.silent >= SILENT else [], self.clock.now_ms())
        if performance.change.verdict is Verdict.UNKNOWN:
            return
        change = performance.change
        harm = [Reading("loss", "change", change.verdict, change.mean, 1.0, change.reason)]
        self._settle("performance", harm if change.verdict is Verdict.HARM else [], self.clock.now_ms())

    def _alert_troubles(self) -> None:
        """One alert a cause, as long as it lasts."""
        now = self.troubles()
        if self._told is not None and self._told.keys() == now.keys():
            return
        at = self.clock.now_ms()
        over = {alert.title for alert in self.alerts() if alert.title.startswith(LOG)} - now.keys()
        for cause in over:
            self._settle(cause, [], at)
        for cause, evidence in now.items():
            self._settle(cause, [Reading(cause, "log", Verdict.HARM, 0.0, 1.0, evidence)], at)
        self._told = now

    def _settle(self, cause: str, harm: Sequence[Reading], at: int) -> None:
        """Open the alert of a cause, or close it when the cause is gone. `at` makes the key: repeated, it writes
        nothing."""
        opened = next((alert for alert in self.alerts() if alert.title == cause), None)
        if (opened is not None) == bool(harm):
            return
        evidence = "; ".join(reading.reason for reading in harm)
        alert = Alert(f"{cause}:{at}", cause, evidence, at)
        if opened is not None:
            alert = Alert(opened.key, opened.title, opened.evidence, opened.opened_ms, at)
        verb = "closed" if opened else "opened"
        text = f"{cause}: over" if opened else f"{cause}: {evidence}"
        key = f"alert.{verb}:{alert.key}"
        self.journal.append(Event(at, self.policy.name, f"alert.{verb}", key, cause, text, asdict(alert)))

    def _since(self, champion: _Champion) -> int:
        """When the evidence starts: a training that brought no new champion begins it anew, when it failed or when
        its release ended without promotion."""
        trained = self.journal.read(self.policy.name, "training.")
        runs = {event.body["run"] for event in trained} - {champion.bundle.run}
        ended = [event.at_ms for event in trained if event.body["run"] != champion.bundle.run]
        releases = self.rollouts.all(self.policy.name)
        ended += [release.ended_ms for release in releases if release.candidate.run in runs and release.ended_ms]
        newer = [at for at in ended if at > champion.bundle.trained_until_ms]
        return max((champion.bundle.trained_until_ms, *newer))

    def _change(self, champion: _Champion, since: int, end: int, now: int) -> tuple[Change, int]:
        """→ the change, and the last days without a label. What nobody has told for days is not known to be well."""
        if self._live is None or not self._live.continues(champion.arm.version, since, end, now):
            self._live = LiveRows(champion.arm.version, since)
        rows, labels = self._live.extend(self.policy.name, self.log, self.labels, end, now)
        joined, y = labelled(champion.bundle.schema, rows, labels)
        output = output_of(champion.bundle.schema, joined)
        losses = metrics.losses(champion.bundle.schema.task, y, output, champion.bundle.loss_scale)
        days = joined["at_ms"].to_numpy() // DAY_MS
        change = detect(champion.baseline, losses, days, self.rule)
        told = int(days[-1]) if len(days) else -1
        silent = len({day for day in (rows["at_ms"] // DAY_MS).unique().to_list() if day > told})
        if silent >= SILENT and change.verdict is Verdict.OK:
            reason = f"no label came for the last {silent} days that are due; before, {change.reason}"
            change = replace(change, verdict=Verdict.UNKNOWN, reason=reason)
        return change, silent


def _without(hidden: Set[str], reference: Reference, inputs: pl.DataFrame) -> pl.DataFrame:
    """The inputs with nulls for those that the log does not hold as they were served: they can't be compared."""
    kinds = {
        name: pl.String if isinstance(one, CategoryLayout) else pl.Float64 for name, one in reference.layouts.items()
    }
    return inputs.with_columns(pl.lit(None, kinds[name]).alias(name) for name in hidden & kinds.keys())
