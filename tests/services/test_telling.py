"""Alerts reach people: a real webhook, its failures, pauses, and who is next when nobody answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from watching import MODEL, POLICY, World

from homeostat import codec
from homeostat.adapters.notify import NOBODY, REFUSED, AppriseChannels, channel_name
from homeostat.domain.errors import ConfigError, NotFound, Refused
from homeostat.domain.event import Event
from homeostat.domain.monitor import Alert, Severity
from homeostat.domain.policy import ChannelPolicy, Maintenance
from homeostat.domain.units import HOUR_MS, MINUTE_MS, SECOND_MS
from homeostat.services.telling import FIRST_MS, LONGEST_MS, Teller

SECRET = "b7fK29xq"


class Hook:
    """A webhook that keeps what it is sent, and fails when told to."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.status = 200
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if hook.status == 200:
                    hook.got.append(json.loads(body))
                self.send_response(hook.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.address = f"json://ada:{SECRET}@127.0.0.1:{self.server.server_port}/alerts"

    @property
    def titles(self) -> list[str]:
        return [one["title"] for one in self.got]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.close()


def watched(*channels: str | ChannelPolicy) -> tuple[World, Teller]:
    world = World(replace(POLICY, alerts=channels))
    return world, restarted(world)


def restarted(world: World) -> Teller:
    return Teller(world.policy, world.journal, world.clock, world.alerts, AppriseChannels(), channel_name)


def opened(world: World, subject: str, severity: Severity = Severity.WARNING) -> Alert:
    alert = Alert("", f"{subject} it is", "seen", world.clock.now, subject=subject, severity=severity, example="p1")
    made = world.alerts.raised(alert)
    assert made is not None
    return made


def test_each_is_told_once_when_it_opens_and_once_when_it_is_over(hook: Hook) -> None:
    world, teller = watched(hook.address)
    opened(world, "inputs amount", Severity.INFO)
    broken = opened(world, "broken amount")
    for _ in range(3):
        teller = restarted(world)
        teller.turn()
        world.clock.now += MINUTE_MS
    assert hook.titles == ["price: broken amount it is (A2, warning)"]
    assert hook.got[0]["type"] == "warning"
    assert hook.got[0]["message"].splitlines()[-4:] == [
        "homeostat alerts show A2",
        "homeostat trace p1",
        "homeostat alerts ack A2",
        "homeostat alerts accept A2",
    ]
    world.alerts.close(broken, world.clock.now)
    teller.turn()
    teller.turn()
    assert hook.titles[1:] == ["price: over: broken amount it is (A2)"]
    assert (hook.got[1]["type"], hook.got[1]["message"]) == ("success", "It lasted 3 min.")


def test_a_channel_that_fails_is_an_alert_and_is_tried_until_it_takes_the_message(hook: Hook) -> None:
    other = Hook()
    world, teller = watched(hook.address, ChannelPolicy(other.address, least="critical"))
    hook.status = 500
    lost = opened(world, "log not written", Severity.CRITICAL)
    start = world.clock.now
    while world.clock.now < start + 2 * HOUR_MS:
        teller.turn()
        world.clock.now += FIRST_MS
    (failing,) = [one for one in world.alerts.open() if one.kind == "channel"]
    assert failing.title == f"channel {channel_name(hook.address)} takes no alerts"
    assert failing.evidence.startswith(REFUSED)
    assert other.titles == ["price: log not written it is (A1, critical)"]
    world.alerts.close(lost, world.clock.now)  # it is told all the same
    hook.status = 200
    world.clock.now += LONGEST_MS
    teller.turn()
    teller.turn()
    assert hook.titles == ["price: log not written it is (A1, critical)", "price: over: log not written it is (A1)"]
    assert world.alerts.open() == ()
    other.close()


def test_no_secret_is_written_anywhere(hook: Hook, capfd: pytest.CaptureFixture[str]) -> None:
    wrong = f"nosuch://{SECRET}"
    world, teller = watched(hook.address, wrong)
    hook.status = 500
    opened(world, "performance")
    assert list(teller.test().values()) == [REFUSED, NOBODY]
    teller.turn()
    hook.close()
    world.clock.now += LONGEST_MS
    teller.turn()
    written = codec.encode([event.body for event in world.journal.read(MODEL)]).decode()
    written += repr(world.journal.read(MODEL)) + repr(world.policy) + "".join(capfd.readouterr())
    assert "alert.untold" in written
    assert SECRET not in written


def test_nobody_is_told_in_a_pause_and_what_is_open_after_it_is_told_then(hook: Hook) -> None:
    world, teller = watched(hook.address)
    world.alerts.pause(2 * HOUR_MS, "ada", "moving house")
    short, _ = opened(world, "labels"), opened(world, "performance")
    world.clock.now += HOUR_MS
    world.alerts.close(short, world.clock.now)
    teller.turn()
    assert hook.titles == []
    assert world.alerts.paused() == world.clock.now + HOUR_MS
    world.clock.now += HOUR_MS
    teller.turn()
    assert hook.titles == ["price: performance it is (A2, warning)"]
    world.alerts.pause(HOUR_MS, "ada")
    world.clock.now += SECOND_MS
    world.alerts.pause(0, "ada")
    assert world.alerts.paused() == 0


def test_nobody_is_told_in_maintenance_that_comes_round(hook: Hook) -> None:
    """The world begins on a Saturday."""
    world, teller = watched(hook.address)
    rules = (Maintenance("0 2 * * SUN", 2 * HOUR_MS), Maintenance("30 3 * * *", HOUR_MS))
    world.policy = teller.policy = replace(teller.policy, maintenance=rules)
    world.restart()
    teller.alerts = world.alerts
    begun = world.clock.now
    opened(world, "performance")
    told = []
    for hour in range(3 * 24):
        world.clock.now = begun + hour * HOUR_MS
        if world.alerts.paused():
            told.append((hour, (world.alerts.paused() - begun) / HOUR_MS))
    assert told == [(4, 4.5), (26, 28), (27, 28), (28, 28.5), (52, 52.5)]
    world.clock.now = begun + 27 * HOUR_MS
    world.alerts.pause(0, "ada")
    teller.turn()
    assert hook.titles == []
    world.clock.now = begun + 29 * HOUR_MS
    teller.turn()
    assert hook.titles == ["price: performance it is (A1, warning)"]


def test_a_schedule_of_maintenance_that_is_none_is_an_error_from_the_beginning_on() -> None:
    with pytest.raises(ConfigError, match=r"'sundays' is not a schedule.*\n?"):
        World(replace(POLICY, maintenance=(Maintenance("sundays", HOUR_MS),)))


def test_what_nobody_takes_goes_further(hook: Hook) -> None:
    world, teller = watched(ChannelPolicy(hook.address, after=4 * HOUR_MS))
    opened(world, "performance")
    opened(world, "labels")
    assert world.alerts.ack("A2", "ada", "on it").acked == "ada"
    teller.turn()
    world.clock.now += 4 * HOUR_MS
    assert hook.titles == []
    teller.turn()
    assert hook.titles == ["price: performance it is (A1, warning)"]
    with pytest.raises(NotFound):
        world.alerts.ack("A3", "ada")
    world.alerts.settle("labels", None, world.clock.now)
    with pytest.raises(Refused, match="A2 is over"):
        world.alerts.ack("A2", "ada")


def test_alerts_of_an_older_version_are_read_and_end() -> None:
    world, _ = watched()
    old = {"key": "k", "title": "inputs drifted (1 d window)", "evidence": "amount", "opened_ms": 5, "closed_ms": None}
    world.journal.append(Event(5, MODEL, "alert.opened", "alert.opened:k", old["title"], "", old))
    (alert,) = world.alerts.open()
    assert (alert.name, alert.kind, alert.severity, alert.columns) == ("A1", "inputs", Severity.INFO, ())
    world.day()
    world.day()
    assert world.alerts.open() == ()
