"""Commands about releases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from homeostat.commands.options import EXIT, HERE, WEEK_MS, Folder, Json, Reason, length, opened, show, time

release = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What serves, what comes next, and why.")


@release.command("start")
def release_start(
    version: Annotated[int | None, typer.Option(help="The version to release; the newest by default.")] = None,
    despite: Annotated[
        str, typer.Option(metavar="REASON", help="Release it although it was refused before; why, for the record.")
    ] = "",
    folder: Folder = HERE,
    as_json: Json = False,
) -> None:
    """Release a version, step by step. `homeostat up` carries it out. Example: homeostat release start -p price"""
    from homeostat import terminal

    made = opened(folder).release.start(version, despite)
    said = f"Release {made.id} is asked for. {made.reason} The control loop carries it out."
    show(made, as_json, lambda: terminal.lines(said))


@release.command("status")
def release_status(folder: Folder = HERE, as_json: Json = False) -> None:
    """Where the open release stands, else what serves. Example: homeostat release status -p price"""
    from homeostat import terminal

    project = opened(folder)
    standing = project.release.status()
    show(standing, as_json, lambda: terminal.standing(standing, project.system.triggers.spent()))


@release.command("history")
def release_history(
    at: Annotated[int | None, time("--at", "What served at this time (UTC), and who had approved it.")] = None,
    folder: Folder = HERE,
    as_json: Json = False,
) -> None:
    """Every release and what came of it, or what served at a time.

    Example: homeostat release history --at 2026-01-31T14:30 -p price
    """
    from homeostat.terminal import releases

    if at is not None:
        served = opened(folder).release.served(at)
        show(served, as_json, lambda: releases.served(served))
        return
    records = opened(folder).release.history()
    show(records, as_json, lambda: releases.listed(records))


@release.command("backtest")
def release_backtest(
    last: Annotated[int, length("How far back the requests go.", "--from", shown="7d")] = WEEK_MS,
    candidate: Annotated[int | None, typer.Option(help="The version to try; the newest by default.")] = None,
    folder: Folder = HERE,
    as_json: Json = False,
) -> None:
    """Recorded requests through the version that serves and a candidate: what differs, and what a release would do.

    Exit code 0: not worse; 1: harm; 2: an error; 3: undecided. Example: homeostat release backtest --from 7d -p price
    """
    from homeostat.terminal import progress, releases

    with progress() as bar:
        found = opened(folder).release.backtest(last, candidate, bar)
    show(found, as_json, lambda: releases.backtested(found))
    raise typer.Exit(EXIT[found.verdict])


@release.command("explain")
def release_explain(
    name: Annotated[str, typer.Argument(help="A release, as R3; the current one by default.")] = "",
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, for a pull request.")] = False,
    folder: Folder = HERE,
    as_json: Json = False,
) -> None:
    """Every verdict over time, why it moved or holds, what would change it, and a report.

    Example: homeostat release explain R3 --markdown | gh pr comment --body-file -
    """
    from homeostat.engines.report import release_markdown
    from homeostat.terminal import releases

    found, report = opened(folder).release.explain(name)
    if markdown and not as_json:
        typer.echo(release_markdown(found), nl=False)
    else:
        show(found, as_json, lambda: releases.explained(found, report))


def _ordered(what: str, folder: Path, name: str, reason: str, as_json: bool) -> None:
    from homeostat import terminal

    event = opened(folder).release.order(what, name, reason)
    show(event, as_json, lambda: terminal.out.print(f"{event.text}. The control loop carries it out."))


Name = Annotated[str, typer.Argument(help="A release, as R3; the current one by default.")]


@release.command("approve")
def release_approve(name: Name = "", reason: Reason = "", folder: Folder = HERE, as_json: Json = False) -> None:
    """End the step that a release is in. Example: homeostat release approve R3 --reason "checked by hand" """
    _ordered("approve", folder, name, reason, as_json)


@release.command("reject")
def release_reject(name: Name = "", reason: Reason = "", folder: Folder = HERE, as_json: Json = False) -> None:
    """End a release without promotion. Example: homeostat release reject R3 --reason "wrong data" """
    _ordered("reject", folder, name, reason, as_json)


@release.command("rollback")
def release_rollback(name: Name = "", reason: Reason = "", folder: Folder = HERE, as_json: Json = False) -> None:
    """Give all traffic back to the version before. Example: homeostat release rollback --reason "complaints" """
    _ordered("rollback", folder, name, reason, as_json)
