"""A sheet: rows of numbers under a key each, in memory that other processes can read while they are added to.

A row is its serial number, its key as text, and `WIDTH` doubles. What is added to is found once and kept, so that a
count is one addition. When every row is taken, a new key gets the one that was begun longest ago, lasting ones apart.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from homeostat.ports import SHEET_BYTES

WIDTH = 40
"""Numbers of a row."""
_KEY = 184
_ROW = 8 + _KEY + 8 * WIDTH
_MAGIC = b"homeostat sheet 1"
_HEAD = 64
ROWS = (SHEET_BYTES - _HEAD) // _ROW
_SERIAL, _TEXT = struct.Struct("<Q"), struct.Struct(f"<{_KEY}s")
Row: TypeAlias = "memoryview[float]"
"""`WIDTH` doubles: `row[i] += 1`."""


class Sheet:
    """The one that this process writes. Rows of an earlier life of it are gone on with."""

    def __init__(self, memory: Any, lasting: Callable[[str], bool]) -> None:
        """`memory`: `SHEET_BYTES` that can be written; `lasting`: keys whose rows are kept."""
        self._bytes, self._lasting = memoryview(memory), lasting
        self._lock = threading.Lock()
        if bytes(self._bytes[: len(_MAGIC)]) != _MAGIC:
            self._bytes[:] = bytes(SHEET_BYTES)
            self._bytes[: len(_MAGIC)] = _MAGIC
        self._taken = {key: (serial, place) for place, serial, key in _taken(self._bytes)}
        self.rows = {key: _numbers(self._bytes, place) for key, (_, place) in self._taken.items()}

    def row(self, key: str) -> Row:
        """The row of the key, all zeros when it is new. A key longer than a row has room for is cut."""
        text = key.encode()[:_KEY].decode(errors="ignore")
        with self._lock:
            return self.rows.get(text) or self._begin(text)

    def _begin(self, key: str) -> Row:
        serial, place = 1 + max((serial for serial, _ in self._taken.values()), default=0), self._place()
        start = _HEAD + place * _ROW
        self._bytes[start : start + _ROW] = bytes(_ROW)
        _TEXT.pack_into(self._bytes, start + 8, key.encode())
        _SERIAL.pack_into(self._bytes, start, serial)  # last: from now on it is read
        self._taken[key], self.rows[key] = (serial, place), _numbers(self._bytes, place)
        return self.rows[key]

    def _place(self) -> int:
        free = set(range(ROWS)) - {place for _, place in self._taken.values()}
        if free:
            return min(free)
        passing = [key for key in self._taken if not self._lasting(key)] or list(self._taken)
        oldest = min(passing, key=self._taken.__getitem__)
        del self.rows[oldest]
        return self._taken.pop(oldest)[1]


def read(memory: Any) -> dict[str, list[float]]:
    """What a sheet holds, whoever writes it. A file that is none holds nothing."""
    view = memoryview(memory)
    if bytes(view[: len(_MAGIC)]) != _MAGIC:
        return {}
    return {key: list(_numbers(view, place)) for place, _, key in _taken(view)}


def _taken(view: memoryview[int]) -> Iterator[tuple[int, int, str]]:
    """Place, serial number and key of each row that is."""
    for place in range(ROWS):
        start = _HEAD + place * _ROW
        (serial,) = _SERIAL.unpack_from(view, start)
        if serial:
            (text,) = _TEXT.unpack_from(view, start + 8)
            yield place, serial, text.rstrip(b"\0").decode(errors="ignore")


def _numbers(view: memoryview[int], place: int) -> Row:
    start = _HEAD + place * _ROW + 8 + _KEY
    return view[start : start + 8 * WIDTH].cast("d")
