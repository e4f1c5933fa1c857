"""Writing a file so that a reader finds all of it or none, whatever happens meanwhile."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4


def write_atomic(path: Path, data: bytes) -> None:
    """Write beside, flush to the disk, rename into place; the folder is flushed too, so the name survives."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        with beside.open("wb") as file:
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
