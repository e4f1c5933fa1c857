"""The outcomes in the terminal: the sentence, then the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.release.outcome import Outcome
from bench.release.peers import INTERVAL_S, Verdict
from homeostat.terminal import DARK

PEERS = ("Flagger", "Argo", "Kayenta")


def show(outcomes: Sequence[Outcome], out: TextIO) -> None:
    console = Console(file=out, highlight=False, width=None if out.isatty() else 190)
    console.print(sentence(outcomes))
    console.print()
    console.print(_table(outcomes))
    console.print(
        "The rules of others: when they stop it, the rows that it got by then, and how many of these it did not answer "
        f"well; nobody else does there. {INTERVAL_S:.0f} s stand for their minute."
    )
    for one in outcomes:
        console.print(Text.assemble((f"{one.candidate}: ", "bold"), one.reason), soft_wrap=True)


def sentence(outcomes: Sequence[Outcome]) -> str:
    """What happened and what it means."""
    right = sum(one.as_it_should for one in outcomes)
    bad = [one for one in outcomes if one.expected]
    stopped = [one for one in bad if one.stopped_by]
    errors, rows = sum(one.caller_errors for one in outcomes), sum(one.answered for one in stopped)
    said = f"{right} of {len(outcomes)} releases ended as they should. "
    said += f"{len(stopped)} of {len(bad)} bad candidates were stopped, after {rows:,} rows from them together; "
    said += f"callers saw {errors} errors. "
    named = sum(one.foretold for one in bad if one.foreseen.harm)
    return f"{said}The backtest had named {named} of the {len(bad)} before."


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("candidate", "backtest", "ended by"):
        table.add_column(name)
    for name in ("after", "rows from it", "rescued", "caller errors"):
        table.add_column(name, justify="right")
    for name in PEERS:
        table.add_column(name)
    for one in outcomes:
        table.add_row(one.candidate, *_ours(one), *(_theirs(one.peers[name]) for name in PEERS))
    return table


def _ours(one: Outcome) -> list[Text | str]:
    mark = "✓" if one.as_it_should else "✗"
    style = DARK["ok"] if one.as_it_should else DARK["harm"]
    ended = Text(f"{mark} {one.stopped_by or one.status}", style=style)
    errors = f"{one.caller_errors}" + (f" (+{one.shed} shed)" if one.shed else "")
    return [_foreseen(one), ended, f"{one.after_s:.1f} s", f"{one.answered:,}", f"{one.rescued:,}", errors]


def _foreseen(one: Outcome) -> Text:
    said = ", ".join(one.foreseen.harm) or ("not worse" if one.expected == "" else "no harm seen")
    mark, style = ("✓", DARK["ok"]) if one.foretold else ("✗", DARK["harm"])
    return Text(f"{mark} {said}", style=style)


def _theirs(verdict: Verdict) -> str:
    when = "never" if verdict.after_s is None else f"{verdict.after_s:.0f} s"
    return f"{when}: {verdict.rows:,} rows" + (f", {verdict.bad:,} bad" if verdict.bad else "")
