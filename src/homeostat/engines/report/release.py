"""The report of one release: where it stands and what comes next; its lanes of evidence; its history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from markupsafe import Markup

from homeostat.domain.backtest import Backtested
from homeostat.domain.event import Event
from homeostat.domain.outlook import FUTURES, Assumed, Forecast, Outlook
from homeostat.domain.report import Needs
from homeostat.domain.rollout import Lane, Rollout, Status
from homeostat.domain.units import show_share
from homeostat.engines.looks import FLOOR
from homeostat.engines.report import outlook as ahead
from homeostat.engines.report import svg, words
from homeostat.engines.report.backtest import backtest_section
from homeostat.engines.report.needs import needs
from homeostat.engines.report.outlook import Says, says
from homeostat.engines.report.page import Badge, Block, Cell, Column, Details, Facts, Figure, Section, Table, Text, page
from homeostat.engines.report.plot import EventKind, Limit, Look, Mark, Point, Series, lines
from homeostat.engines.report.rehearsal import OUTCOMES, sign_of
from homeostat.engines.report.strip import Stretch, Strip, strips


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one pass of the loop saw, and why it moved or held."""

    at_ms: int
    weight: int
    requests: int
    lanes: tuple[Lane, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ReleaseView:
    """`snapshots` of live requests, in order of time; `backtest`: of recorded ones, before them. `holds`: why it holds
    now, "" when it is over. `needs`: what the candidate needs, beside the champion. `tolerated`: by a lane's name, the
    value at which the candidate is as bad as it may be."""

    rollout: Rollout
    snapshots: Sequence[Snapshot]
    history: Sequence[Event]
    holds: str = ""
    outlook: Outlook | None = None
    tolerated: Mapping[str, float] = field(default_factory=dict)
    backtest: Backtested | None = None
    needs: Needs | None = None

    @property
    def latest(self) -> tuple[Lane, ...]:
        """What decides: live evidence, once there is any."""
        recorded = self.backtest.lanes if self.backtest else ()
        return self.snapshots[-1].lanes if self.snapshots else recorded

    def course(self, name: str) -> list[tuple[Snapshot, Lane]]:
        """A lane over time."""
        return [(seen, lane) for seen in self.snapshots for lane in seen.lanes if lane.name == name]

    @property
    def names(self) -> list[str]:
        """Of the lanes, in the order in which they were first seen."""
        return list(dict.fromkeys(lane.name for seen in self.snapshots for lane in seen.lanes))


def release_report(view: ReleaseView) -> str:
    """HTML."""
    rollout = view.rollout
    sections = [
        Section("", [*(_pictures(view) if view.snapshots else ()), _latest(view)]),
        *([Section("What comes next", _next(rollout, view.outlook))] if view.outlook else []),
        *(Section(says(name).title, _lane(view, name)) for name in view.names),
        *([backtest_section(view.backtest)] if view.backtest else []),
        *([Section("What it needs", list(needs(view.needs)))] if view.needs else []),
        Section("History", [_history(view.history), _looks(view), _record(rollout), _method()]),
    ]
    title = f"Release {rollout.id} of {rollout.model}: {_versions(rollout)}"
    return page(title, release_sentence(view), sections, verdict=OUTCOMES[rollout.status])


def _versions(rollout: Rollout) -> str:
    before = f"version {rollout.champion.number} to " if rollout.champion else "the first, "
    return f"{before}version {rollout.candidate.number}"


def release_sentence(view: ReleaseView) -> str:
    """Where it stands, why, and what comes next: for page, terminal and pull request."""
    rollout, because = view.rollout, _outcome(view)
    took = f" after {words.duration(rollout.ended_ms - rollout.started_ms)}" if rollout.ended_ms is not None else ""
    said = {
        Status.QUEUED: "Queued",
        Status.WAITING: f"Waiting for a person at {rollout.step}",
        Status.PROMOTED: f"Version {rollout.candidate.number} was promoted{took}",
        Status.ROLLED_BACK: f"Version {rollout.candidate.number} was rolled back{took}",
        Status.REJECTED: f"Version {rollout.candidate.number} was rejected{took}",
        Status.SUPERSEDED: f"Version {rollout.candidate.number} was superseded{took}",
    }.get(rollout.status, f"Version {rollout.candidate.number}: {rollout.status.value}")
    if rollout.status is Status.RUNNING:
        comes = ahead.expected(rollout, view.outlook) if view.outlook else ""
        who = f"{words.CHALLENGER.capitalize()}." if rollout.background else ""
        return " ".join(part for part in (who, view.holds or f"At {rollout.step}.", comes) if part)
    orders = " `homeostat release approve` or `reject` decides." if rollout.status is Status.WAITING else ""
    return (f"{said}: {because}" if because else f"{said}.") + orders


def _outcome(view: ReleaseView) -> str:
    """Why it ended or waits."""
    quality = next((lane for lane in view.latest if lane.name == "quality"), None)
    if view.rollout.status is not Status.PROMOTED or quality is None:
        lanes = [lane for seen in view.snapshots for lane in seen.lanes]
        return ahead.brief(view.rollout.reason, lanes) if view.rollout.reason else ""
    settled = "shown to be not worse" if quality.bounded else "not settled"
    return f"no lane said harm, its quality was {settled} over {words.counted(quality.n, 'mature label')}."


def _pictures(view: ReleaseView) -> Iterator[Figure]:
    """The candidate's share, and under it the verdicts, on one axis."""
    points = [Point(seen.at_ms, seen.weight / 100, seen.requests) for seen in view.snapshots]
    marks = [Mark(event.at_ms, ahead.happened(event), _shape(event), event.text) for event in view.history] + list(
        _expected(view)
    )
    look = Look(
        "candidate's share of the requests, %",
        "The candidate's share over time",
        height=232,
        zero=True,
        steps=True,
        count="request",
    )
    plot = lines([Series("candidate", "candidate", points)], marks, look)
    times = [point.at_ms for point in points] + [mark.at_ms for mark in marks]
    rows = [_strip(view, name) for name in view.names]
    drawn = strips(rows, (min(times), max(times)), "The verdict of each lane over time") if rows else Markup("")
    yield Figure(svg.tag("div", plot, drawn))


def _expected(view: ReleaseView) -> Iterator[Mark]:
    """The next move, where it is not so far ahead that the past would shrink to nothing."""
    outlook = view.outlook
    turn = outlook.turn(Assumed.AS_NOW) if outlook else None
    if outlook is None or turn is None or turn.move is None or turn.at_ms is None:
        return
    if 0 < turn.at_ms - outlook.now_ms <= 2 * (outlook.now_ms - view.rollout.started_ms):
        yield Mark(turn.at_ms, "expected", "unknown", f"expected: {ahead.becomes(view.rollout, turn.move)}")


def _strip(view: ReleaseView, name: str) -> Strip:
    course = view.course(name)
    runs = [next(run) for _, run in groupby(course, key=lambda one: one[1].verdict)]
    stretches = [Stretch(seen.at_ms, lane.verdict, lane.reason) for seen, lane in runs]
    return Strip(says(name).title, stretches, course[-1][0].at_ms)


def _shape(event: Event) -> EventKind:
    sign = sign_of(event)
    return sign[1] if sign else "note"


def _latest(view: ReleaseView) -> Table:
    """What each lane says now, and what would change it."""
    columns = [Column("Lane"), Column("verdict"), Column("what was seen"), Column("what would change it")]
    rows = [
        (says(lane.name).title, Badge(lane.verdict), lane.reason, ahead.change(lane, view.outlook))
        for lane in view.latest
    ]
    shown = columns if any(row[3] for row in rows) else columns[:3]
    return Table(shown, [row[: len(shown)] for row in rows], empty="No evidence yet.")


def _next(rollout: Rollout, outlook: Outlook) -> list[Block]:
    """The next move, should the candidate be what it looks like, or as bad as is tolerated."""
    rows = [(ahead.assumption(turn.assumed), *ahead.after(turn, rollout, outlook.now_ms)) for turn in outlook.turns]
    pace = [f"{words.number(outlook.requests_per_day)} requests a day for the candidate"]
    pace += [f"{words.number(one.per_day)} {_counted(one.lane)} a day" for one in outlook.paces]
    return [
        Table([Column("If the candidate"), Column("the next move"), Column("is expected")], rows),
        Text(f"At the present traffic: {words.listed(pace)}."),
    ]


def _counted(lane: str) -> str:
    return {"errors": "bad answers", "slow": "slow calls", "quality": "labels"}.get(lane, f"events of {lane}")


def _lane(view: ReleaseView, name: str) -> list[Block]:
    """The statistician's part: course of E, value with interval, forecasts."""
    course, told = view.course(name), says(name)
    lane = course[-1][1]
    if not any(one.n for _, one in course):
        return [Text(f"{told.question} {words.verdict(lane.verdict)}: nothing to compare yet, not one {told.noun}.")]
    plots = [_evidence(told, name, course)]
    if any(one.value is not None for _, one in course):
        plots.append(_value(view, told, name, course))
    blocks: list[Block] = [Text(f"{told.question} {words.verdict(lane.verdict)}: {lane.reason}.".lstrip())]
    blocks.append(Figure(svg.tag("div", *plots, class_="multiples wide")))
    blocks.append(Facts(_numbers(told, lane)))
    known = view.outlook and any(one.lane == name for one in view.outlook.forecasts)
    return [*blocks, _forecasts(view.outlook, told, name)] if view.outlook and known else blocks


def _numbers(told: Says, lane: Lane) -> list[tuple[str, str]]:
    facts = [
        ("E", words.number(lane.evidence)),
        ("Harm at" if told.measure else "Invalid at", words.short(lane.threshold)),
        ("Behind it", words.counted(lane.n, told.noun)),
    ]
    if told.measure and lane.low is not None and lane.high is not None:
        span = words.interval(lane.value, lane.low, lane.high)
        alone = f"[{words.number(lane.low)}, {words.number(lane.high)}]"
        facts.append((told.measure.capitalize(), span if lane.value is not None else alone))
    if told.measure:
        facts.append(("Shown to be within what is tolerated", "yes" if lane.bounded else "not yet"))
    return facts


def _evidence(told: Says, name: str, course: Sequence[tuple[Snapshot, Lane]]) -> Markup:
    points = [Point(seen.at_ms, max(lane.evidence, FLOOR), lane.n) for seen, lane in course]
    threshold = course[-1][1].threshold
    ends = "invalid" if name == "sample_ratio" else "harm"
    limits = (Limit(threshold, f"{ends} at {words.short(threshold)}"),) if threshold > 0 else ()
    unit = f"{told.title}: evidence of {'a mismatch' if ends == 'invalid' else 'harm'}, E"
    look = Look(unit, unit, width=536, height=220, log=True, count=told.noun, limits=limits)
    return lines([Series("E", "candidate", points)], _changes(course), look)


def _changes(course: Sequence[tuple[Snapshot, Lane]]) -> list[Mark]:
    """Where a verdict became another one."""
    runs = [next(run) for _, run in groupby(course, key=lambda one: one[1].verdict)]
    return [Mark(seen.at_ms, lane.verdict.value, lane.verdict.value, lane.reason) for seen, lane in runs[1:]]


def _value(view: ReleaseView, told: Says, name: str, course: Sequence[tuple[Snapshot, Lane]]) -> Markup:
    points = [
        Point(seen.at_ms, lane.value, lane.n, lane.low, lane.high) for seen, lane in course if lane.value is not None
    ]
    limits = [Limit(told.alike, "alike", "ok")]
    if name in view.tolerated:
        limits.append(Limit(view.tolerated[name], f"tolerated {words.short(view.tolerated[name])}"))
    unit, ratio = told.measure, told.alike == 1.0
    look = Look(unit, unit, width=536, height=220, log=ratio, count=told.noun, limits=tuple(limits))
    return lines([Series("", "candidate", points)], _changes(course), look)


def _forecasts(outlook: Outlook, told: Says, name: str) -> Table:
    columns = [
        Column("If the candidate"),
        Column("assumed", True),
        Column("comes first"),
        Column("of futures", True),
        Column(f"more {told.noun}s", True),
        Column("80 % within", True),
        Column("expected"),
        Column("80 % within"),
    ]
    rows = [_forecast(one, outlook.now_ms) for one in outlook.forecasts if one.lane == name]
    return Table(columns, rows, f"Forecast: the evidence there is, continued into {FUTURES} futures")


def _forecast(one: Forecast, now_ms: int) -> Sequence[Cell]:
    head = (ahead.assumption(one.assumed), words.number(one.value), Badge(one.verdict), words.percent(one.chance))
    if one.more is None or one.at_ms is None or one.early_ms is None or one.late_ms is None:
        return *head, "", "", "not within a year", ""
    if not one.more:
        return *head, "0", "", "found already", ""
    span = f"{ahead.rounded(one.few):,} to {ahead.rounded(one.many):,}"
    time = f"{words.duration(one.early_ms - now_ms)} to {words.duration(one.late_ms - now_ms)}"
    return *head, f"{ahead.rounded(one.more):,}", span, ahead.when(one.at_ms, now_ms), time


def _history(history: Sequence[Event]) -> Table:
    rows = [(words.time(event.at_ms), ahead.happened(event), event.text) for event in history]
    return Table([Column("When"), Column("what"), Column("why")], rows, empty="Nothing yet.")


def _looks(view: ReleaseView) -> Details:
    """Every look that is on record."""
    names = view.names
    columns = [Column("When"), Column("share", True), Column("requests", True)]
    columns += [Column(f"{says(name).title}: E", True) for name in names]
    rows = [_look(seen, names) for seen in view.snapshots]
    blocks = [Table([*columns, Column("why it moved or held")], rows, empty="None yet.")]
    return Details(f"{words.counted(len(rows), 'look')} on record", blocks)


def _look(seen: Snapshot, names: Sequence[str]) -> Sequence[Cell]:
    by_name = {lane.name: lane for lane in seen.lanes}
    found = [_mark(by_name[name]) if name in by_name else "" for name in names]
    return words.time(seen.at_ms), show_share(seen.weight), f"{seen.requests:,}", *found, seen.reason


def _mark(lane: Lane) -> Badge:
    return Badge(lane.verdict, words.number(lane.evidence))


def _record(rollout: Rollout) -> Details:
    slow = f"over {rollout.slow_us / 1_000:,.3g} ms" if rollout.slow_us else "no limit: too few calls before"
    facts = [
        ("Candidate's bundle", rollout.candidate.bundle),
        ("Candidate's run", rollout.candidate.run),
        ("Champion's bundle", rollout.champion.bundle if rollout.champion else "none: the first release"),
        ("Asked for by", rollout.by or "not recorded"),
        ("Steps", ", ".join(map(str, rollout.steps))),
        ("Slow means", slow),
        ("Started", words.time(rollout.started_ms)),
    ]
    return Details("The record of this release", [Facts(facts)])


def _method() -> Details:
    told = (
        "E measures the evidence against the candidate. While nothing is wrong, it ever reaches 100 in one release of "
        "100 at most, however often one looks (Ville's inequality); so harm is declared when it reaches its limit. "
        "Errors and slow answers: a mixture of likelihood ratios over the share of bad events that fall on the "
        "candidate (Lindon & Malek 2022). Quality: a bettor's wealth on the paired differences of the loss "
        "(Waudby-Smith & Ramdas 2023); labels that are not mature count only where each outcome speaks against the "
        "candidate. Segments: the same for each value of a guarded input, by e-BH over all of them (Wang & Ramdas "
        "2022). Intervals invert these tests and hold at all times at once.",
        f"Forecasts continue the evidence there is into {FUTURES} futures. As it looks now: each future draws its "
        "candidate from what the evidence leaves open. As bad as is tolerated: at the margin of the policy, or at the "
        "ratio that the step must exclude. Traffic, labels and base rates are taken to stay as they were in this step, "
        "over the last day at most.",
        "The course holds each look that showed another verdict, another size of E or other traffic, and of the rest "
        "four while the age of a step doubles. Every pass computes all evidence anew from the log.",
    )
    return Details("How these numbers are made", [Text(one) for one in told])
