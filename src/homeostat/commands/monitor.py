"""Commands about the model in service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from homeostat.commands.options import HERE, Folder, Json, Span, length, opened, show, span
from homeostat.domain.units import DAY_MS

monitor = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="How the model in service does, and why.")
MONTH_MS = 30 * DAY_MS


@monitor.command("report")
def monitor_report(
    last: Annotated[int, length("How far back answers are looked at.", "--last", shown="30d")] = MONTH_MS,
    folder: Folder = HERE,
    as_json: Json = False,
) -> None:
    """Where the model fails, ranked by what that costs, with examples, and what data would help.

    Example: homeostat monitor report --last 30d -p price
    """
    from homeostat import terminal
    from homeostat.engines.report import monitor as said
    from homeostat.engines.report.needs import needs_sentence

    found, report = opened(folder).monitor.report(last)

    def told() -> None:
        terminal.lines(said.monitor_sentence(found))
        for mode in found.failures.modes[: said.SHOWN]:
            terminal.lines(*said.mode_lines(mode, found.failures.unit))
        terminal.lines(*said.segment_lines(found), *(f"{name}: {text}" for name, text in said.facts(found)))
        terminal.lines(needs_sentence(found.needs), f"Report: {report}")

    show({"report": found, "page": report}, as_json, told)


@monitor.command("explain")
def monitor_explain(
    window: Annotated[Span, span("START, or START..END, as 2026-01-31..2026-02-07 (UTC).")],
    folder: Folder = HERE,
    as_json: Json = False,
) -> None:
    """Why the metric of a window is not that of the version's holdout: by segment, with drift and what was changed.

    Example: homeostat monitor explain 2026-01-31 -p price
    """
    from homeostat import terminal
    from homeostat.engines.report import monitor as said

    found, report = opened(folder).monitor.explain(window.start_ms, window.end_ms)

    def told() -> None:
        terminal.lines(said.explain_sentence(found))
        terminal.lines(*(f"  {one.kind}: {one.text}" for one in found.causes), f"Report: {report}")

    show({"window": found, "page": report}, as_json, told)


@monitor.command("label-set")
def monitor_label_set(
    out: Annotated[Path, typer.Argument(help="The CSV file to write.")],
    rows: Annotated[int, typer.Option(min=1, help="How many answers.")] = 200,
    last: Annotated[int, length("How far back they may be.", "--last", shown="30d")] = MONTH_MS,
    folder: Folder = HERE,
    as_json: Json = False,
) -> None:
    """Answers whose labels would teach the most: uncertain, disputed between versions, new. Fill in the column `label`
    and send the file back with `homeostat feedback add`.

    Example: homeostat monitor label-set wanted.csv --rows 200 -p price
    """
    from homeostat import terminal

    chosen = opened(folder).monitor.label_set(out, rows, last)
    reasons = dict(chosen.group_by("#reason").len().sort("#reason").iter_rows())
    said = ", ".join(f"{n:,} {name}" for name, n in reasons.items())
    columns = "the columns label and source" if "source" in chosen.columns else "the column label"
    told = f"{len(chosen):,} answers in {out}: {said}. Fill in {columns}, then: homeostat feedback add {out}"
    show({"rows": len(chosen), "reasons": reasons, "out": str(out)}, as_json, lambda: terminal.lines(told))
