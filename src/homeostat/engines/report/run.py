"""The report of one run: what was measured, what the gates said, from which data and code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from homeostat.domain.gate import GateResult, Measurement, Verdict
from homeostat.domain.run import CodeState, RunResult
from homeostat.engines.report import words
from homeostat.engines.report.page import Badge, Block, Cell, Code, Column, Details, Facts, Figure, Section, Table, page
from homeostat.engines.report.small import Span, intervals


@dataclass(frozen=True, slots=True)
class RunExtra:
    """What a report of a run shows beside the result. `limits`: by gate name, what its measurement is held to."""

    model: str
    at_ms: int
    code: CodeState
    limits: Mapping[str, float] = field(default_factory=dict)


def run_report(result: RunResult, extra: RunExtra) -> str:
    """HTML."""
    sections = [
        Section("Gates", list(_gates(result, extra))),
        Section("Measurements", [_measurements(result)]),
        Section("Where it came from", [_origin(result, extra), _steps(result), *_code(extra.code)]),
    ]
    title = f"Run {result.id} of {extra.model}, {words.time(extra.at_ms)}"
    return page(title, run_sentence(result), sections, verdict=result.verdict)


def run_sentence(result: RunResult) -> str:
    """What came of it, for page and terminal."""
    against = [gate for gate in result.gates if gate.verdict is not Verdict.OK]
    what = f"Version {result.version.number} is registered" if result.version else "Nothing was registered"
    if against:
        said = words.listed([f"{words.metric(gate.name)} says {gate.verdict.value}" for gate in against])
        return f"{what}: {said}."
    if result.version is None:
        what = "The model passed"
    first = f", {words.measured(result.measurements[0])}" if result.measurements else ""
    return f"{what}: {_passed(len(result.gates))}{first}."


def _passed(gates: int) -> str:
    if gates < 2:
        return "its gate ok" if gates else "no gates"
    return f"all {gates} gates ok"


def _gates(result: RunResult, extra: RunExtra) -> Iterator[Block]:
    spans = [_span(gate, m, extra.limits.get(gate.name)) for gate in result.gates if (m := gate.measurement)]
    if spans:
        caption = "Each gate on its own scale: the value in its 95 % interval; the upright line is what it is held to."
        yield Figure(intervals(spans, "Gates: value, interval, limit"), caption)
    rows: list[Sequence[Cell]] = [(words.metric(gate.name), Badge(gate.verdict), gate.reason) for gate in result.gates]
    yield Table([Column("Gate"), Column("verdict"), Column("because")], rows, empty="The policy names no gate.")


def _span(gate: GateResult, m: Measurement, limit: float | None) -> Span:
    return Span(words.metric(gate.name), gate.verdict, m.value, m.low, m.high, m.n, limit)


def _measurements(result: RunResult) -> Table:
    columns = [Column("On the holdout"), Column("value", True), Column("95 % interval", True), Column("rows", True)]
    rows = [
        (words.metric(m.metric), words.number(m.value), words.span(m.low, m.high), f"{m.n:,}")
        for m in result.measurements
    ]
    return Table(columns, rows)


def _origin(result: RunResult, extra: RunExtra) -> Facts:
    data, code = result.dataset, extra.code
    state = f"{code.commit[:12]}{', with changes' if code.dirty else ''}" if code.commit else "not in a repository"
    return Facts(
        [
            ("Data", f"{data.name}, version {data.version}"),
            ("Rows", f"{data.rows:,}"),
            ("From", words.time(data.from_ms)),
            ("To", words.time(data.until_ms)),
            ("Content digest", data.digest[:16]),
            ("Commit", state),
        ]
    )


def _steps(result: RunResult) -> Details:
    cached = sum(step.cached for step in result.steps)
    columns = [Column("Step"), Column("result"), Column("took", True), Column("cache key")]
    rows = [
        (step.name, "from cache" if step.cached else "ran", words.duration(step.wall_ms), step.key[:16])
        for step in result.steps
    ]
    summary = f"{words.counted(len(result.steps), 'step')}: {len(rows) - cached} ran, {cached} from cache"
    return Details(summary, [Table(columns, rows)])


def _code(code: CodeState) -> Iterator[Block]:
    if code.diff:
        yield Details("Changes on top of the commit", [Code(code.diff)])
    if code.untracked:
        rows = [(name, digest[:16]) for name, digest in sorted(code.untracked.items())]
        yield Details("Files that are not in the repository", [Table([Column("File"), Column("digest")], rows)])
