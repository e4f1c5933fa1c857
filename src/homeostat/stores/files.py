"""Writing a file so that a reader finds all of it or none, whatever happens meanwhile."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from functools import partial
from pathlib import Path
from uuid import uuid4


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write beside, flush to the disk, rename into place; the folder is flushed too, so the name survives."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        with open(beside, "wb", opener=partial(os.open, mode=mode)) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def secret(path: Path) -> bytes:
    """32 random bytes, made once and readable by their owner alone. Of several who make them at once, one wins."""
    with suppress(FileNotFoundError):
        return path.read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    write_atomic(beside, secrets.token_bytes(32), 0o600)
    with suppress(FileExistsError):
        path.hardlink_to(beside)
    beside.unlink()
    return path.read_bytes()
