"""Alerts: one a cause, open until the cause is gone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace

from homeostat.domain.errors import NotFound, Refused
from homeostat.domain.event import Event
from homeostat.domain.monitor import SEVERITIES, Alert, Cause, Reading, Severity, Window
from homeostat.domain.policy import Policy
from homeostat.domain.units import iso
from homeostat.engines import causes, maintenance
from homeostat.engines.drift.profile import PREDICTION
from homeostat.engines.drift.refused import REQUESTS
from homeostat.engines.drift.refused import TEST as REFUSALS
from homeostat.ports import Clock, Journal

LOG = "log "
"""How the subjects of alerts about the log itself begin."""
LOST = "log not written"
"""The one trouble of the log that can't wait."""


class Alerts:
    """`troubles`: what is wrong with the log itself: cause → evidence."""

    def __init__(
        self, policy: Policy, journal: Journal, clock: Clock, troubles: Callable[[], Mapping[str, str]] = dict
    ) -> None:
        self.policy, self.journal, self.clock, self.troubles = policy, journal, clock, troubles
        self._told: Mapping[str, str] | None = None
        self._all: tuple[int, tuple[Alert, ...]] = 0, ()
        maintenance.until(policy.maintenance, clock.now_ms())  # a mistyped schedule is an error from the beginning on

    def all(self) -> tuple[Alert, ...]:
        """Every one there was, oldest first, with its name (A1, A2, …) and who has taken it."""
        events = self.journal.read(self.policy.name, "alert.")
        if len(events) != self._all[0]:  # nothing is ever changed in a journal, or taken out
            self._all = len(events), _made(events)
        return self._all[1]

    def open(self) -> tuple[Alert, ...]:
        """The open ones. Of the log's the evidence is that of this moment: what is lost grows."""
        found = [alert for alert in self.all() if alert.closed_ms is None]
        now = self.troubles() if any(alert.kind == "log" for alert in found) else {}
        return tuple(replace(alert, evidence=now.get(alert.subject, alert.evidence)) for alert in found)

    def on(self, subject: str) -> Alert | None:
        """The open alert of a subject."""
        return next((one for one in self.all() if one.subject == subject and one.closed_ms is None), None)

    def find(self, name: str) -> Alert:
        """By its name or its key. Errors: `NotFound`."""
        every = self.all()
        found = next((one for one in every if name in (one.name, one.key)), None)
        if found is None:
            newest = ", ".join(one.name for one in every[-5:])
            way_out = f"The newest are: {newest}." if newest else "There was none yet."
            raise NotFound(f"there is no alert {name!r}", way_out=way_out)
        return found

    def ack(self, name: str, by: str, reason: str = "") -> Alert:
        """Somebody takes it: it goes no further. Errors: `NotFound`; `Refused` when it is over."""
        alert = self.find(name)
        if alert.closed_ms is not None:
            raise Refused(f"alert {alert.name} is over", way_out="`homeostat alerts list` shows the open ones.")
        text = f"{alert.name} is taken by {by}" + (f": {reason}" if reason else "")
        self._write("acked", alert, self.clock.now_ms(), text, {"key": alert.key, "by": by, "reason": reason})
        return self.find(name)

    def pause(self, for_ms: int, by: str, reason: str = "") -> Event:
        """Nobody is told for so long; 0 ends it, though not maintenance that is due. Alerts open and close meanwhile,
        and what is open after it is told then."""
        now, why = self.clock.now_ms(), f": {reason}" if reason else ""
        text = f"{by} pauses alerts until {iso(now + for_ms)}{why}" if for_ms else f"{by} ends the pause{why}"
        body = {"until_ms": now + for_ms, "by": by, "reason": reason}
        event = Event(now, self.policy.name, "alert.paused", f"alert.paused:{now}", "pause", text, body)
        self.journal.append(event)
        return event

    def paused(self) -> int:
        """Until when (ms) nobody is told, because a person said so or maintenance is due; 0: they are."""
        said, now = self.journal.read(self.policy.name, "alert.paused"), self.clock.now_ms()
        asked = int(said[-1].body["until_ms"]) if said else 0
        return max(asked if asked > now else 0, maintenance.until(self.policy.maintenance, now))

    def raised(self, alert: Alert) -> Alert | None:
        """Open it, unless one of its subject is open. `opened_ms` makes the key: repeated, it writes nothing."""
        if self.on(alert.subject):
            return None
        kind = alert.subject.partition(" ")[0]
        kind = kind if kind in SEVERITIES else "other"
        made = replace(alert, key=f"{alert.subject}:{alert.opened_ms}", kind=kind)
        self._write("opened", made, made.opened_ms, f"{made.title}: {made.evidence}", asdict(made))
        return made

    def explained(self, since_ms: int, at_ms: int) -> None:
        """Drift and refusals told since a fault began, of columns that are all known to be broken by now, are no cause
        of their own."""
        broken = {column: one.name for one in self.open() if one.kind == "broken" for column in one.columns}
        for one in self.open():
            inputs = [column for column in one.columns if column != PREDICTION]
            if (
                one.kind in ("inputs", "requests")
                and one.opened_ms > since_ms
                and inputs
                and {*inputs} <= broken.keys()
            ):
                names = ", ".join(sorted({broken[column] for column in inputs}))
                self.close(one, at_ms, f"no cause of its own, but a fault: {names}")

    def close(self, alert: Alert, at_ms: int, words: str = "over") -> None:
        closed = replace(alert, closed_ms=at_ms, name="", acked="")
        self._write("closed", closed, at_ms, f"{alert.title}: {words}", asdict(closed))

    def settle(self, subject: str, alert: Alert | None, at_ms: int) -> None:
        """Open the alert of a subject, or close it (None) when the cause is gone."""
        opened = self.on(subject)
        if alert is not None and opened is None:
            self.raised(alert)
        elif alert is None and opened is not None:
            self.close(opened, at_ms)

    def drifted(
        self,
        readings: Sequence[Reading],
        window: Window,
        example: Callable[[Reading], str],
        refused: Callable[[], str],
        importance: Mapping[str, float],
    ) -> None:
        """One alert for all that begins to move in one window; `example` gives the id of a prediction that shows what a
        reading says, `refused` that of a refused request. `importance`: field → what the loss rises by without it."""
        self._refused([one for one in readings if one.test == REFUSALS], window, refused)
        readings = [one for one in readings if one.test != REFUSALS]
        settled = causes.settle(self.all(), readings, window, importance)
        for one in settled.over:
            self.close(one, window.end_ms)
        if not settled.columns:
            return
        moved = causes.strongest(readings)
        reasons = "; ".join(moved[column].reason for column in settled.columns)
        inputs = [column for column in settled.columns if column != PREDICTION]
        subject = f"inputs {causes.named(inputs)}" if inputs else "predictions"
        self.raised(
            Alert(
                key="",
                title=causes.title(settled.columns),
                evidence=f"{reasons} (window of {window.words})",
                opened_ms=window.end_ms,
                subject=subject,
                severity=Severity.INFO,
                columns=settled.columns,
                window_ms=window.length_ms,
                window_rows=window.count,
                causes=() if inputs else self.likely("predictions", window.start_ms, window.end_ms),
                example=example(moved[settled.columns[0]]),
            )
        )

    def _refused(self, readings: Sequence[Reading], window: Window, example: Callable[[], str]) -> None:
        """Callers whose requests are refused are harmed, whatever the model does; a broken column that is named is the
        cause of it."""
        settled = causes.settle(self.all(), readings, window, kinds=causes.REFUSED)
        for one in settled.over:
            self.close(one, window.end_ms)
        if not settled.columns:
            return
        moved = causes.strongest(readings)
        fields = causes.named([column for column in settled.columns if column != REQUESTS])
        reasons = "; ".join(moved[column].reason for column in settled.columns)
        self.raised(
            Alert(
                key="",
                title=f"requests are refused for {fields}" if fields else "requests are refused",
                evidence=f"{reasons} (window of {window.words})",
                opened_ms=window.end_ms,
                subject=f"requests {fields}".strip(),
                columns=settled.columns,
                window_ms=window.length_ms,
                window_rows=window.count,
                example=example(),
            )
        )

    def likely(self, kind: str, from_ms: int, until_ms: int) -> tuple[Cause, ...]:
        """What may be behind an alert of this kind that began at `from_ms`."""
        return causes.likely(kind, self.all(), self.journal.read(self.policy.name), from_ms, until_ms)

    def watch_log(self) -> None:
        """One alert for each trouble of the log, as long as it lasts."""
        now = self.troubles()
        if self._told is not None and self._told.keys() == now.keys():
            return
        at = self.clock.now_ms()
        for alert in self.open():
            if alert.kind == "log" and alert.subject not in now:
                self.close(alert, at)
        for cause, evidence in now.items():
            severity = Severity.CRITICAL if cause == LOST else Severity.WARNING
            self.raised(Alert("", cause, evidence, at, subject=cause, severity=severity))
        self._told = now

    def _write(self, verb: str, alert: Alert, at_ms: int, text: str, body: Mapping[str, object]) -> None:
        key = f"alert.{verb}:{alert.key}"
        self.journal.append(Event(at_ms, self.policy.name, f"alert.{verb}", key, alert.subject, text, body))


def _made(events: Sequence[Event]) -> tuple[Alert, ...]:
    made: dict[str, Alert] = {}
    for event in events:
        key = str(event.body.get("key", ""))
        if event.kind == "alert.opened":
            made[key] = replace(Alert.read(event.body, event.subject), name=f"A{len(made) + 1}")
        elif event.kind == "alert.closed" and key in made:
            made[key] = replace(made[key], closed_ms=event.at_ms)
        elif event.kind == "alert.acked" and key in made:
            made[key] = replace(made[key], acked=str(event.body["by"]))
    return tuple(made.values())
