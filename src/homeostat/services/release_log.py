"""What the journal tells of releases: what happened to each, what was routed, and who had a hand in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from homeostat import codec
from homeostat.domain.event import Event
from homeostat.domain.rollout import Arm, Rollout, Route, Routing, Share, Status
from homeostat.domain.units import show_share
from homeostat.ports import Clock, Journal


@dataclass(frozen=True, slots=True)
class Approval:
    """A person's word for a release."""

    at_ms: int
    who: str
    reason: str
    step: str


@dataclass(frozen=True, slots=True)
class ServedArm:
    """A version that was in the routing document, and how it came there. `share` in basis points; without
    `approvals` its evidence alone brought it there."""

    version: int
    bundle: str
    share: int
    release: str
    asked_by: str
    approvals: tuple[Approval, ...]


@dataclass(frozen=True, slots=True)
class Served:
    """What served at `at_ms`: routed at `since_ms`, under `release`, which may be an experiment. `shadow`: the arm that
    did not answer was scored too. `routed` "": nothing was in force."""

    at_ms: int
    since_ms: int | None
    release: str
    arms: tuple[ServedArm, ...]
    shadow: bool
    routed: str


class ReleaseLog:
    """Tells each revision of a record once, and each routing document once: what a pass did is told by the next one
    from what is there, so nothing is told that did not happen."""

    def __init__(self, model: str, journal: Journal, clock: Clock) -> None:
        self._model, self._journal, self._clock = model, journal, clock
        self._told: dict[str, int] = {}
        self._routed = -1

    def tell(self, records: Sequence[Rollout], routing: Routing) -> None:
        for record in records:
            if self._told.get(record.id) != record.revision:
                self._journal.append(_event(record, self._clock.now_ms()))
                self._told[record.id] = record.revision
        self._tell_route(routing)

    def _tell_route(self, routing: Routing) -> None:
        """A document that says the same as the one before it, in a new term, is not told. Another process may have
        led meanwhile, and told more: what the journal says counts."""
        if self._routed == routing.version:
            return
        route = routing.in_force(self._model) if self._model in routing.routes else None
        body = {"route": msgspec.json.decode(codec.encode(route))}  # as a journal gives it back: lists, no tuples
        if body != self._last_told():
            key, subject = f"routed:{routing.version}", route.release if route else ""
            event = Event(routing.at_ms, self._model, "release.routed", key, subject, _shares(route), body)
            self._journal.append(event)
        self._routed = routing.version

    def _last_told(self) -> Mapping[str, Any]:
        said = self._journal.read(self._model, "release.routed")
        return said[-1].body if said else {"route": None}

    def served(self, records: Sequence[Rollout], at_ms: int) -> Served:
        """What was in force at that time."""
        past = [event for event in self._journal.read(self._model, "release.routed") if event.at_ms <= at_ms]
        route = msgspec.convert(past[-1].body["route"], Route | None) if past else None
        if route is None:
            return Served(at_ms, past[-1].at_ms if past else None, "", (), False, "")
        arms = [self._arm(one.arm, one.weight, records, at_ms) for one in _all(route)]
        return Served(at_ms, past[-1].at_ms, route.release, tuple(arms), route.shadow, past[-1].text)

    def _arm(self, arm: Arm, share: int, records: Sequence[Rollout], at_ms: int) -> ServedArm:
        of_it = [one for one in records if one.candidate.bundle == arm.bundle and one.started_ms <= at_ms]
        release = of_it[-1] if of_it else None
        orders = self._journal.read(self._model, "release.ordered", release.id) if release else ()
        approvals = tuple(
            Approval(e.at_ms, e.body["who"], e.body["reason"], e.body["step"])
            for e in orders
            if e.body["order"] == "approve" and e.at_ms <= at_ms
        )
        by = release.by if release else ""
        return ServedArm(arm.version, arm.bundle, share, release.id if release else "", by, approvals)


def _shares(route: Route | None) -> str:
    if route is None:
        return "Nobody answers."
    if route.candidate is None:
        return f"Version {route.champion.version} answers all requests."
    shares = "; ".join(f"version {one.arm.version}: {show_share(one.weight)}" for one in _all(route))
    scored = ", each scored on the other's rows" if route.shadow and route.weight else ""
    scored = ", scored in shadow" if route.shadow and not route.weight else scored
    return f"V{shares[1:]}{scored}."


def _all(route: Route) -> list[Share]:
    """The champion's too."""
    return [Share(route.champion, route.weights[0]), *route.shares]


def _event(rollout: Rollout, now: int) -> Event:
    """What the record says happened last. When it began to wait is not in it: about now."""
    kind = rollout.status.value.replace(" ", "_")
    if rollout.status is Status.RUNNING:
        kind = "advanced" if rollout.revision > 2 else "started"  # the first is the asking, the second the start
    at = rollout.step_ms if rollout.status in (Status.RUNNING, Status.QUEUED) else rollout.ended_ms or now
    body = {"version": rollout.candidate.number, "step": str(rollout.step), "index": rollout.index}
    key = f"{rollout.id}:{kind}:{rollout.revision}"
    return Event(at, rollout.model, f"release.{kind}", key, rollout.id, rollout.reason, body)
