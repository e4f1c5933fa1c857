"""What the commands have in common: options, the project they are about, and showing what came of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from homeostat.project import Project

Folder = Annotated[Path, typer.Option("--project", "-p", help="The project's folder.")]
Json = Annotated[bool, typer.Option("--json", help="One line of JSON on standard output, for machines.")]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]
HERE = Path()


def opened(folder: Path) -> Project:
    from homeostat.project import Project

    return Project.open(folder)


def show(value: Any, as_json: bool, render: Callable[[], None]) -> None:
    from homeostat import terminal

    if as_json:
        terminal.emit(value)
    else:
        render()
