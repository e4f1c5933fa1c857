"""The loop in numbers: read from what is recorded, so that looking costs little and changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from homeostat.domain.event import LOOK
from homeostat.domain.figures import Figures, LogFigures
from homeostat.domain.monitor import SEVERITIES
from homeostat.domain.policy import Policy
from homeostat.domain.rollout import Rollout, Route, Status
from homeostat.domain.units import ALL, DAY_MS
from homeostat.engines.feedback import suspicions
from homeostat.ports import Clock, Journal, LabelLog, Rollouts, Router

TRAININGS = ("done", "failed")
_LABELS_MS = 60_000  # how often the labels are looked at


class Gauges:
    """`log` tells of the log itself."""

    def __init__(
        self,
        policy: Policy,
        journal: Journal,
        rollouts: Rollouts,
        router: Router,
        labels: LabelLog,
        clock: Clock,
        log: Callable[[], LogFigures],
    ) -> None:
        self._policy, self._journal, self._rollouts, self._router = policy, journal, rollouts, router
        self._labels, self._clock, self._log = labels, clock, log
        self._label_ms: int | None = None
        self._looked_ms = 0

    def read(self) -> Figures:
        """What is recorded by now; of labels, what had come a minute ago."""
        releases = self._rollouts.all(self._policy.name)
        routing = self._router.read()
        route = routing.in_force(self._policy.name) if self._policy.name in routing.routes else None
        return Figures(
            alerts=self._alerts(),
            releases={status.value: sum(one.status is status for one in releases) for status in Status},
            release=route.release if route else "",
            weights=dict(_weights(route)) if route else {},
            lanes=self._lanes(next((one for one in reversed(releases) if one.status.open), None)),
            trainings={what: len(self._journal.read(self._policy.name, f"training.{what}")) for what in TRAININGS},
            label_ms=self._label(),
            held=self._held(),
            log=self._log(),
        )

    def _alerts(self) -> Mapping[str, int]:
        events = self._journal.read(self._policy.name, "alert.")
        last = {event.subject: event.kind for event in events if event.kind in ("alert.opened", "alert.closed")}
        words = [subject.partition(" ")[0] for subject, kind in last.items() if kind == "alert.opened"]
        open_ones = Counter(word if word in SEVERITIES else "other" for word in words)
        return {kind: open_ones[kind] for kind in SEVERITIES}

    def _lanes(self, release: Rollout | None) -> Mapping[str, str]:
        looks = self._journal.read(self._policy.name, LOOK, release.id) if release else ()
        return {lane["name"]: lane["verdict"] for lane in looks[-1].body["lanes"]} if looks else {}

    def _held(self) -> Mapping[str, bool]:
        """Of those that the policy names, and those that are, or were, suspicious."""
        events = self._journal.read(self._policy.name, "feedback.")
        holds = suspicions(event for event in events if "from_ms" in event.body)
        now = {one.source for one in holds if one.held and one.until_ms is None}
        return {name: name in now for name in sorted({*self._policy.feedback.sources, *(one.source for one in holds)})}

    def _label(self) -> int | None:
        """When the newest one came; it is sought in twice the label horizon and a day."""
        now = self._clock.now_ms()
        if now - self._looked_ms < _LABELS_MS:
            return self._label_ms
        since = now - 2 * self._policy.data.label_horizon - DAY_MS if self._label_ms is None else self._label_ms
        newest = self._labels.read(since, now + 1)["at_ms"].max()
        self._label_ms = newest if isinstance(newest, int) else self._label_ms
        self._looked_ms = now
        return self._label_ms


def _weights(route: Route) -> Iterator[tuple[int, float]]:
    for arm, weight in zip(route.arms, route.weights, strict=False):  # no candidate: its weight is the last, and 0
        yield arm.version, weight / ALL
