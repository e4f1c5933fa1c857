"""Commands about alerts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from homeostat.commands.options import HERE, Folder, Json, Reason, length, opened, show

if TYPE_CHECKING:
    from homeostat.verbs.alerts import Open, Shown

alerts = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What is wrong, since when, why, and who knows.")

Name = Annotated[str, typer.Argument(help="An alert, as A3.")]


@alerts.command("list")
def alerts_list(
    over: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
    folder: Folder = HERE,
    as_json: Json = False,
) -> None:
    """The open alerts, and how many false ones a quiet week may bring. Example: homeostat alerts list -p price"""
    found = opened(folder).alerts.list(over)
    show(found, as_json, lambda: _listed(found))


@alerts.command("show")
def alerts_show(name: Name, folder: Folder = HERE, as_json: Json = False) -> None:
    """Evidence, likely causes, what happened since, and what to do. Example: homeostat alerts show A3 -p price"""
    found = opened(folder).alerts.show(name)
    show(found, as_json, lambda: _shown(found))


@alerts.command("ack")
def alerts_ack(name: Name, reason: Reason = "", folder: Folder = HERE, as_json: Json = False) -> None:
    """Take an alert: channels that wait for that hear no more of it.

    Example: homeostat alerts ack A3 --reason "on it" -p price
    """
    from homeostat import terminal

    taken = opened(folder).alerts.ack(name, reason)
    show(taken, as_json, lambda: terminal.lines(f"{taken.name} is taken by {taken.acked}: {taken.title}."))


@alerts.command("accept")
def alerts_accept(name: Name, reason: Reason = "", folder: Folder = HERE, as_json: Json = False) -> None:
    """A column that was called broken is right as it is: its rows are learned from.

    Example: homeostat alerts accept A3 --reason "one tariff from now on" -p price
    """
    from homeostat import terminal

    made = opened(folder).alerts.accept(name, reason)
    show(made, as_json, lambda: terminal.lines(f"{made.name} is over: its rows are learned from."))


@alerts.command("pause")
def alerts_pause(
    for_ms: Annotated[int, length("For how long; 0s ends a pause.", "--for", shown="2h")] = 7_200_000,
    reason: Reason = "",
    folder: Folder = HERE,
    as_json: Json = False,
) -> None:
    """Tell nobody for a while: alerts open and close, and what is open afterwards is told then.

    Example: homeostat alerts pause --for 2h --reason "maintenance" -p price
    """
    from homeostat import terminal

    event = opened(folder).alerts.pause(for_ms, reason)
    show(event, as_json, lambda: terminal.lines(f"{event.text}."))


@alerts.command("test")
def alerts_test(folder: Folder = HERE, as_json: Json = False) -> None:
    """A message to every channel of the policy; exit code 1 when one does not take it.

    Example: homeostat alerts test -p price
    """
    from homeostat import terminal

    told = opened(folder).alerts.test()
    words = [f"{name}: {failure or 'delivered'}" for name, failure in told.items()]
    show(told, as_json, lambda: terminal.lines(*(words or ["The policy names no channel: set `alerts`."])))
    raise typer.Exit(int(any(told.values())))


def _listed(found: Open) -> None:
    from rich.text import Text

    from homeostat import terminal
    from homeostat.engines.report import words

    current = [one for one in found.alerts if one.closed_ms is None]
    terminal.lines(f"{words.counted(len(current), 'open alert')}." if current else "No open alert.")
    if found.paused_ms:
        terminal.lines(f"Nobody is told until {words.time(found.paused_ms)}.")
    table = terminal.plain_table("", "what", "since", "over", "taken by", "why")
    for one in found.alerts:
        mark, style = terminal.SEVERITY[one.severity]
        over = "" if one.closed_ms is None else words.time(one.closed_ms)
        why = Text(one.evidence, overflow="ellipsis", no_wrap=True)
        table.add_row(
            Text(f"{mark} {one.name}", style=style), one.title, words.time(one.opened_ms), over, one.acked, why
        )
    if found.alerts:
        terminal.out.print(table)
    shares = ", ".join(f"{name} {words.number(share)}" for name, share in found.budget.items())
    total = words.number(sum(found.budget.values()))
    terminal.lines(f"A quiet week brings at most {total} false alarms on average: {shares}.")


def _shown(found: Shown) -> None:
    from rich.text import Text

    from homeostat import terminal
    from homeostat.engines.report import words

    alert = found.alert
    mark, style = terminal.SEVERITY[alert.severity]
    terminal.out.print(Text(f"{mark} {alert.name} {alert.severity}", style=style), Text(alert.title, style="bold"))
    until = f", over since {words.time(alert.closed_ms)}" if alert.closed_ms is not None else ""
    taken = f" Taken by {alert.acked}." if alert.acked else ""
    terminal.lines(f"{alert.evidence}.", f"Since {words.time(alert.opened_ms)}{until}.{taken}")
    if alert.causes:
        terminal.lines("Likely causes:", *(f"  {k}. {cause.words}" for k, cause in enumerate(alert.causes, 1)))
    table = terminal.plain_table("when", "what", "")
    for event in found.history:
        table.add_row(words.time(event.at_ms), event.kind, Text(event.text, overflow="ellipsis", no_wrap=True))
    terminal.out.print(table)
    terminal.lines(*found.commands)
