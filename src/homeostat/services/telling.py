"""Who is told of which alert: each channel once when it opens and once when it is over, again and again until it is
delivered. At least once: a crash between the message and its note tells twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from homeostat.domain.event import Event
from homeostat.domain.monitor import Alert, Severity
from homeostat.domain.policy import ChannelPolicy, Policy
from homeostat.domain.units import HOUR_MS, SECOND_MS, iso, show_duration
from homeostat.ports import Channels, Clock, Journal
from homeostat.services.alerts import Alerts

FIRST_MS, LONGEST_MS = 15 * SECOND_MS, HOUR_MS
"""A channel that failed is tried again after the first, then ever more slowly."""


@dataclass(frozen=True, slots=True)
class Message:
    """`what`: opened or over."""

    alert: Alert
    what: str


class Teller:
    """`name_of` gives what the journal may call a channel: its address holds secrets."""

    def __init__(
        self,
        policy: Policy,
        journal: Journal,
        clock: Clock,
        alerts: Alerts,
        channels: Channels,
        name_of: Callable[[str], str],
    ) -> None:
        self.policy, self.journal, self.clock = policy, journal, clock
        self.alerts, self.channels, self.name_of = alerts, channels, name_of
        self._again: dict[str, tuple[int, int]] = {}

    def turn(self) -> None:
        """Tell what is due, unless alerts are paused."""
        if self.policy.channels and not self.alerts.paused():
            for channel in self.policy.channels:
                self._channel(channel, self.name_of(channel.to))

    def test(self) -> dict[str, str]:
        """A message to every channel. → name → why it did not arrive, "" where it did. Errors: `ConfigError` for a
        channel whose variable is not set."""
        self.policy.check_addresses()
        title, text = f"{self.policy.name}: a test", "Asked for by `homeostat alerts test`. Nothing is wrong."
        told = self.policy.channels
        return {self.name_of(one.to): self.channels.tell(one.to, title, text, "info") for one in told}

    def _channel(self, channel: ChannelPolicy, name: str) -> None:
        now = self.clock.now_ms()
        at_ms, wait = self._again.get(name, (0, FIRST_MS))
        if now < at_ms:
            return
        for message in list(self._due(channel, name)):
            severity = str(message.alert.severity) if message.what == "opened" else "over"
            failure = self.channels.tell(channel.to, *_said(self.policy.name, message), severity)
            self._note(message, name, failure)
            if failure:
                self._again[name] = now + wait, min(2 * wait, LONGEST_MS)
                evidence = f"{failure}; it is tried again until it does"
                self.alerts.raised(
                    Alert("", f"channel {name} takes no alerts", evidence, now, subject=f"channel {name}")
                )
                return
            self._again.pop(name, None)
            self.alerts.settle(f"channel {name}", None, now)

    def _due(self, channel: ChannelPolicy, name: str) -> Iterator[Message]:
        """Oldest first. What was over before anybody could be told of it, because alerts were paused, is told to
        nobody; what failed is told even then."""
        events = self.journal.read(self.policy.name, "alert.")
        about = [event for event in events if event.body.get("channel") == name]
        told = {(event.body["alert"], event.body["what"]) for event in about if event.kind == "alert.told"}
        tried = {event.body["alert"] for event in about}
        waited = self.clock.now_ms() - channel.after
        for alert in self.alerts.all():
            if (alert.key, "opened") in told:
                if alert.closed_ms is not None and (alert.key, "over") not in told:
                    yield Message(alert, "over")
                continue
            taken = channel.after and alert.acked
            loud = alert.severity.rank >= Severity(channel.least).rank and alert.subject != f"channel {name}"
            if loud and not taken and alert.opened_ms <= waited and (alert.closed_ms is None or alert.key in tried):
                yield Message(alert, "opened")

    def _note(self, message: Message, name: str, failure: str) -> None:
        alert, verb = message.alert, "untold" if failure else "told"
        text = f"{alert.name} {message.what}: {name} " + (f"was not told: {failure}" if failure else "was told")
        body = {"alert": alert.key, "what": message.what, "channel": name}
        key = f"alert.{verb}:{message.what}:{name}:{alert.key}"
        event = Event(self.clock.now_ms(), self.policy.name, f"alert.{verb}", key, alert.subject, text, body)
        self.journal.append(event)


def _said(model: str, message: Message) -> tuple[str, str]:
    """→ title, text."""
    alert = message.alert
    if message.what == "over":
        lasted = show_duration((alert.closed_ms or alert.opened_ms) - alert.opened_ms)
        return f"{model}: over: {alert.title} ({alert.name})", f"It lasted {lasted}."
    causes = [f"{number}. {cause.words}" for number, cause in enumerate(alert.causes, 1)]
    lines = [f"{alert.evidence}.", f"Since {iso(alert.opened_ms)}.", *(["Likely causes:"] if causes else []), *causes]
    return f"{model}: {alert.title} ({alert.name}, {alert.severity})", "\n".join([*lines, *commands(alert)])


def commands(alert: Alert) -> list[str]:
    """How to look further, or to act."""
    found = [f"homeostat alerts show {alert.name}"]
    if alert.kind in ("inputs", "predictions"):
        found.append(f"homeostat monitor explain {iso(alert.opened_ms - alert.window_ms)}..{iso(alert.opened_ms)}")
    if alert.kind == "performance":
        found.append("homeostat monitor report")
    if alert.example:
        found.append(f"homeostat trace {alert.example}")
    if alert.closed_ms is None:
        found += [f"homeostat alerts ack {alert.name}"]
        found += [f"homeostat alerts accept {alert.name}"] if alert.kind == "broken" else []
        found += ["homeostat retrain"] if alert.kind in ("inputs", "predictions", "performance") else []
    return found
