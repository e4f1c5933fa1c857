"""What a process has to say of its part of the log: whether it can write, and what it lost.

Each has one small file, made while there is room and written in place, so that a full disk can be told of. A lock on
it says that the process lives; what a dead one said is of no interest.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec

from homeostat.domain.figures import LogFigures
from homeostat.domain.units import iso
from homeostat.stores.segments import CLOSED, claimed, orphan

_SIZE = 512  # one sector: written at once
_SUFFIX = ".health"
_LATE_MS = 600_000
WRITING, COMPACTING, LARGE = "log not written", "log not compacted", "log too large"
CAUSES = (WRITING, COMPACTING, LARGE)
_log = logging.getLogger("homeostat.log")


@dataclass(frozen=True, slots=True)
class State:
    """`error` since `since_ms`, "" when all is well. `lost`: rows answered without a record, ever; `cause`: one
    of the three above."""

    cause: str
    error: str = ""
    since_ms: int = 0
    lost: int = 0
    strict: bool = True


class Health:
    """One process's own."""

    def __init__(self, folder: Path, cause: str, strict: bool = True) -> None:
        self.state = State(cause, strict=strict)
        self._path = folder / f"{time.time_ns():020d}-{os.getpid()}{_SUFFIX}"
        self._file: int | None = None
        self._unsynced = False

    def begin(self) -> None:
        """Take the room that is needed to complain, while there is some. Once: it is called before each append."""
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = claimed(self._path)
            self._write(self.state)

    def bad(self, error: Exception, lost: int = 0) -> None:
        """It failed, `lost` rows with it."""
        words = (error.strerror if isinstance(error, OSError) else None) or str(error).split("\n")[0]
        since = self.state.since_ms if self.state.error else time.time_ns() // 1_000_000
        if not self.state.error:
            _log.error("%s: %s", self.state.cause, words)
        self._write(replace(self.state, error=words[:200], since_ms=since, lost=self.state.lost + lost))

    def good(self) -> None:
        if self.state.error and not self._unsynced:
            _log.warning("%s: over; %d rows were lost so far", self.state.cause, self.state.lost)
            self._write(replace(self.state, error="", since_ms=0))

    def synced(self, error: OSError | None) -> None:
        """What became of a sync; while it fails, an append that works does not make all well."""
        self._unsynced = error is not None
        if error is not None:
            self.bad(error)

    def told(self, error: Exception | None) -> None:
        """It failed, or it did not."""
        with suppress(OSError):  # no room: the log of this process has it all the same
            self.begin()
        self.good() if error is None else self.bad(error)

    def _write(self, state: State) -> None:
        self.state = state
        if self._file is None:
            return
        with suppress(OSError):  # no room from the start: an empty file says so
            os.pwrite(self._file, msgspec.json.encode(asdict(state)).ljust(_SIZE), 0)


def states(root: Path) -> Iterator[State]:
    """Of every process that lives."""
    for path in root.glob(f"*/*{_SUFFIX}"):
        if orphan(path):
            continue
        with suppress(FileNotFoundError, msgspec.MsgspecError):  # ended meanwhile; being written
            said = path.read_bytes()
            yield msgspec.json.decode(said, type=State) if said else State(WRITING, "no room")


def forget_the_dead(root: Path) -> None:
    for path in root.glob(f"*/*{_SUFFIX}"):
        if orphan(path):
            path.unlink(missing_ok=True)


def troubles(root: Path) -> dict[str, str]:
    """Cause → what is known of it, and the way out."""
    found: dict[str, str] = {}
    bad = [state for state in states(root) if state.error]
    writing = [state for state in bad if state.cause == WRITING]
    if writing:
        found[WRITING] = _unwritten(writing, root)
    found |= {state.cause: state.error for state in bad if state.cause == LARGE}
    late = next((state for state in bad if state.cause == COMPACTING), None) or _backlog(root)
    if late is not None:
        since = f" since {iso(late.since_ms)}" if late.since_ms else ""
        found[COMPACTING] = (
            f"{late.error}{since}. Nothing is lost: segments in {root} wait. Run `homeostat compact` to see why."
        )
    return found


def figures(root: Path) -> LogFigures:
    """The same in numbers."""
    waiting = [stat for stat in map(_stat, root.glob(f"*/*{CLOSED}")) if stat is not None]
    oldest = min((stat.st_mtime_ns for stat in waiting), default=None)
    said = list(states(root))
    return LogFigures(
        len(waiting),
        sum(stat.st_size for stat in waiting),
        0 if oldest is None else max(0, time.time_ns() - oldest) // 1_000_000,
        {cause: any(state.error and state.cause == cause for state in said) for cause in CAUSES},
        sum(state.lost for state in said),
    )


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:  # compacted meanwhile
        return None


def _unwritten(bad: list[State], root: Path) -> str:
    lost = sum(state.lost for state in bad)
    since = min((state.since_ms for state in bad if state.since_ms), default=0)
    done = "requests get a 503" if bad[0].strict else f"{lost:,} rows were answered without a record"
    when = f" since {iso(since)}" if since else ""
    return f"{bad[0].error}{when}; {done}. Make room on the disk of {root}, or lower log.max_size"


def _backlog(root: Path) -> State | None:
    """No compactor, or one that dies before it can say why: closed segments grow old."""
    oldest = min((_changed_ms(path) for path in root.glob(f"*/*{CLOSED}")), default=None)
    if oldest is None or time.time_ns() // 1_000_000 - oldest < _LATE_MS:
        return None
    return State(COMPACTING, "closed segments wait", oldest)


def _changed_ms(path: Path) -> int:
    stat = _stat(path)
    return (time.time_ns() if stat is None else stat.st_mtime_ns) // 1_000_000
