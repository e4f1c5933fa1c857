"""Append-only files of checksummed frames, one writer each: what was appended survives a `kill -9`.

A frame is a header (magic, payload length, crc32 of stamp and payload, stamp) and the payload. The stamp, in
nanoseconds, grows from frame to frame and orders frames of different workers by arrival. A frame that fails its
checksum loses only itself: reading goes on at the next magic.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_HEADER = struct.Struct("<4sIIQ")
_MAGIC = b"\xabHs1"
_STAMP = struct.Struct("<Q")
OPEN, CLOSED, _NEW = ".open", ".seg", ".new"


def frame(stamp: int, payload: bytes) -> bytes:
    crc = zlib.crc32(payload, zlib.crc32(_STAMP.pack(stamp)))
    return _HEADER.pack(_MAGIC, len(payload), crc, stamp) + payload


@dataclass(slots=True)
class Scan:
    """What is known of one file: frames up to byte `at`, and how many damaged stretches were passed over."""

    at: int = 0
    lost: int = 0
    fresh: list[tuple[int, bytes]] = field(default_factory=list)

    def feed(self, data: bytes, closed: bool) -> None:
        """`data` is the file from byte `at` on. Complete frames go to `fresh`. The rest is a torn tail: lost when
        the file is `closed`, else perhaps still being written, and read again next time."""
        start = 0
        while start < len(data):
            found = _parse(data, start)
            if found is not None:
                stamp, payload, start = found
                self.fresh.append((stamp, payload))
                continue
            after = _next_good(data, start + 1)
            if after is None and not closed:
                break
            self.lost += 1
            start = len(data) if after is None else after
        self.at += start


def _parse(data: bytes, start: int) -> tuple[int, bytes, int] | None:
    """(stamp, payload, end) of the frame at `start`; None when no whole, sound frame is there."""
    if len(data) - start < _HEADER.size:
        return None
    magic, length, crc, stamp = _HEADER.unpack_from(data, start)
    end = start + _HEADER.size + length
    if magic != _MAGIC or end > len(data):
        return None
    payload = data[start + _HEADER.size : end]
    sound = zlib.crc32(payload, zlib.crc32(_STAMP.pack(stamp))) == crc
    return (stamp, payload, end) if sound else None


def _next_good(data: bytes, start: int) -> int | None:
    at = data.find(_MAGIC, start)
    while at >= 0 and _parse(data, at) is None:
        at = data.find(_MAGIC, at + 1)
    return at if at >= 0 else None


class Writer:
    """One worker's open segment of one stream. A lock on the file tells others that its writer lives; the kernel
    drops it when the process dies."""

    def __init__(self, folder: Path, stream: str, limit: int) -> None:
        self._folder, self._stream, self._limit = folder, stream, limit
        self._file: int | None = None
        self._path = folder
        self._size = self._stamp = 0

    def append(self, payload: bytes) -> None:
        """Returns when the operating system has the bytes (a power cut may still lose the last seconds)."""
        self._stamp = max(time.time_ns(), self._stamp + 1)
        data = frame(self._stamp, payload)
        file = self._opened()
        left = memoryview(data)
        while left:
            left = left[os.write(file, left) :]
        self._size += len(data)
        if self._size >= self._limit:
            self.close()

    def close(self) -> None:
        """Rotate: the segment is complete, the next append opens a new one."""
        if self._file is not None:
            self._path.rename(self._path.with_suffix(CLOSED))
            os.close(self._file)
            self._file = None

    def _opened(self) -> int:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._path = self._folder / f"{self._stream}-{self._stamp:020d}-{os.getpid()}{OPEN}"
            fresh = self._path.with_suffix(_NEW)  # nobody looks at it until it is locked
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self._file, self._size = os.open(fresh, flags, 0o600), 0
            fcntl.flock(self._file, fcntl.LOCK_EX)
            fresh.rename(self._path)
        return self._file


def segments(root: Path, stream: str) -> Iterator[Path]:
    """Every segment of every worker, oldest first within a worker."""
    return (path for path in sorted(root.glob(f"*/{stream}-*")) if path.suffix in (OPEN, CLOSED))


def close_orphans(root: Path, stream: str) -> None:
    """Close the open segments whose writers are dead."""
    for path in segments(root, stream):
        if path.suffix == OPEN and _orphan(path):
            path.rename(path.with_suffix(CLOSED))


def _orphan(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # its writer has just closed it
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(file)
