"""The pages about a model in service: how it does and where it fails; why a window's metric moved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from homeostat.domain.failures import Failures, Mode
from homeostat.domain.gate import Measurement
from homeostat.domain.moved import Explained, Part
from homeostat.domain.report import Delays, MonitorReport, Stretch
from homeostat.engines.moved import SEGMENT
from homeostat.engines.report import words
from homeostat.engines.report.needs import needs
from homeostat.engines.report.page import Block, Cell, Column, Details, Facts, Figure, Section, Table, Text, page
from homeostat.engines.report.plot import Limit, Look, Point, Series, lines
from homeostat.engines.report.small import Bar, bars

SHOWN = 10


def monitor_report(found: MonitorReport) -> str:
    """HTML."""
    sections = [
        Section(f"{words.metric(found.now.metric)} over time", list(_course(found))),
        Section("Where it fails", list(_failures(found.failures))),
        Section("Labels and calibration", [Facts(facts(found))]),
        Section("What it needs", list(needs(found.needs))),
    ]
    span = f"{words.day(found.from_ms)} to {words.day(found.until_ms)}"
    return page(f"{found.model}, version {found.version}, {span}", monitor_sentence(found), sections)


def monitor_sentence(found: MonitorReport) -> str:
    """How it does, where it fails most, and what would help; for page and terminal."""
    modes = found.failures.modes
    said = " ".join([_level(found), _worst(modes[0]) if modes else _no_mode(found.failures)])
    return _part(found.delays.share) + said


def _part(share: float) -> str:
    """Says aloud that not all was looked at."""
    return f"Of a sample by id, {words.percent(share)} of all: " if share < 1 else ""


def _level(found: MonitorReport) -> str:
    if not _known(found.now):
        known = [one for one in found.windows if one.estimated]
        if not known:
            return f"{words.metric(found.now.metric)} is unknown: no label came."
        value = words.interval(*_estimated(known[-1].estimated))
        return (
            f"No label came; {words.metric(found.now.metric)} is estimated at {value}, which can't see concept drift."
        )
    said = f"Version {found.version} has {words.measured(found.now)}"
    return f"{said}; {words.number(found.holdout.value)} when it was made." if found.holdout else f"{said}."


def _estimated(one: tuple[float, float, float] | None) -> tuple[float, float, float]:
    return one or (float("nan"), float("nan"), float("nan"))


def _worst(mode: Mode) -> str:
    share = f"{words.percent(mode.share)} of the rows"
    return f"It fails most where {mode.segment} ({share}); what would help: {mode.help.value}."


def _no_mode(found: Failures) -> str:
    if found.fault:
        return f"Where it fails is unknown: {found.fault}."
    return f"No group of rows is surely worse than the others, of {found.looked_at:,} that were measured."


def _known(one: Measurement) -> bool:
    return one.n > 0 and one.value == one.value


def _course(found: MonitorReport) -> Iterator[Block]:
    measured, estimated = [], []
    for one in found.windows:
        middle, at = (one.start_ms + one.end_ms) // 2, one.measured
        if at is not None:
            measured.append(Point(middle, at.value, at.n, _edge(at.low), _edge(at.high)))
        if one.estimated is not None:
            value, low, high = one.estimated
            estimated.append(Point(middle, value, one.answers, low, high))
    series = [Series("by labels", "champion", measured)] if measured else []
    series += [Series("", "unknown", estimated, dashed=True)] if estimated else []
    if series:
        level = (Limit(found.holdout.value, "holdout", "ok"),) if found.holdout else ()
        look = Look(words.metric(found.now.metric), "The metric in each window", limits=level)
        yield Figure(lines(series, (), look), found.note if estimated else "")
    yield _every(found.windows, "Every window")
    for count, some in found.counted.items():
        yield _every(some, f"Every window of {int(count):,} answers")
    if found.segments:
        rows = [(name, words.interval(of.value, of.low, of.high), f"{of.n:,}") for name, of in found.segments.items()]
        columns = [Column("Segment"), Column("by labels", True), Column("labels", True)]
        yield Details("Every declared segment", [Table(columns, rows)])


def _every(stretches: Sequence[Stretch], title: str) -> Details:
    columns = [Column("Window"), Column("by labels", True), Column("estimated", True), Column("answers", True)]
    columns += [Column("labels", True), Column("of its labels expected to be in", True)]
    rows = [
        (
            words.time(one.start_ms),
            _shown(one.measured),
            words.interval(*one.estimated) if one.estimated else "not estimated",
            f"{one.answers:,}",
            f"{one.measured.n:,}" if one.measured else "0",
            words.percent(one.mature) if one.mature is not None else "unknown",
        )
        for one in stretches
    ]
    return Details(title, [Table(columns, rows, empty="Nothing was answered.")])


def _edge(value: float) -> float | None:
    return value if value == value else None


def _shown(one: Measurement | None) -> str:
    return words.interval(one.value, one.low, one.high) if one else words.UNMEASURED


def _failures(found: Failures) -> Iterator[Block]:
    if not found.modes:
        yield Text(_no_mode(found))
        return
    top = found.modes[:SHOWN]
    yield Figure(
        bars([Bar(one.segment, one.impact, impact(one, found.unit), "harm") for one in top], "Impact of each"),
        "What each group costs beside the same rows with the loss of all others. Groups overlap.",
    )
    columns = [Column("Where"), Column("rows", True), Column("there", True), Column("elsewhere", True)]
    columns += [Column("extra loss a row", True), Column("what would help")]
    rows: list[Sequence[Cell]] = [
        (
            one.segment + (" (declared)" if one.declared else ""),
            f"{one.n:,} ({words.percent(one.share)})",
            _shown(one.inside),
            _shown(one.outside),
            words.interval(one.excess, one.low, one.high),
            one.help.value,
        )
        for one in top
    ]
    yield Table(columns, rows, f"{found.looked_at:,} groups measured on {found.rows:,} labelled answers.")
    for one in top:
        yield Details(
            one.segment, [Text(f"{one.help.value}: {one.because}."), Facts([("Examples", ", ".join(one.examples))])]
        )


def impact(one: Mode, unit: str) -> str:
    """`12.4 losses`."""
    return f"{words.number(one.impact)} {unit}"


def mode_lines(one: Mode, unit: str) -> list[str]:
    """For the terminal."""
    level = f"{words.metric(one.inside.metric)} {_shown(one.inside)}, elsewhere {_shown(one.outside)}"
    return [
        f"▲ {one.segment}: {one.n:,} rows ({words.percent(one.share)}), {impact(one, unit)}",
        f"  {level}",
        f"  {one.help.value}: {one.because}",
        f"  homeostat trace {one.examples[0]}",
    ]


def facts(found: MonitorReport) -> list[tuple[str, str]]:
    """How labels come, calibration, what answers are worth; for page and terminal."""
    rows = [("Labels", delay_sentence(found.delays))]
    if found.calibration is not None and _known(found.calibration):
        rows.append(("Calibration", words.measured(found.calibration)))
    if found.value is not None:
        rows.append(("Value of an answer", f"{words.measured(found.value)}; {_total(found.value)} together"))
    return rows


def segment_lines(found: MonitorReport) -> list[str]:
    """For the terminal: those that are lowest in the metric, or highest where less is better."""
    ranked = sorted(found.segments.items(), key=lambda one: one[1].value, reverse=not found.higher_is_better)
    lines = [f"  {name}: {words.measured(one)}" for name, one in ranked[:SHOWN]]
    more = len(ranked) - len(lines)
    return [*lines, f"  and {more:,} more: see the report"] if more > 0 else lines


def _total(value: Measurement) -> str:
    return words.number(value.value * value.n)


def delay_sentence(one: Delays) -> str:
    """When labels come, and whether the policy's horizon fits."""
    came = f"{_part(one.share)}{one.labels:,} of {one.answers:,} answers have a label"
    if one.half_ms is None or one.most_ms is None:
        return f"{came}: too few to say how long labels take."
    law = f"half come within {words.duration(one.half_ms)}, 95 % within {words.duration(one.most_ms)}"
    horizon = f"{words.percent(one.at_horizon)} are there at the horizon of {words.duration(one.horizon_ms)}"
    return f"{came}; of those that come, {law}; {horizon}."


def explain_report(found: Explained) -> str:
    """HTML."""
    sections = [
        Section("Causes", [_causes(found)]),
        Section("By segment", list(_parts(found.parts))),
    ]
    title = f"{words.time(found.start_ms)} to {words.time(found.end_ms)}, version {found.version}"
    return page(title, explain_sentence(found), sections)


def explain_sentence(found: Explained) -> str:
    """What moved, and the first cause; for page and terminal."""
    return _part(found.share) + _moved(found)


def _moved(found: Explained) -> str:
    if not found.parts:
        rows = f"{words.counted(found.rows, 'label')} in the window, {found.reference_rows:,} in the holdout"
        return f"Too few rows to say what moved: {rows}."
    way = "rose" if found.move > 0 else "fell"
    said = f"The mean loss {way} from {words.number(found.before)} on the holdout to {words.number(found.now)}"
    real = [cause for cause in found.causes if cause.kind in SEGMENT]
    if not real:
        return f"{said}. No segment's part of that is sure."
    most = 2 * real[0].size > abs(found.move)
    return f"{said}. {'Most of it' if most else 'The largest part of it that is sure'}: {real[0].text}."


def _causes(found: Explained) -> Table:
    rows: list[Sequence[Cell]] = [
        (one.kind, one.text, words.number(one.size) if one.size else "near in time", one.example)
        for one in found.causes
    ]
    columns = [Column("Cause"), Column("what"), Column("accounts for", True), Column("example")]
    return Table(columns, rows, empty="None is sure.")


def _parts(parts: Sequence[Part]) -> Iterator[Block]:
    columns = [Column("Segment"), Column("share of rows", True), Column("loss", True), Column("mix", True)]
    columns += [Column("within", True), Column("together", True)]
    rows = [
        (
            one.segment,
            f"{words.percent(one.share_before)} → {words.percent(one.share)}",
            f"{words.number(one.loss_before)} → {words.number(one.loss)}",
            words.number(one.mix),
            words.number(one.within),
            words.interval(one.total, one.low, one.high),
        )
        for one in parts
    ]
    yield Table(columns, rows, empty="Too few rows.")
    yield Text(
        "Mix: rows came to be spread otherwise over the segments. Within: the same rows lose more, or less. "
        "Segments were found on one half of the rows and measured on the other; the parts add up to the move there."
    )
