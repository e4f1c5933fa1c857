"""The routing document as one JSON file."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from homeostat import codec
from homeostat.domain.errors import Corrupt, Deposed, Refused
from homeostat.domain.rollout import Routing


class FileRouter:
    """`ports.Router`. The file is replaced whole, so that a reader sees the old document or the new one; the one
    before is kept beside it, and is read when the newest can't be. Writers take turns by a lock on a file beside it;
    `term` gives the term of a writer that must lead; it goes into what it writes."""

    def __init__(self, path: Path, term: Callable[[], int] | None = None) -> None:
        self._path, self._kept, self._term = path, path.with_suffix(".last.json"), term

    def read(self) -> Routing:
        """The published document; version 0 with no routes before the first. Errors: `Corrupt` when neither the
        newest nor the one before it can be read."""
        try:
            return codec.decode(self._path.read_bytes(), Routing)
        except FileNotFoundError:
            return codec.decode(self._kept.read_bytes(), Routing) if self._kept.exists() else Routing()
        except (Corrupt, ValueError):
            if not self._kept.exists():
                raise
            return codec.decode(self._kept.read_bytes(), Routing)

    def publish(self, routing: Routing) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self._path.with_suffix(".lock")):
            published = self.read()
            term = self._term() if self._term else published.term
            if term < published.term:
                raise Deposed("another control plane leads by now")
            if routing.version != published.version + 1:
                raise Refused(f"the routing document is at version {published.version} by now")
            if published.version:
                _replace(self._kept, codec.encode(published))
            _replace(self._path, codec.encode(replace(routing, term=term)))


class FileRouters:
    """`ports.Routes` of several projects, each with models of its own. A version counts all that were published."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._routers = [FileRouter(path) for path in paths]

    def read(self) -> Routing:
        """Errors: as `FileRouter.read`."""
        found = [router.read() for router in self._routers]
        return Routing(
            sum(one.version for one in found),
            {model: route for one in found for model, route in one.routes.items()},
            {model: route for one in found for model, route in one.experiments.items()},
            {f"{i}/{name}": token for i, one in enumerate(found) for name, token in one.testers.items()},
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """The lock goes with the process."""
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _replace(path: Path, data: bytes) -> None:
    """Write so that a crash at any moment leaves the old bytes or the new ones."""
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
