"""What the terminal shows: the same words, marks and colours as the reports. NO_COLOR and pipes are respected:
rich writes plain text there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from homeostat import codec
from homeostat.domain.errors import HomeostatError
from homeostat.domain.gate import GateResult, Measurement, Verdict
from homeostat.domain.rollout import Lane
from homeostat.engines.report import words
from homeostat.ports import Progress

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


def _table(*columns: str, numeric: Sequence[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, justify="right" if column in numeric else "left", no_wrap=column in numeric)
    return table


def measurements(rows: Sequence[Measurement]) -> Table:
    table = _table("metric", "value", "95 % interval", "rows", numeric=("value", "95 % interval", "rows"))
    for m in rows:
        table.add_row(Text(words.metric(m.metric)), words.number(m.value), words.span(m.low, m.high), f"{m.n:,}")
    return table


def gates(rows: Sequence[GateResult]) -> Table:
    table = _table("gate", "verdict", "because")
    for gate in rows:
        table.add_row(Text(words.metric(gate.name)), verdict(gate.verdict), Text(gate.reason))
    return table


def lanes(rows: Sequence[Lane]) -> Table:
    numeric = ("E", "harm at", "value and interval", "count")
    table = _table("lane", "verdict", *numeric, "because", numeric=numeric)
    for lane in rows:
        span = words.interval(lane.value, lane.low, lane.high)
        evidence = words.number(lane.evidence), words.short(lane.threshold), span, f"{lane.n:,}"
        table.add_row(Text(lane.name), verdict(lane.verdict), *evidence, Text(lane.reason))
    return table


@contextmanager
def progress(console: Console = err) -> Iterator[Progress]:
    """A bar while the work goes on, gone afterwards; nothing where no person looks on."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
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
