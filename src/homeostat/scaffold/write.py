"""New files: all of them or none, and never over one that is there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from homeostat.domain.errors import UsageError
from homeostat.stores.files import write_atomic

_SHOWN = 5


def refuse_existing(root: Path, names: Sequence[str]) -> None:
    """Errors: `UsageError` that names the files in the way."""
    if root.exists() and not root.is_dir():
        raise UsageError("a project is a folder, and this is a file", where=str(root), way_out="Give another folder.")
    there = [name for name in names if os.path.lexists(root / name)]
    if there:
        more = f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else ""
        raise UsageError(
            f"files are there already, and `init` overwrites none: {', '.join(there[:_SHOWN])}{more}",
            where=str(root),
            way_out="Choose a new folder, or move the files away.",
        )


def write_all(root: Path, texts: Mapping[str, str]) -> None:
    """Path below `root` → text. Errors: `UsageError`; then no file and no folder of this call is left."""
    made: list[Path] = []
    try:
        for name, text in texts.items():
            path = root / name
            _folders(path.parent, made)
            refuse_existing(root, [name])  # another one may have been quicker
            made.append(path)
            write_atomic(path, text.encode())
    except OSError as error:
        _undo(made)
        raise UsageError(
            f"can't write the project: {error.strerror}",
            where=str(error.filename or root),
            way_out="Choose a folder you may write to.",
        ) from None
    except BaseException:  # Ctrl-C too
        _undo(made)
        raise


def _folders(folder: Path, made: list[Path]) -> None:
    """Make the folder and those above it; note each new one."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir()
        made.append(path)


def _undo(made: Sequence[Path]) -> None:
    """Last made, first gone. What can't be removed stays: the error that led here says more."""
    for path in reversed(made):
        with suppress(OSError):
            path.rmdir() if path.is_dir() else path.unlink()
