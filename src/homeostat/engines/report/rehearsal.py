"""The report of a rehearsal: what the loop would have done on this history, beside doing nothing and doing much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from homeostat.domain.event import Event
from homeostat.domain.gate import Verdict
from homeostat.domain.rehearsal import Course, RehearsalResult
from homeostat.domain.rollout import Rollout, Status
from homeostat.engines.report import words
from homeostat.engines.report.page import Badge, Block, Cell, Column, Details, Facts, Figure, Section, Table, Text, page
from homeostat.engines.report.plot import EventKind, Look, Mark, Point, Series, lines
from homeostat.engines.report.scenario import injected, reaction_marks
from homeostat.engines.report.small import Bar, bars

FOLD_FROM = 15
"""Tables with more rows are folded."""


SIGNS: dict[str, tuple[str, EventKind]] = {
    "release.rolled_back": ("rollback", "harm"),
    "release.rejected": ("rejected", "invalid"),
    "release.promoted": ("release", "ok"),
    "alert.opened": ("alert", "unknown"),
    "run.": ("training", "note"),
    "training.": ("training", "note"),
}
"""Kinds of event that the plot marks, by prefix: the word and the shape. Others stand in the table only."""


def rehearsal_report(view: RehearsalResult) -> str:
    """HTML."""
    span = f"{words.day(view.from_ms)} to {words.day(view.until_ms)}"
    sections = [
        Section("", [_curves(view), Text(_against_weekly(view))]),
        *([Section("What was injected, and what the loop did", injected(view))] if view.reactions else []),
        Section("What it cost, what it gave", [_comparison(view), _trainings(view)]),
        Section("Releases", [_folded("releases", _releases(view.releases))]),
        Section("What happened", [_folded("events", _happened(view.events)), _details(view)]),
    ]
    return page(f"Rehearsal of {view.model}, {span}", rehearsal_sentence(view), sections)


def rehearsal_sentence(view: RehearsalResult) -> str:
    """What happened and what it means, for page and terminal."""
    name, loop, frozen = words.metric(view.loop.whole.metric), view.loop.whole.value, view.frozen.whole.value
    asked = f"{words.counted(view.settled, 'decision')} left to the best estimate" if view.settled else ""
    cost = [
        words.counted(view.loop.trainings, "training"),
        words.counted(view.rollbacks, "rollback"),
        asked or "nothing asked of you",
        words.counted(view.failed_requests, "failed request") if view.failed_requests else "",
    ]
    better = loop > frozen if view.higher_is_better else loop < frozen
    kept = f"The loop kept {name} at {words.number(loop)}" if better else f"The loop had {name} {words.number(loop)}"
    alone = f"a model left alone would have {_moved(view) if better else 'had'} {words.number(frozen)}"
    return f"{kept}; {alone}. {', '.join(part for part in cost if part)}."


def _moved(view: RehearsalResult) -> str:
    return "fallen to" if view.higher_is_better else "risen to"


def _against_weekly(view: RehearsalResult) -> str:
    loop, frozen, weekly = (course.whole.value for course in (view.loop, view.frozen, view.weekly))
    gain = (weekly - frozen) if view.higher_is_better else (frozen - weekly)
    spent = f"{words.counted(view.loop.trainings, 'training')} instead of {view.weekly.trainings:,}"
    if not gain > 0:
        return f"A model retrained every week would have had {words.number(weekly)}: no better than one left alone."
    share = (loop - frozen) / (weekly - frozen)
    return (
        f"A model retrained every week would have had {words.number(weekly)}. "
        f"The loop won {words.percent(share)} of that gain with {spent}."
    )


def _curves(view: RehearsalResult) -> Figure:
    name = words.metric(view.loop.whole.metric)
    series = [
        Series("weekly", "scheduled", _points(view.weekly)),
        Series("left alone", "frozen", _points(view.frozen)),
        Series("loop", "champion", _points(view.loop)),
    ]
    look = Look(name, f"{name} over time: the loop, a model left alone, one retrained weekly", height=400)
    better = "higher" if view.higher_is_better else "lower"
    caption = (
        f"{name} on labelled rows, {words.duration(view.period_ms)} a point; {better} is better. Bands are "
        f"95 % intervals. {_key(view)}"
    )
    marks = [*reaction_marks(view.reactions), *_marks(view.events)]
    return Figure(lines(series, marks, look), caption)


def _points(course: Course) -> list[Point]:
    return [Point(at_ms, m.value, m.n, m.low, m.high) for at_ms, m in course.periods]


def _key(view: RehearsalResult) -> str:
    shapes = {"harm": "triangle", "invalid": "cross", "ok": "dot", "unknown": "ring", "note": "square"}
    seen = dict.fromkeys(sign for sign in map(sign_of, view.events) if sign)
    if view.reactions:
        seen["injected", "invalid"] = None
    return "Marks: " + ", ".join(f"{shapes[kind]} {word}" for word, kind in seen) + "." if seen else ""


def sign_of(event: Event) -> tuple[str, EventKind] | None:
    return next((sign for prefix, sign in SIGNS.items() if event.kind.startswith(prefix)), None)


def _marks(events: Sequence[Event]) -> Iterator[Mark]:
    for event in events:
        if sign := sign_of(event):
            yield Mark(event.at_ms, sign[0], sign[1], event.text)


def _comparison(view: RehearsalResult) -> Table:
    name = words.metric(view.loop.whole.metric)
    columns = [Column("The model"), Column(name, True), Column("labelled rows", True), Column("trainings", True)]
    courses = {"kept by the loop": view.loop, "left alone": view.frozen, "retrained every week": view.weekly}
    return Table(columns, [_course(label, course) for label, course in courses.items()])


def _course(label: str, course: Course) -> Sequence[Cell]:
    whole = course.whole
    return label, words.interval(whole.value, whole.low, whole.high), f"{whole.n:,}", f"{course.trainings:,}"


def _trainings(view: RehearsalResult) -> Figure:
    rows = [
        Bar("loop", view.loop.trainings, words.counted(view.loop.trainings, "training"), "champion"),
        Bar("left alone", view.frozen.trainings, words.counted(view.frozen.trainings, "training"), "frozen"),
        Bar("weekly", view.weekly.trainings, words.counted(view.weekly.trainings, "training"), "scheduled"),
    ]
    return Figure(bars(rows, "Trainings"))


OUTCOMES = {
    Status.QUEUED: Verdict.UNKNOWN,
    Status.RUNNING: Verdict.UNKNOWN,
    Status.WAITING: Verdict.UNKNOWN,
    Status.PROMOTED: Verdict.OK,
    Status.ROLLED_BACK: Verdict.HARM,
    Status.REJECTED: Verdict.INVALID,
    Status.SUPERSEDED: Verdict.INVALID,
}


def _releases(releases: Sequence[Rollout]) -> Table:
    columns = [
        Column("Release"),
        Column("version", True),
        Column("started"),
        Column("took", True),
        Column("outcome"),
        Column("because"),
    ]
    return Table(columns, [_release(release) for release in releases], empty="No release.")


def _release(release: Rollout) -> Sequence[Cell]:
    took = words.duration(release.ended_ms - release.started_ms) if release.ended_ms is not None else "under way"
    outcome = Badge(OUTCOMES[release.status], release.status.value)
    started = words.time(release.started_ms)
    return release.id, str(release.candidate.number), started, took, outcome, release.reason


def _happened(events: Sequence[Event]) -> Table:
    columns = [Column("When"), Column("what"), Column("about"), Column("evidence")]
    rows = [(words.time(event.at_ms), event.kind, event.subject, event.text) for event in events]
    return Table(columns, rows, empty="Nothing.")


def _folded(noun: str, table: Table) -> Block:
    if len(table.rows) <= FOLD_FROM:
        return table
    return Details(f"All {len(table.rows):,} {noun}, with their evidence", [table])


def _details(view: RehearsalResult) -> Details:
    facts = [
        ("Rows streamed", f"{view.rows:,}"),
        ("From", words.time(view.from_ms)),
        ("To", words.time(view.until_ms)),
        ("A label is used after", words.duration(view.label_horizon_ms)),
        ("Failed requests", f"{view.failed_requests:,}"),
        ("Settled by the best estimate", words.counted(view.settled, "decision")),
        ("Seed", str(view.seed)),
        ("The rehearsal took", words.duration(view.wall_ms)),
    ]
    method = (
        "Every row went through the real serving code and the real control loop, in event time, on a simulated "
        "clock. Both baselines use the same training function and the same window, and labels only after their "
        "horizon. The model left alone is the first champion, never changed."
    )
    return Details("How this was measured", [Text(method), Facts(facts)])
