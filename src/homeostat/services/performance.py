"""How well the champion does, on the labels of what it scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from homeostat.domain.feedback import EXPLORE
from homeostat.domain.gate import Verdict
from homeostat.domain.policy import Policy
from homeostat.domain.quarantine import Fault
from homeostat.domain.trigger import in_background
from homeostat.domain.units import DAY_MS
from homeostat.engines import metrics
from homeostat.engines.answer import output_of
from homeostat.engines.broken import healthy
from homeostat.engines.change import ORDINARY, Change, Rule, detect
from homeostat.engines.feedback import explored
from homeostat.ports import Clock, Journal, LabelLog, PredictionLog, Rollouts
from homeostat.services.champion import Champion, Champions
from homeostat.services.held import quarantined
from homeostat.services.scored import LiveRows, labelled

SILENT = 3
"""Days without a label until quality is unknown."""


@dataclass(frozen=True, slots=True)
class Performance:
    """The champion's losses since `since_ms`, and since the last attempt to replace it (`fresh`, since `tried_ms`);
    `key` names champion and attempt. `trained_ms`: when its release started; what it learned from may be much older.
    `silent`: so many days with answers are the last ones and have no label, though their labels are due."""

    change: Change
    key: str
    since_ms: int
    trained_ms: int
    fresh: Change
    tried_ms: int
    silent: int = 0


class Performances:
    """The champion's `Performance`, computed anew when a day of labels is complete."""

    def __init__(
        self,
        policy: Policy,
        log: PredictionLog,
        labels: LabelLog,
        journal: Journal,
        rollouts: Rollouts,
        clock: Clock,
        champions: Champions,
        rule: Rule = ORDINARY,
    ) -> None:
        self.policy, self.log, self.labels, self.journal = policy, log, labels, journal
        self.rollouts, self.clock, self.champions, self.rule = rollouts, clock, champions, rule
        self._live: LiveRows | None = None
        self._known: tuple[tuple[str, int, tuple[Fault, ...]], Performance] | None = None

    def now(self) -> Performance | None:
        """The champion on all mature labels of rows it scored since it was trained, or taken back, whatever was tried
        meanwhile. None: nothing is served."""
        champion = self.champions.now()
        if champion is None:
            return None
        since = max(champion.bundle.trained_until_ms, champion.again_ms)
        tried = self._tried(champion)
        key = f"{champion.arm.bundle[:12]}:{tried}"
        now = self.clock.now_ms()
        end = (now - self.policy.data.label_horizon) // DAY_MS * DAY_MS
        broken = tuple(quarantined(self.journal, self.policy.name).values())
        if self._known is None or self._known[0] != (key, end, broken):
            change, fresh, silent = self._change(champion, (since, tried), end, now, broken)
            found = Performance(change, key, since, champion.started_ms, fresh, tried, silent)
            self._known = (key, end, broken), found
        return self._known[1]

    def _tried(self, champion: Champion) -> int:
        """When the last attempt ended that brought no new champion, or when this one was made. The evidence for another
        attempt begins anew then: the same labels pay for one training. That the champion is worse stays known: what
        registers nothing heals nothing."""
        trained = [event for kind in ("training.", "remedy.") for event in self.journal.read(self.policy.name, kind)]
        trained = [event for event in trained if not in_background(event.subject)]  # no attempt: nothing had happened
        runs = {event.body["run"] for event in trained} - {champion.bundle.run}
        ended = [event.at_ms for event in trained if event.body["run"] != champion.bundle.run]
        releases = self.rollouts.all(self.policy.name)
        ended += [release.ended_ms for release in releases if release.candidate.run in runs and release.ended_ms]
        return max((champion.bundle.trained_until_ms, champion.again_ms, *ended))

    def _change(
        self, champion: Champion, begins: tuple[int, int], end: int, now: int, broken: Sequence[Fault]
    ) -> tuple[Change, Change, int]:
        """→ the change since each of `begins`, and the last days without a label. What nobody has told for days is not
        known to be well. What a broken column does is not the model's fault, and no training would mend it."""
        since, tried = begins
        if self._live is None or not self._live.continues(champion.arm.version, since, end):
            self._live = LiveRows(champion.arm.version, since)
        rows, labels = self._live.extend(self.policy.name, self.log, self.labels, end, now)
        if self.policy.feedback.selective:  # nobody owes the others a label
            rows = rows.filter(explored(self.labels.signals(since, now + 1, EXPLORE)))
        rows = healthy(rows, broken, rows["at_ms"].to_numpy())
        joined, y = labelled(champion.bundle.schema, rows, labels)
        output = output_of(champion.bundle.schema, joined)
        losses = metrics.losses(champion.bundle.schema.task, y, output, champion.bundle.loss_scale)
        at_ms = joined["at_ms"].to_numpy()
        days, late = at_ms // DAY_MS, at_ms >= tried
        change = detect(champion.baseline, losses, days, self.rule)
        fresh = change if late.all() else detect(champion.baseline, losses[late], days[late], self.rule)
        told = int(days[-1]) if len(days) else -1
        silent = len({day for day in (rows["at_ms"] // DAY_MS).unique().to_list() if day > told})
        if silent >= SILENT:
            change, fresh = (_unknown(one, silent) for one in (change, fresh))
        return change, fresh, silent


def _unknown(change: Change, silent: int) -> Change:
    if change.verdict is not Verdict.OK:
        return change
    reason = f"no label came for the last {silent} days that are due; before, {change.reason}"
    return replace(change, verdict=Verdict.UNKNOWN, reason=reason)
