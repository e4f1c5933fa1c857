"""Append-only files of checksummed frames, one writer each: what was appended survives a `kill -9`.

A frame is a header (magic, payload length, stamp, crc32 of the payload, crc32 of the header before it) and the payload.
The stamp, in nanoseconds, grows from frame to frame and orders frames of different workers by arrival. A frame that
fails its checksums loses only itself: reading goes on at the next header that is sound. The header has a checksum of
its own, so that looking for it costs no more than reading the file once, whatever the file holds.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_HEADER = struct.Struct("<4sIQI")
_CRC = struct.Struct("<I")
_START = _HEADER.size + _CRC.size
_MAGIC = b"\xabHs2"
OPEN, CLOSED, _NEW = ".open", ".seg", ".new"


def frame(stamp: int, payload: bytes) -> bytes:
    header = _HEADER.pack(_MAGIC, len(payload), stamp, zlib.crc32(payload))
    return header + _CRC.pack(zlib.crc32(header)) + payload


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
    if len(data) - start < _START:
        return None
    magic, length, stamp, crc = _HEADER.unpack_from(data, start)
    begin = start + _HEADER.size
    if magic != _MAGIC or zlib.crc32(data[start:begin]) != _CRC.unpack_from(data, begin)[0]:
        return None
    payload = data[start + _START : start + _START + length]
    sound = len(payload) == length and zlib.crc32(payload) == crc
    return (stamp, payload, start + _START + length) if sound else None


def _next_good(data: bytes, start: int) -> int | None:
    at = data.find(_MAGIC, start)
    while at >= 0 and _parse(data, at) is None:
        at = data.find(_MAGIC, at + 1)
    return at if at >= 0 else None


@dataclass(frozen=True, slots=True)
class Rules:
    """A segment of `limit` bytes, or `age_ms` old, is closed. `sync_ms`: the disk has every frame that much later at
    most, as long as it keeps up; 0: before `append` returns."""

    limit: int = 32 << 20
    age_ms: int = 60_000
    sync_ms: int = 1_000


@dataclass(slots=True)
class _Segment:
    path: Path
    file: int
    opened_s: float = field(default_factory=time.monotonic)
    size: int = 0
    synced: int = 0

    def write(self, data: bytes) -> None:
        """All of it or none: what a full disk took is cut off again."""
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self.file, left) :]
        except OSError:
            with suppress(OSError):  # a torn frame inside a file loses only itself
                os.ftruncate(self.file, self.size)
            self.size = os.lseek(self.file, 0, os.SEEK_END)
            raise
        self.size += len(data)


class Writer:
    """One worker's open segment of one stream. A lock on the file tells others that its writer lives; the kernel
    drops it when the process dies. A thread syncs and closes beside `append`, which never waits for the disk.
    `told` hears of each failed sync, and of None after one that worked."""

    def __init__(
        self, folder: Path, stream: str, rules: Rules, told: Callable[[OSError | None], None] = lambda _: None
    ) -> None:
        self._folder, self._stream, self._rules, self._told = folder, stream, rules, told
        self._segment: _Segment | None = None
        self._closed: list[_Segment] = []  # and not synced yet
        self._renamed = False
        self._stamp = 0
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._keeper: threading.Thread | None = None

    def append(self, payload: bytes) -> None:
        """Returns when the operating system has the bytes. Errors: OSError; then nothing was written."""
        with self._lock:
            self._stamp = max(time.time_ns(), self._stamp + 1)
            segment = self._opened()
            segment.write(frame(self._stamp, payload))
            if segment.size >= self._rules.limit:
                self._rotate()
        if not self._rules.sync_ms:
            self._sync()

    def tend(self) -> None:
        """Close the segment if it is old, and sync."""
        try:
            with self._lock:
                segment = self._segment
                if segment is not None and (time.monotonic() - segment.opened_s) * 1_000 >= self._rules.age_ms:
                    self._rotate()
            self._sync()
        except OSError as error:
            self._told(error)

    def close(self) -> None:
        """The segment is complete and on disk; the next append opens a new one."""
        self._ended.set()
        if self._keeper is not None:
            self._keeper.join()
            self._keeper = None
        with self._lock:
            self._rotate()
        self._sync()

    def _keep(self) -> None:
        while not self._ended.wait((self._rules.sync_ms or 1_000) / 1_000):
            self.tend()

    def _rotate(self) -> None:
        if self._segment is not None:
            self._segment.path.rename(self._segment.path.with_suffix(CLOSED))
            self._closed.append(self._segment)
            self._segment, self._renamed = None, True

    def _sync(self) -> None:
        """The lock is held only to see what there is to do."""
        with self._lock:
            done, self._closed = self._closed, []
            files = [segment.file for segment in done]
            current = self._segment
            news = current is not None and current.size != current.synced
            if current is not None and news:
                files.append(os.dup(current.file))  # `append` may close its own meanwhile
                current.synced = current.size
            renamed, self._renamed = self._renamed, False
        try:
            for file in files:
                os.fdatasync(file)
            if renamed:
                sync_folder(self._folder)
        finally:
            for file in files:
                os.close(file)
        if files:
            self._told(None)

    def _opened(self) -> _Segment:
        if self._segment is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{self._stream}-{self._stamp:020d}-{os.getpid()}{OPEN}"
            self._segment = _Segment(path, claimed(path, os.O_APPEND))
            self._renamed = True
        if self._keeper is None:
            self._ended = threading.Event()
            self._keeper = threading.Thread(target=self._keep, name=f"sync {self._stream}", daemon=True)
            self._keeper.start()
        return self._segment


def claimed(path: Path, flags: int = 0) -> int:
    """A new file, locked before anyone can see it under its name. → its descriptor."""
    fresh = path.with_suffix(_NEW)
    file = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | flags, 0o600)
    fcntl.flock(file, fcntl.LOCK_EX)
    fresh.rename(path)
    return file


def sync_folder(folder: Path) -> None:
    """The names in it survive a power cut."""
    file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def segments(root: Path, stream: str) -> Iterator[Path]:
    """Every segment of every worker, oldest first within a worker."""
    return (path for path in sorted(root.glob(f"*/{stream}-*")) if path.suffix in (OPEN, CLOSED))


def close_orphans(root: Path, stream: str) -> None:
    """Close the open segments whose writers are dead."""
    for path in segments(root, stream):
        if path.suffix == OPEN and orphan(path):
            path.rename(path.with_suffix(CLOSED))


def orphan(path: Path) -> bool:
    """The process that made the file is dead."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # its writer has just closed it
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(file)
