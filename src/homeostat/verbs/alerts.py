"""`project.alerts`: what is wrong, since when, why, and who has taken it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from homeostat.domain.event import Event
from homeostat.domain.monitor import Alert, of_rows
from homeostat.engines.budget import WEEK_MS, weekly
from homeostat.services.drifts import KIND
from homeostat.services.telling import commands
from homeostat.wiring.system import System


@dataclass(frozen=True, slots=True)
class Open:
    """`paused_ms`: until when nobody is told, 0: they are. `budget`: what is watched → the false alarms that it may
    raise in a week, at most."""

    alerts: Sequence[Alert]
    paused_ms: int
    budget: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Shown:
    """An alert with what was said of it since it opened, and how to look further or act."""

    alert: Alert
    history: Sequence[Event]
    commands: Sequence[str]


class AlertVerbs:
    """Alerts of one project; `who` is the user of this process."""

    def __init__(self, system: Callable[[], System], who: Callable[[], str]) -> None:
        self._system, self._who = system, who

    def list(self, over: bool = False) -> Open:
        """The open ones, or every one there was (`over`), oldest first."""
        alerts, watched = self._system().alerts, self._system().policy.monitor
        sources = max(1, len(self._system().policy.feedback.sources))
        budget = weekly(watched, counted=sum(map(self._lately, watched.rows)), sources=sources)
        return Open(alerts.all() if over else alerts.open(), alerts.paused(), budget)

    def _lately(self, count: int) -> int:
        """Windows of so many rows in the last week."""
        system = self._system()
        since = system.clock.now_ms() - WEEK_MS
        events = system.stores.journal.read(system.policy.name, KIND, of_rows(count))
        return sum(event.at_ms > since for event in events)

    def show(self, name: str) -> Shown:
        """By its name (A3). Errors: `NotFound`."""
        system = self._system()
        alert = system.alerts.find(name)
        told = system.stores.journal.read(system.policy.name, subject=alert.subject)
        held = system.stores.journal.read(system.policy.name, subject=alert.key)
        since = [event for event in (*told, *held) if alert.opened_ms <= event.at_ms]
        until = [event for event in since if alert.closed_ms is None or event.at_ms <= alert.closed_ms]
        return Shown(alert, sorted(until, key=lambda event: event.at_ms), commands(alert))

    def ack(self, name: str, reason: str = "") -> Alert:
        """Take it: it is not told any further. Errors: `NotFound`; `Refused` when it is over."""
        return self._system().alerts.ack(name, self._who(), reason)

    def accept(self, name: str, reason: str = "") -> Alert:
        """A column that was called broken is right as it is: its rows are learned from. Errors: `NotFound`,
        `Refused`."""
        return self._system().quarantine.accept(name, self._who(), reason)

    def pause(self, for_ms: int, reason: str = "") -> Event:
        """Tell nobody for so long; 0 ends it."""
        return self._system().alerts.pause(for_ms, self._who(), reason)

    def test(self) -> Mapping[str, str]:
        """A message to every channel. → name → why it did not arrive, "" where it did."""
        return self._system().teller.test()
