"""The report of one release: its weight, its lanes of evidence, its history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from homeostat.domain.event import Event
from homeostat.domain.rollout import Lane, Rollout, Status
from homeostat.domain.units import show_share
from homeostat.engines.report import svg, words
from homeostat.engines.report.page import Badge, Block, Column, Details, Facts, Figure, Section, Table, page
from homeostat.engines.report.plot import Limit, Look, Mark, Point, Series, lines
from homeostat.engines.report.rehearsal import OUTCOMES


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one pass of the loop saw."""

    at_ms: int
    weight: int
    requests: int
    lanes: tuple[Lane, ...]


@dataclass(frozen=True, slots=True)
class ReleaseView:
    """`snapshots` in order of time; `outlook` says what would change the verdict, "" when it is final."""

    rollout: Rollout
    snapshots: Sequence[Snapshot]
    history: Sequence[Event]
    outlook: str = ""


MEASURES = {"quality": ("mean difference of the loss, candidate minus champion", "label", 0.0)}
RATIO = ("ratio of rates, candidate to champion", "event", 1.0)
"""What a lane's value is, what it counts, and the value at which both versions are alike; by the lane's name."""


def release_report(view: ReleaseView) -> str:
    """HTML."""
    rollout = view.rollout
    sections = [
        Section("", [_weight(view)]),
        Section("Evidence", [*_lanes(view), _latest(view)]),
        Section("History", [_history(view.history), _record(rollout)]),
    ]
    title = f"Release {rollout.id} of {rollout.model}: {_versions(rollout)}"
    return page(title, release_sentence(view), sections, verdict=OUTCOMES[rollout.status])


def _versions(rollout: Rollout) -> str:
    before = f"version {rollout.champion.number} to " if rollout.champion else "the first, "
    return f"{before}version {rollout.candidate.number}"


def release_sentence(view: ReleaseView) -> str:
    """Where it stands and why, for page and terminal."""
    rollout, because = view.rollout, view.rollout.reason.rstrip(".")
    took = f" after {words.duration(rollout.ended_ms - rollout.started_ms)}" if rollout.ended_ms is not None else ""
    said = {
        Status.RUNNING: f"Hold at {rollout.step}",
        Status.WAITING: f"Waiting for a person at {rollout.step}",
        Status.PROMOTED: f"Version {rollout.candidate.number} was promoted{took}",
        Status.ROLLED_BACK: f"Version {rollout.candidate.number} was rolled back{took}",
        Status.REJECTED: f"Version {rollout.candidate.number} was rejected{took}",
    }[rollout.status]
    return " ".join(part for part in (f"{said}: {because}." if because else f"{said}.", view.outlook) if part)


def _weight(view: ReleaseView) -> Figure:
    points = [Point(seen.at_ms, seen.weight / 100, seen.requests) for seen in view.snapshots]
    marks = [Mark(event.at_ms, _word(event), _kind(event), event.text) for event in view.history]
    look = Look(
        "candidate's share of the requests, %", "The candidate's share over time", height=240, zero=True, steps=True,
        count="request",
    )  # fmt: skip
    series = [Series("candidate", "candidate", points)]
    return Figure(lines(series, marks, look))
