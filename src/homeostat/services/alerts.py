"""Alerts: one a cause, open until the cause is gone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace

from homeostat.domain.event import Event
from homeostat.domain.gate import Verdict
from homeostat.domain.monitor import Alert, Reading
from homeostat.domain.policy import Policy
from homeostat.ports import Clock, Journal

LOG = "log "
"""How the titles of alerts about the log itself begin."""


class Alerts:
    """`troubles`: what is wrong with the log itself: cause → evidence."""

    def __init__(
        self, policy: Policy, journal: Journal, clock: Clock, troubles: Callable[[], Mapping[str, str]] = dict
    ) -> None:
        self.policy, self.journal, self.clock, self.troubles = policy, journal, clock, troubles
        self._told: Mapping[str, str] | None = None

    def open(self) -> tuple[Alert, ...]:
        """The open ones. Of the log's the evidence is that of this moment: what is lost grows."""
        last = {event.subject: event for event in self.journal.read(self.policy.name, "alert.")}
        found = [Alert(**event.body) for event in last.values() if event.kind == "alert.opened"]
        now = self.troubles() if any(alert.title.startswith(LOG) for alert in found) else {}
        return tuple(replace(alert, evidence=now.get(alert.title, alert.evidence)) for alert in found)

    def settle(self, cause: str, harm: Sequence[Reading], at: int) -> None:
        """Open the alert of a cause, or close it when the cause is gone. `at` makes the key: repeated, it writes
        nothing."""
        opened = next((alert for alert in self.open() if alert.title == cause), None)
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

    def watch_log(self) -> None:
        """One alert for each trouble of the log, as long as it lasts."""
        now = self.troubles()
        if self._told is not None and self._told.keys() == now.keys():
            return
        at = self.clock.now_ms()
        over = {alert.title for alert in self.open() if alert.title.startswith(LOG)} - now.keys()
        for cause in over:
            self.settle(cause, [], at)
        for cause, evidence in now.items():
            self.settle(cause, [Reading(cause, "log", Verdict.HARM, 0.0, 1.0, evidence)], at)
        self._told = now
