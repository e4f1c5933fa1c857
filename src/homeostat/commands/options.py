"""What the commands have in common: options, the project they are about, and showing what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from homeostat.domain.gate import Verdict
from homeostat.domain.units import DAY_MS, duration_ms

if TYPE_CHECKING:
    from homeostat.project import Project

Folder = Annotated[Path, typer.Option("--project", "-p", help="The project's folder.")]
Json = Annotated[bool, typer.Option("--json", help="One line of JSON on standard output, for machines.")]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]
HERE = Path()
WEEK_MS = 7 * DAY_MS
EXIT = {Verdict.OK: 0, Verdict.HARM: 1, Verdict.INVALID: 1, Verdict.UNKNOWN: 3}


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time that somebody wrote: its first moment, and the one after its last (None: not said), in ms."""

    start_ms: int
    end_ms: int | None


def opened(folder: Path) -> Project:
    from homeostat.project import Project

    return Project.open(folder)


def show(value: Any, as_json: bool, render: Callable[[], None]) -> None:
    from homeostat import terminal

    if as_json:
        terminal.emit(value)
    else:
        render()


def length(help: str, *names: str, shown: str | bool = True) -> Any:
    """An option that is a duration, in ms; `shown`: its default in words."""
    return typer.Option(*names, parser=_duration, metavar="DURATION", help=help, show_default=shown)


def time(name: str, help: str) -> Any:
    """An option that is a moment, in ms."""
    return typer.Option(name, parser=_moment, metavar="TIME", help=help)


def span(help: str) -> Any:
    """An argument that is a stretch of time."""
    return typer.Argument(parser=_span, metavar="WINDOW", help=help)


def _span(text: str) -> Span:
    start, _, end = text.partition("..")
    window = Span(_moment(start), _moment(end) if end else None)
    if window.end_ms is not None and window.end_ms <= window.start_ms:
        raise typer.BadParameter(f"{text!r} ends before it begins")
    return window


def _duration(text: str) -> int:
    try:
        return int(str(duration_ms(text)))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _moment(text: str) -> int:
    from datetime import UTC, datetime

    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a time: write 2026-01-31 or 2026-01-31T14:30") from None
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1_000)
