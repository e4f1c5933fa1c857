"""The report of one release: its weight, its lanes of evidence, its history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from homeostat.domain.event import Event
from homeostat.domain.rollout import Lane, Rollout, Status
from homeostat.engines.report import svg, words
from homeostat.engines.report.page import Badge, Cell, Column, Details, Facts, Figure, Section, Table, page
from homeostat.engines.report.plot import EventKind, Limit, Look, Mark, Point, Series, lines
from homeostat.engines.report.rehearsal import OUTCOMES, sign_of


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


FLOOR = 0.01
"""The smallest E drawn: below it the evidence is against harm, and how far does not matter."""

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
        Status.QUEUED: "Queued",
        Status.RUNNING: f"Hold at {rollout.step}",
        Status.WAITING: f"Waiting for a person at {rollout.step}",
        Status.PROMOTED: f"Version {rollout.candidate.number} was promoted{took}",
        Status.ROLLED_BACK: f"Version {rollout.candidate.number} was rolled back{took}",
        Status.REJECTED: f"Version {rollout.candidate.number} was rejected{took}",
        Status.SUPERSEDED: f"Version {rollout.candidate.number} was superseded{took}",
    }[rollout.status]
    return " ".join(part for part in (f"{said}: {because}." if because else f"{said}.", view.outlook) if part)


def _weight(view: ReleaseView) -> Figure:
    points = [Point(seen.at_ms, seen.weight / 100, seen.requests) for seen in view.snapshots]
    marks = [Mark(event.at_ms, *_sign(event), event.text) for event in view.history]
    look = Look(
        "candidate's share of the requests, %",
        "The candidate's share over time",
        height=240,
        zero=True,
        steps=True,
        count="request",
    )
    return Figure(lines([Series("candidate", "candidate", points)], marks, look))


def _sign(event: Event) -> tuple[str, EventKind]:
    return sign_of(event) or (event.kind.rpartition(".")[2].replace("_", " "), "note")


def _lanes(view: ReleaseView) -> Iterator[Figure]:
    """Two small plots a lane: how strong the evidence of harm is, and the value with its interval."""
    names = dict.fromkeys(lane.name for seen in view.snapshots for lane in seen.lanes)
    for name in names:
        course = [(seen.at_ms, lane) for seen in view.snapshots for lane in seen.lanes if lane.name == name]
        unit, noun, alike = MEASURES.get(name, RATIO)
        pair = svg.tag("div", _evidence(name, noun, course), _value(unit, noun, alike, course), class_="multiples wide")
        yield Figure(pair)


def _evidence(name: str, noun: str, course: Sequence[tuple[int, Lane]]) -> Markup:
    points = [Point(at_ms, max(lane.evidence, FLOOR), lane.n) for at_ms, lane in course]
    threshold = course[-1][1].threshold
    limits = (Limit(threshold, f"harm at {words.short(threshold)}"),) if threshold > 0 else ()
    unit = f"{name}: evidence of harm, E"
    look = Look(unit, unit, width=536, height=220, log=True, count=noun, limits=limits)
    return lines([Series("E", "candidate", points)], (), look)


def _value(unit: str, noun: str, alike: float, course: Sequence[tuple[int, Lane]]) -> Markup:
    points = [Point(at_ms, lane.value, lane.n, lane.low, lane.high) for at_ms, lane in course]
    look = Look(unit, unit, width=536, height=220, count=noun, limits=(Limit(alike, "alike", "ok"),))
    return lines([Series("", "candidate", points)], (), look)


def _latest(view: ReleaseView) -> Table:
    """What each lane says now."""
    columns = [
        Column("Lane"),
        Column("verdict"),
        Column("E", True),
        Column("harm at", True),
        Column("value and interval", True),
        Column("count", True),
        Column("because"),
    ]
    lanes = view.snapshots[-1].lanes if view.snapshots else ()
    return Table(columns, [_lane(lane) for lane in lanes], empty="No evidence yet.")


def _lane(lane: Lane) -> Sequence[Cell]:
    count = words.counted(lane.n, MEASURES.get(lane.name, RATIO)[1])
    span = words.interval(lane.value, lane.low, lane.high)
    evidence, threshold = words.number(lane.evidence), words.short(lane.threshold)
    return lane.name, Badge(lane.verdict), evidence, threshold, span, count, lane.reason


def _history(history: Sequence[Event]) -> Table:
    rows = [(words.time(event.at_ms), event.kind, event.text) for event in history]
    return Table([Column("When"), Column("what"), Column("why")], rows, empty="Nothing yet.")


def _record(rollout: Rollout) -> Details:
    facts = [
        ("Candidate's bundle", rollout.candidate.bundle),
        ("Candidate's run", rollout.candidate.run),
        ("Champion's bundle", rollout.champion.bundle if rollout.champion else "none: the first release"),
        ("Steps", ", ".join(map(str, rollout.steps))),
        ("Slow means", f"over {rollout.slow_us / 1_000:,.3g} ms"),
        ("Started", words.time(rollout.started_ms)),
    ]
    return Details("The record of this release", [Facts(facts)])
