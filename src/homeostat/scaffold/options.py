"""What `init` is asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from homeostat.domain.schema import Task


@dataclass(frozen=True, slots=True)
class Options:
    """`time`: a column, or several that make the time together (a date and an hour); or rows every `every_ms` from
    `start` (an ISO date or date-time) on; or neither: then rows count as one a second, in their order."""

    data: Path
    target: str
    time: tuple[str, ...] = ()
    every_ms: int | None = None
    start: str | None = None
    key: str | None = None
    drop: tuple[str, ...] = ()
    label_horizon_ms: int = 0
    repeated_times: Literal["refuse", "allow"] = "refuse"


@dataclass(frozen=True, slots=True)
class Made:
    """A new project. `files` are relative to `root`; `rows` have a target, the first at `from_ms`, the last at
    `until_ms` (seconds of 1970 where there are no times); `notes` say what was chosen and what deserves a look."""

    root: Path
    files: tuple[str, ...]
    name: str
    task: Task
    metric: str
    rows: int
    fields: tuple[str, ...]
    from_ms: int
    until_ms: int
    notes: tuple[str, ...]
