"""The report of a backtest: what was put again, who answers how, where they differ, how long a release would take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from homeostat.domain.backtest import Backtested, BacktestResult, Expected, Latency, Outputs, Segment
from homeostat.domain.gate import Verdict
from homeostat.domain.rollout import Do, Lane
from homeostat.engines.report import words
from homeostat.engines.report.page import Badge, Block, Cell, Column, Details, Facts, Figure, Section, Table, Text, page
from homeostat.engines.report.small import Bar, bars

_FAR = 0.02
"""A segment is told of in the sentence if answers differ by so much more there than elsewhere."""


def backtest_sentence(result: BacktestResult, latency: Latency) -> str:
    """What was found, with the culprits first, for journal, terminal and page."""
    recorded = result.recorded
    if not recorded.replayed:
        return f"Nothing was put again: of {words.counted(recorded.answers, 'recorded answer')} {_lost(result)}."
    lanes = (*result.lanes, *((latency.lane,) if latency.lane else ()))
    harm = [f"{lane.name}: {lane.reason}" for lane in lanes if lane.verdict is Verdict.HARM]
    culprits = [result.hard_stop, *harm] if result.hard_stop else harm
    where = [_where(segment) for segment in result.segments[:1] if segment.moved - segment.elsewhere >= _FAR]
    over = f"over {words.counted(recorded.replayed, 'recorded request')}"
    if culprits:
        return ". ".join([f"Harm {over}: {'; '.join(culprits)}", *where]) + "."
    quality = next((lane.reason for lane in lanes if lane.name == "quality"), "")
    return ". ".join([f"No harm seen {over}: {behaviour(result)}; quality: {quality}", *where]) + "."


def _lost(result: BacktestResult) -> str:
    recorded = result.recorded
    if not recorded.answers:
        return "there is none"
    return f"{recorded.hidden:,} lack an input, and {recorded.changed:,} are no longer answered as they were"


def behaviour(result: BacktestResult) -> str:
    """How differently the two answer, without labels."""
    shift = result.shift
    if not shift.n:
        return "there is no request that both answered"
    moved = f"the answers differ by {words.number(shift.moved)} on average"
    return moved if shift.flips is None else f"{words.percent(shift.flips / shift.n)} of the decisions flip, {moved}"


def _where(one: Segment) -> str:
    failed = f", {one.failed:,} failures" if one.failed else ""
    there = f"by {words.number(one.moved)} in {words.counted(one.n, 'request')}{failed}"
    return f"They differ most where {one.field} = {one.values}: {there}, by {words.number(one.elsewhere)} elsewhere"


def backtest_report(made: Backtested) -> str:
    """HTML."""
    result = made.result
    title = f"Backtest of {result.model}: version {result.candidate} against version {result.champion}"
    sections = [
        Section("Evidence", evidence(made)),
        Section("Where they differ", [*_bars(result.segments), _segments(result.segments)]),
        Section("What a release would do", [_expected(result.expected)]),
        Section("Latency of the model call", [_latency(made.latency)]),
        Section("What a backtest cannot know", cannot_know(result)),
    ]
    return page(title, made.sentence, sections, verdict=made.verdict)


def backtest_section(made: Backtested) -> Section:
    """The same, as a part of its release's page."""
    result = made.result
    return Section(
        "Backtest: before any live request",
        [
            Text(made.sentence),
            *evidence(made),
            Details("Where they differ", [*_bars(result.segments), _segments(result.segments)]),
            Details("What was expected of the live release then", [_expected(result.expected)]),
            Details("What a backtest cannot know", cannot_know(result)),
        ],
    )


def evidence(made: Backtested) -> list[Block]:
    """What each lane says, and what was compared."""
    return [_lanes(made.lanes), Facts(list(facts(made.result)))]


def cannot_know(result: BacktestResult) -> list[Block]:
    """A sentence each."""
    return [Text(f"{one[0].upper()}{one[1:]}.") for one in result.cannot_know]


def facts(result: BacktestResult) -> Iterator[tuple[str, str]]:
    """Names and values, for page and terminal."""
    recorded, shift = result.recorded, result.shift
    yield "Recorded", f"{words.time(recorded.start_ms)} to {words.time(recorded.end_ms)} (UTC)"
    yield "Put again", f"{recorded.replayed:,} of {words.counted(recorded.answers, 'answer')}"
    if shift.flips is not None and shift.n:
        turns = words.listed([f"{n:,} {old} → {new}" for old, new, n in shift.turns])
        told = f": {turns}" if turns else ""
        yield "Flipped decisions", f"{shift.flips:,} of {shift.n:,}, {words.percent(shift.flips / shift.n)}{told}"
    means = f"{words.number(shift.champion_mean)} → {words.number(shift.candidate_mean)}"
    yield "Mean score", f"{means}; KS {words.number(shift.ks)}; one answer moves by {words.number(shift.moved)}"
    yield "Champion's outputs", _outputs(result.champion_outputs)
    yield "Candidate's outputs", _outputs(result.candidate_outputs)
    if result.missing:
        yield "Missing inputs", words.listed([f"{name} in {n:,} requests" for name, n in result.missing.items()])
    if result.expected:
        yield "A live release", live(result.expected)


_OUTCOMES = {
    Do.ADVANCE: "goes on",
    Do.PROMOTE: "promoted",
    Do.ROLL_BACK: "rolled back",
    Do.REJECT: "rejected: still not settled",
    Do.ASK: "a person is asked to decide",
}


def outcome(step: Expected) -> tuple[str, str]:
    """What comes of a step, and after how long."""
    if step.do is None or step.after_ms is None:
        return "no decision", "over a year"
    return _OUTCOMES.get(step.do, step.do.value), words.duration(step.after_ms)


def live(expected: Sequence[Expected]) -> str:
    """`promoted, expected after 8.2 d`: the end of the live release, if what comes is like what was recorded."""
    last, took = expected[-1], sum(step.after_ms or 0 for step in expected)
    if last.after_ms is None:
        return f"no decision at {last.step} within a year"
    at = "" if last.do is Do.PROMOTE else f" at {last.step}"
    return f"{outcome(last)[0]}{at}, expected after {words.duration(took)}"


def _outputs(found: Outputs) -> str:
    return f"{found.raised:,} failures, {found.nonfinite:,} not finite, {found.out_of_range:,} out of range"


def _lanes(lanes: Sequence[Lane]) -> Table:
    rows: list[Sequence[Cell]] = [
        (
            lane.name,
            Badge(lane.verdict),
            words.number(lane.evidence),
            words.short(lane.threshold),
            words.interval(lane.value, lane.low, lane.high),
            lane.reason,
        )
        for lane in lanes
    ]
    numeric = [Column(name, True) for name in ("E", "harm at", "value and interval")]
    return Table([Column("Lane"), Column("verdict"), *numeric, Column("because")], rows, empty="Nothing was compared.")


def _bars(found: Sequence[Segment]) -> Iterator[Figure]:
    if found:
        rows = [Bar(f"{one.field} = {one.values}", one.moved, words.number(one.moved)) for one in found]
        yield Figure(bars(rows, "How much the two answers to a request differ, from 0 to 1"))


def _segments(found: Sequence[Segment]) -> Table:
    names = ("requests", "differ by", "elsewhere", "flipped", "failed", "labels", "loss, new - old", "E")
    rows = [
        (
            f"{one.field} = {one.values}",
            f"{one.n:,}",
            words.number(one.moved),
            words.number(one.elsewhere),
            f"{one.flips:,}",
            f"{one.failed:,}",
            f"{one.labels:,}",
            words.number(one.difference),
            words.number(one.evidence) if one.labels else words.UNMEASURED,
        )
        for one in found
    ]
    return Table([Column("Segment"), *(Column(name, True) for name in names)], rows, empty="Nowhere in particular.")


def _expected(found: Sequence[Expected]) -> Table:
    rows = [(one.step, *outcome(one), one.reason) for one in found]
    columns = [Column("Step"), Column("what comes of it"), Column("after", True), Column("because")]
    return Table(columns, rows, "If traffic and labels go on as recorded.", "Not known: too little was recorded.")


def _latency(found: Latency) -> Table:
    rows = [
        (
            f"version {one.version}",
            f"{one.batch}",
            f"{one.n:,}",
            *(milliseconds(us) for us in (one.p50_us, one.p95_us, one.p99_us)),
        )
        for one in found.calls
    ]
    names = ("rows a call", "calls", "p50", "p95", "p99")
    caption = "Measured anew each time: no part of what is the same for the same log."
    return Table([Column("Model"), *(Column(name, True) for name in names)], rows, caption, "Not measured.")


def milliseconds(us: float) -> str:
    """1,234 µs → `1.23 ms`."""
    return f"{words.number(us / 1_000)}{words.SPACE}ms"
