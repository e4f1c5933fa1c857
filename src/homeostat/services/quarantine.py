"""Broken columns as they happen: named, and their rows kept from being learned from until they are well again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat import codec
from homeostat.domain.bundle import Bundle
from homeostat.domain.errors import Refused
from homeostat.domain.event import Event
from homeostat.domain.monitor import Alert
from homeostat.domain.policy import Policy
from homeostat.domain.prediction import PINNED, Role
from homeostat.domain.quarantine import Fault
from homeostat.domain.units import iso
from homeostat.engines import broken
from homeostat.engines.broken import HABITS, Habit
from homeostat.engines.feedback import in_order
from homeostat.ports import Blobs, Clock, Journal, PredictionLog
from homeostat.services.alerts import Alerts
from homeostat.services.champion import Champion
from homeostat.services.held import HELD, quarantined
from homeostat.services.windows import MOST, part_words

PROBE = 1 / 64
"""The share of the ids that tells how many rows there are."""
TITLES: Mapping[str, str] = {
    "stuck": "is stuck",
    "zero": "is stuck at 0",
    "default": "is filled with one value",
    "missing": "is missing",
    "unit": "has another unit",
    "renamed": "has a renamed value",
}


class Quarantine:
    """Looks at what callers sent in each of the policy's shortest windows, whichever version answered."""

    def __init__(
        self, policy: Policy, log: PredictionLog, journal: Journal, blobs: Blobs, clock: Clock, alerts: Alerts
    ) -> None:
        self.policy, self.log, self.journal = policy, log, journal
        self.blobs, self.clock, self.alerts = blobs, clock, alerts
        self._habits: tuple[str, Mapping[str, Habit]] = ("", {})

    def judge(self, champion: Champion, start_ms: int, end_ms: int) -> None:
        """Open an alert for each column that broke in [start_ms, end_ms), and close those that are well again."""
        known = self._known(champion.bundle)
        if not known:
            return
        reach = broken.reach_ms(known, self.policy.monitor.windows)
        share = self._share(end_ms - reach, end_ms)
        log = self.log.read(self.policy.name, end_ms - reach, end_ms, True, share)
        rows = _asked(log)
        at_ms = rows["at_ms"].to_numpy()
        first = int(np.searchsorted(at_ms, start_ms))
        if first == len(rows):
            return
        inputs = _plain(champion.bundle, rows)
        sick = self._go_on(inputs[first:], at_ms[first:])
        healthy = {name: habit for name, habit in known.items() if name not in sick}
        for fault in broken.faults(healthy, inputs, at_ms, start_ms):
            if not self._accepted(fault, champion.bundle):
                self._open(replace(fault, words=fault.words + part_words(share)), end_ms, rows)
        self._explain(end_ms)

    def accept(self, name: str, by: str, reason: str) -> Alert:
        """A person says that the column is right as it is: its rows are learned from, and the same is not called a
        fault again by a model that was trained before. Errors: `NotFound`, `Refused`."""
        alert = self.alerts.find(name)
        fault = quarantined(self.journal, self.policy.name).get(alert.key)
        if fault is None:
            raise Refused(f"alert {alert.name} keeps nothing from being learned from", way_out="It needs no such word.")
        now, why = self.clock.now_ms(), f": {reason}" if reason else ""
        if alert.closed_ms is None:
            self.alerts.close(alert, now, f"{by} says that it is right as it is{why}")
        text = f"{by} lets the rows of {alert.name} be learned from{why}"
        body = {"fault": asdict(fault), "accepted": by, "reason": reason}
        self.journal.append(Event(now, self.policy.name, HELD, f"accepted:{alert.key}", alert.key, text, body))
        return self.alerts.find(name)

    def _share(self, start_ms: int, end_ms: int) -> float:
        """Of the ids, for `MOST` rows: so that none is too many for the memory."""
        some = self.log.read(self.policy.name, start_ms, end_ms, False, PROBE).height
        return min(1.0, MOST * PROBE / max(some, 1))

    def _known(self, bundle: Bundle) -> Mapping[str, Habit]:
        """Without inputs that the log does not hold as they were served. None of a bundle that was made before habits
        were kept."""
        digest = bundle.files.get(HABITS, "")
        if digest and self._habits[0] != digest:
            every = codec.decode(self.blobs.get(digest), dict[str, Habit])
            shown = {name: habit for name, habit in every.items() if name not in self.policy.log.hidden}
            self._habits = digest, shown
        return self._habits[1] if digest else {}

    def _go_on(self, inputs: pl.DataFrame, at_ms: NDArray[np.int64]) -> set[str]:
        """Close the faults that are over, by the inputs of the window. → the columns that were broken when it began."""
        sick = set()
        for alert in self.alerts.open():
            fault = quarantined(self.journal, self.policy.name).get(alert.key)
            if fault is None or fault.column not in inputs.columns:
                continue
            sick.add(fault.column)
            until = fault.until_ms if fault.until_ms is not None else broken.lasts(fault, inputs[fault.column], at_ms)
            if until is not None:
                over = replace(fault, until_ms=until)
                self._keep(alert.key, over, f"{fault.column} is well again since {iso(until)}", self.clock.now_ms())
                self.alerts.close(alert, self.clock.now_ms(), f"well again since {iso(until)}")
        return sick

    def _accepted(self, fault: Fault, bundle: Bundle) -> bool:
        """Somebody has let the same through after the champion was trained."""
        said = [event for event in self.journal.read(self.policy.name, HELD) if event.body.get("accepted")]
        same = (fault.column, fault.kind, fault.value)
        return any(
            (one["column"], one["kind"], one["value"]) == same and at > bundle.trained_until_ms
            for one, at in ((event.body["fault"], event.at_ms) for event in said)
        )

    def _open(self, fault: Fault, at_ms: int, rows: pl.DataFrame) -> None:
        held = f"what was answered since {iso(fault.from_ms)} is not learned from"
        until = fault.from_ms if fault.until_ms is None else fault.until_ms - 1
        subject = f"broken {fault.column}"
        self.alerts.raised(
            Alert(
                key="",
                title=f"{fault.column} {TITLES[fault.kind]}",
                evidence=f"{fault.words}; {held}",
                opened_ms=at_ms,
                subject=subject,
                columns=(fault.column,),
                example=str(rows.filter(pl.col("at_ms") >= until)["id"][0]),
            )
        )
        alert = self.alerts.on(subject)  # raised now, or by a pass that crashed before its rows were kept
        if alert is not None:
            self._keep(alert.key, fault, f"{fault.column}: {held}", at_ms)

    def _explain(self, at_ms: int) -> None:
        """Drift of the columns that are broken, told since they are, is no cause of its own."""
        known = quarantined(self.journal, self.policy.name)
        for fault in (known[alert.key] for alert in self.alerts.open() if alert.key in known):
            self.alerts.explained(fault.from_ms, at_ms)

    def _keep(self, key: str, fault: Fault, text: str, at_ms: int) -> None:
        state = "held" if fault.until_ms is None else f"held until {fault.until_ms}"
        event = Event(at_ms, self.policy.name, HELD, f"{state}:{key}", key, text, {"fault": asdict(fault)})
        self.journal.append(event)


def _asked(log: pl.DataFrame) -> pl.DataFrame:
    """What callers sent, in order of time: answered, or refused because it broke a rule; without what could not be read
    at all, and without callers' tests."""
    answered = (pl.col("role") == Role.ANSWER.value) & (pl.col("status") == "ok")
    refused = pl.col("role") == Role.REJECTED.value
    rows = log.filter((answered | refused) & ~pl.col("release").str.starts_with(PINNED))
    given = rows["role"] == Role.ANSWER.value
    if not given.all():
        unread = rows["inputs"].struct.unnest().select(pl.all_horizontal(pl.all().is_null())).to_series()
        rows = rows.filter(given | ~unread)
    return in_order(rows)


def _plain(bundle: Bundle, rows: pl.DataFrame) -> pl.DataFrame:
    """The inputs as the bundle's schema has them; null where the log has no such input."""
    held = rows["inputs"].struct.unnest()
    absent = pl.Series([None] * len(rows), dtype=pl.Float64)
    fields = bundle.schema.fields
    return pl.DataFrame(
        [broken.plain(held.get_column(one.name, default=absent), one.kind).alias(one.name) for one in fields]
    )
