"""What the terminal shows: the same words, marks and colours as the reports. NO_COLOR and pipes are respected:
rich writes plain text there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from homeostat import codec
from homeostat.domain.errors import HomeostatError
from homeostat.domain.gate import GateResult, Measurement, Verdict
from homeostat.domain.prediction import BATCH, EDGE
from homeostat.domain.rehearsal import RehearsalResult
from homeostat.domain.rollout import Lane
from homeostat.domain.run import RunResult
from homeostat.domain.trace import Score, Trace
from homeostat.domain.trigger import Spent
from homeostat.domain.units import show_share
from homeostat.engines.report import rehearsal_sentence, run_sentence, scenario, words
from homeostat.engines.report.monitor import delay_sentence
from homeostat.engines.report.outlook import because, expected
from homeostat.ports import Progress

if TYPE_CHECKING:  # whoever has one to show has imported it
    from homeostat.batch import BatchResult
    from homeostat.demo import Line
    from homeostat.project import Comparison, Status
    from homeostat.scaffold import Made
    from homeostat.services.rollouts import Standing

SEVERITY = {"info": ("○", "unknown"), "warning": ("▲", "candidate"), "critical": ("◆", "harm")}

LIGHT = {
    "champion": "#0072B2",
    "candidate": "#E69F00",
    "ok": "#00795A",
    "harm": "#C4420B",
    "unknown": "#767676",
    "invalid": "#A63D7A",
}
DARK = {
    "champion": "#56B4E9",
    "candidate": "#E69F00",
    "ok": "#2FBF97",
    "harm": "#FF7A45",
    "unknown": "#A6A6A6",
    "invalid": "#E08BBB",
}


def theme() -> Theme:
    """Terminals with a light background say so in COLORFGBG (`0;15`); most say nothing and are dark."""
    background = os.environ.get("COLORFGBG", "").rpartition(";")[2]
    return Theme(LIGHT if background in ("7", "15") else DARK)


out = Console(theme=theme(), highlight=False)
err = Console(theme=theme(), highlight=False, stderr=True)


def verdict(value: Verdict) -> Text:
    """`● ok`, coloured."""
    return Text(words.verdict(value), style=value.value)


def plain_table(*columns: str, numeric: Sequence[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, justify="right" if column in numeric else "left", no_wrap=column in numeric)
    return table


def measurements(rows: Sequence[Measurement]) -> Table:
    table = plain_table("metric", "value", "95 % interval", "rows", numeric=("value", "95 % interval", "rows"))
    for m in rows:
        table.add_row(Text(words.metric(m.metric)), words.number(m.value), words.span(m.low, m.high), f"{m.n:,}")
    return table


def gates(rows: Sequence[GateResult]) -> Table:
    table = plain_table("gate", "verdict", "because")
    for gate in rows:
        table.add_row(Text(words.metric(gate.name)), verdict(gate.verdict), Text(gate.reason))
    return table


def lanes(rows: Sequence[Lane]) -> Group:
    """What each lane says, and under the table why."""
    numeric = ("E", "harm at", "value and interval", "count")
    table = plain_table("lane", "verdict", *numeric, numeric=numeric)
    for lane in rows:
        span = words.interval(lane.value, lane.low, lane.high)
        evidence = words.number(lane.evidence), words.short(lane.threshold), span, f"{lane.n:,}"
        table.add_row(Text(lane.name), verdict(lane.verdict), *evidence)
    return Group(table, *(Text(f"{lane.name}: {lane.reason}") for lane in rows))


class _Rate(ProgressColumn):
    """How many a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} {self._unit}/s" if task.speed else "")


@contextmanager
def progress(unit: str = "", console: Console = err) -> Iterator[Progress]:
    """A bar while the work goes on, gone afterwards, with the rate where it has a unit; nothing where no person looks
    on."""
    rate = (_Rate(unit),) if unit else ()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *rate, TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def show(done: int, total: int, doing: str) -> None:
            bar.update(task, completed=done, total=total, description=doing)

        yield show


def fail(error: HomeostatError) -> int:
    """Print what is wrong, where, and the way out, to standard error. → the exit code."""
    err.print(Text(f"✕ {error.what}", style="harm"), soft_wrap=True)
    for line in (error.where, error.way_out):
        if line:
            err.print(Text(f"  {line}"), soft_wrap=True)
    return error.exit_code


def emit(value: Any) -> None:
    """One line of JSON on standard output, and nothing else there."""
    sys.stdout.write(codec.encode(value).decode() + "\n")


def lines(*rows: str) -> None:
    """Plain lines on standard output; an empty one is left out."""
    for row in rows:
        if row:
            out.print(Text(row), soft_wrap=True)


def story(line: Line) -> None:
    """One line of the demo's story."""
    day = f"day {line.day:<4}" if line.day else " " * 8
    mark = words.MARKS[line.verdict] if line.verdict else " "
    style = line.verdict.value if line.verdict else "bold" if line.kind == "world" else ""
    row = plain_table("", "", "")
    row.show_header = False
    row.add_row(Text(day, style="dim"), Text(mark, style=style), Text(line.text, style=style))
    out.print(row)


def made(project: Made) -> None:
    """What `init` made, and what comes next."""
    columns = words.counted(len(project.fields), "input column")
    lines(f"Project {project.name}: {project.task.value}, {project.rows:,} rows, {columns}.")
    for note in project.notes:
        lines(f"  {note}")
    lines(f"Written to {project.root}:", *(f"  {name}" for name in project.files))
    lines("Next: homeostat run, then homeostat rehearse, in that folder.")


def run(result: RunResult) -> None:
    """What came of a run."""
    lines(run_sentence(result), "")
    out.print(gates(result.gates))
    out.print(measurements(result.measurements))
    made = sum(not step.cached for step in result.steps)
    lines(
        f"Run {result.id}, data version {result.dataset.version}: {words.counted(made, 'step')} ran, "
        f"{len(result.steps) - made} from cache.",
        f"Report: {result.report}",
        "Release it: homeostat release start, with homeostat up running." if result.version else "",
    )


def rehearsed(result: RehearsalResult) -> None:
    """What a rehearsal found."""
    lines(rehearsal_sentence(result))
    table = plain_table(
        "the model", "value", "95 % interval", "trainings", numeric=("value", "95 % interval", "trainings")
    )
    ways = (("kept by the loop", result.loop), ("left alone", result.frozen), ("retrained weekly", result.weekly))
    for name, course in ways:
        whole = course.whole
        table.add_row(name, words.number(whole.value), words.span(whole.low, whole.high), f"{course.trainings:,}")
    out.print(table)
    if result.reactions:
        _scenario(result)
    lines(f"{result.rows:,} rows in {words.duration(result.wall_ms)}.", f"Report: {result.report}")


def _scenario(result: RehearsalResult) -> None:
    """What was injected, and how the loop answered."""
    for one in result.reactions:
        out.print(Text(one.injection.text, style="bold"), soft_wrap=True)
        noticed = f"noticed {scenario.noticed(one)}" if one.noticed else "not noticed"
        lines(
            *(f"  {said}" for said in (noticed, f"the loop: {scenario.did(one)}", f"the metric: {scenario.harm(one)}"))
        )
    lines(scenario.wolf(result))


def compared(found: Comparison) -> None:
    """Policies side by side, a column each: so many figures in a row would not fit a terminal."""
    lines(scenario.comparison_sentence(found.policies))
    headings, rows = scenario.comparison(found.policies)
    names = [row[0] for row in rows]
    table = plain_table("", *names, numeric=names)
    for cells in zip((one.name for one in headings[1:]), *(row[1:] for row in rows), strict=True):
        table.add_row(*map(Text, cells))
    out.print(table)
    lines(f"Report: {found.report}")


def is_up(model: str, host: str, port: int) -> None:
    """Where everything is."""
    lines(
        f"{model} is up. Ctrl-C ends it.",
        f"  control plane  http://{host}:{port}/docs",
        f"  data plane     http://{host}:{port + 1}/v1/models/{model}/predict",
    )


def predicted(result: BatchResult) -> None:
    """What a batch job came to."""
    parts = words.counted(result.parts, "part")
    said = f"{result.rows:,} rows scored by version {result.version}: {parts} in {result.out}"
    lines(f"{said}, {result.reused} of them from before.")
    lines(f"{result.refused:,} rows broke a rule: the column error says which." if result.refused else "")


def standing(found: Standing | None, background: Spent | None) -> None:
    """Where a release stands: why it holds and until when in one line, then the lanes. `background`: what its
    challengers have used of their budget."""
    if found is None:
        lines("Nothing is released yet. Start with `homeostat release start`, with `homeostat up` running.")
        return
    one, seen, outlook = found.rollout, found.seen, found.outlook
    comes = expected(one, outlook) if outlook else ""
    what = f"version {one.candidate.number}" + (f", {words.CHALLENGER}" if one.background else "")
    lines(f"Release {one.id}, {what}: {one.status.value}. {because(found.move, seen)} {comes}")
    lines(f"Background challengers: {background}." if background else "")
    if seen.lanes:
        out.print(lanes(seen.lanes))
        lines(f"{words.counted(seen.requests, 'request')} seen in this step, {seen.mature_labels:,} mature labels.")


def status(found: Status) -> None:
    """The state of the loop on one screen."""
    out.print(Text(found.model, style="bold"))
    standing(found.standing, found.background)
    if found.performance:
        out.print(Text("quality: ").append(verdict(found.performance.change.verdict)), end=" ")
        lines(found.performance.change.reason)
    if found.delays:
        lines(f"labels: {delay_sentence(found.delays)}")
    for alert in found.alerts:
        mark, style = SEVERITY[alert.severity]
        said = Text(f"since {words.time(alert.opened_ms)}: {alert.evidence}")
        out.print(Text(f"{mark} {alert.name} {alert.title}", style=style), said)
    lines("" if found.alerts else "No open alert.")
    table = plain_table("when", "what", "")
    for event in found.recent:
        table.add_row(words.time(event.at_ms), event.kind, Text(event.text, overflow="ellipsis", no_wrap=True))
    out.print(table)


def pairs(facts: Mapping[str, str]) -> None:
    table = plain_table("", "")
    table.show_header = False
    for name, value in facts.items():
        table.add_row(Text(name, style="dim"), Text(value))
    out.print(table)


_AWAY = {EDGE: "none: answered on the edge", BATCH: "none: answered by a batch job"}


def traced(found: Trace) -> None:
    """Everything behind one prediction."""
    run = found.run
    facts = {
        "prediction": f"{found.id}, {words.time(found.at_ms)}" + (f", key {found.key}" if found.key else ""),
        "inputs": ", ".join(f"{name} = {value}" for name, value in found.inputs.items()),
        "scores": "; ".join(score(one) for one in found.scores),
        "label": f"{found.label.value}, came {words.time(found.label.at_ms)}" if found.label else "none yet",
        "release": _AWAY.get(found.release.partition(":")[0] + ":")
        or f"{found.release}, {found.arm} arm, {show_share(found.weight)} to the candidate",
        "bundle": found.bundle or "none",
    }
    facts |= {"in the same trace": ", ".join(found.others)} if found.others else {}
    if run:
        data = run.dataset
        state = f"{run.code.commit[:12]}{', with changes' if run.code.dirty else ''}"
        facts |= {
            "run": f"{run.id}, {words.time(run.at_ms)}",
            "code": state if run.code.commit else "not in a repository",
            "parameters": ", ".join(f"{name} = {value}" for name, value in run.params.items()),
            "data": f"version {data.version}, {data.rows:,} rows until {words.time(data.until_ms)}",
            "gates": "; ".join(f"{gate.name}: {gate.verdict.value}" for gate in run.gates) or "none",
            "environment": f"{len(found.environment.splitlines())} names and versions (--json shows them)",
        }
    pairs(facts)
    if run and run.code.diff:
        lines("Changes on top of the commit:", run.code.diff)


def score(one: Score) -> str:
    said = " ".join(part for part in (one.label, words.number(one.score)) if part)
    return f"version {one.version} ({one.role}, {one.status}): {said}"
