"""Memory that the processes of a data plane share: a mapped file each, which a lock says to be in use."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from homeostat.ports import SHEET_BYTES
from homeostat.stores.segments import orphan

_SUFFIX = ".sheet"


class SharedMemory:
    """`ports.Shared` in a folder. A write is seen at once by whoever reads; `kill -9` takes none back, a power cut may.

    The pid stands in the last bytes of the file, beyond the memory.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._mapped: mmap.mmap | None = None

    def own(self) -> Any:
        if self._mapped is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._mapped = mmap.mmap(self._claimed(), SHEET_BYTES)
        return self._mapped

    def _claimed(self) -> int:
        """The file of that name; another one while a process of the same name lives, or somebody just asks whether."""
        for again in count(1):
            name = self._name if again == 1 else f"{self._name}-{again}"
            file = os.open(self._folder / f"{name}{_SUFFIX}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                continue
            os.ftruncate(file, SHEET_BYTES + 8)
            os.pwrite(file, os.getpid().to_bytes(8, "little"), SHEET_BYTES)
            return file
        raise AssertionError("count does not end")

    def all(self) -> Sequence[tuple[str, int | None, Any]]:
        found: list[tuple[str, int | None, Any]] = []
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            with suppress(FileNotFoundError):  # somebody has cleared the folder
                held = path.read_bytes()
                if len(held) > SHEET_BYTES:  # else it is being made
                    pid = None if orphan(path) else int.from_bytes(held[SHEET_BYTES:], "little")
                    found.append((path.stem, pid, held[:SHEET_BYTES]))
        return found
