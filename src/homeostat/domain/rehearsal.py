"""What a rehearsal found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from homeostat.domain.event import Event
from homeostat.domain.gate import Measurement
from homeostat.domain.rollout import Rollout, Status
from homeostat.domain.scenario import Reaction
from homeostat.domain.units import iso


@dataclass(frozen=True, slots=True)
class Course:
    """One way to run the model: its metric on all rows, and on those of each period (by its middle, in ms); what it
    cost: trainings, probes that asked whether one would help, and the rows of all their fits, each as often as it was
    fitted. Seconds are not counted: they differ from one machine and day to the next. `value`: what all its answers
    were worth, None where the policy does not say."""

    whole: Measurement
    periods: tuple[tuple[int, Measurement], ...]
    trainings: int
    fitted: int
    probes: int = 0
    value: float | None = None


@dataclass(frozen=True, slots=True, repr=False)
class RehearsalResult:
    """The loop beside a champion frozen at the start and one retrained every week, on the same `rows` rows.

    `period_ms`: the event time that each period covers. `settled`: decisions that would have been a person's and that
    the best estimate took instead. `reactions`: one for each injection; `false_alarms`: the alerts outside of their
    effects, None where nothing was injected. `report`: where the HTML is.
    """

    model: str
    rows: int
    from_ms: int
    until_ms: int
    period_ms: int
    label_horizon_ms: int
    higher_is_better: bool
    loop: Course
    frozen: Course
    weekly: Course
    releases: tuple[Rollout, ...]
    events: tuple[Event, ...]
    settled: int
    failed_requests: int
    seed: int
    wall_ms: int
    report: str = ""
    reactions: tuple[Reaction, ...] = ()
    false_alarms: int | None = None

    @property
    def rollbacks(self) -> int:
        return sum(release.status is Status.ROLLED_BACK for release in self.releases)

    def __repr__(self) -> str:
        ways = (("loop", self.loop), ("left alone", self.frozen), ("retrained weekly", self.weekly))
        lines = [f"Rehearsal of {self.model}, {iso(self.from_ms)} to {iso(self.until_ms)}, {self.rows:,} rows"]
        lines += [f"  {name}: {course.whole}; {course.trainings} trainings" for name, course in ways]
        lines.append(f"  {self.rollbacks} rollbacks, {self.failed_requests} failed requests; report: {self.report}")
        return "\n".join(lines)

    def json(self) -> Mapping[str, Any]:
        """The result as plain JSON, times in ISO 8601."""
        return {
            "rows": self.rows,
            "from": iso(self.from_ms),
            "to": iso(self.until_ms),
            "metric": self.loop.whole.metric,
            "loop": self.loop.whole.value,
            "frozen": self.frozen.whole.value,
            "weekly": self.weekly.whole.value,
            "trainings": self.loop.trainings,
            "weekly_trainings": self.weekly.trainings,
            "probes": self.loop.probes,
            "rows_fitted": self.loop.fitted,
            "weekly_rows_fitted": self.weekly.fitted,
            "value": self.loop.value,
            "frozen_value": self.frozen.value,
            "weekly_value": self.weekly.value,
            "releases": [_release(release) for release in self.releases],
            "rollbacks": self.rollbacks,
            "settled_by_best_estimate": self.settled,
            "failed_requests": self.failed_requests,
            "injections": [reaction.json() for reaction in self.reactions],
            "false_alarms": self.false_alarms,
            "wall_s": self.wall_ms / 1_000,
            "report": self.report,
        }


def _release(release: Rollout) -> Mapping[str, Any]:
    return {
        "id": release.id,
        "version": release.candidate.number,
        "started": iso(release.started_ms),
        "ended": iso(release.ended_ms) if release.ended_ms is not None else None,
        "outcome": release.status.value,
        "reason": release.reason,
    }
