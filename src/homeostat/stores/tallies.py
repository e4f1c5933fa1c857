"""What was counted of the log's rows on their way into its table: each row once, as the table itself holds it once.

The counts of an hour are a file named by the version of the table that they belong to, written before that version
is committed. A crash before the commit leaves a file of a version that does not exist: it is no one's, and is deleted
before anything else is committed. After the commit the rows are known to be in the table, and nobody counts them again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl

from homeostat.domain.units import DAY_MS, HOUR_MS
from homeostat.ports import Census
from homeostat.stores.days import DayTables
from homeostat.stores.files import write_atomic

KEPT_MS = 40 * DAY_MS
"""Older hours are deleted: whatever is judged later than that is counted from the log."""
_SINCE = "since"
_AGAIN = 5  # how often a reader that was overtaken by a writer looks again


class Tallies:
    """Below the folder `root`, beside the tables: a folder for each table, in it one for each hour."""

    def __init__(self, root: Path, tables: DayTables) -> None:
        self._root, self._tables = root, tables

    def settle(self, table: str) -> None:
        """Of each hour only what belongs to the table as it is: neither what a newer version replaced, nor what a
        writer left that died before its commit. Hours that are too old go."""
        version, hours = self._tables.version(table), self._hours(table)
        for hour, folder in hours.items():
            kept = _newest(folder, version) if hour >= max(hours) - KEPT_MS else None
            for path in folder.iterdir():
                if path != kept:
                    path.unlink()
            if kept is None:
                folder.rmdir()

    def add(self, table: str, rows: pl.DataFrame, census: Census) -> None:
        """Count rows that the next commit will hold."""
        version, folder = self._tables.version(table), self._folder(table)
        since = self._since(folder, version, rows)
        model = table.partition("/")[2]
        for (hour,), some in rows.group_by(pl.col("at_ms") // HOUR_MS, maintain_order=True):
            start = int(str(hour)) * HOUR_MS
            if start >= since:
                held = _newest(folder / str(start), version)
                counted = census(model, held.read_bytes() if held else None, some)
                write_atomic(folder / str(start) / str(version + 1), counted)

    def read(self, table: str, start_ms: int, end_ms: int) -> Mapping[int, bytes] | None:
        """The counts of each hour that holds rows, by its start. None: some of these rows were not counted, or the
        stretch is none of whole hours."""
        folder = self._folder(table)
        whole = start_ms % HOUR_MS == 0 and end_ms % HOUR_MS == 0
        if not whole or not (folder / _SINCE).exists() or start_ms < int((folder / _SINCE).read_text()):
            return None
        for _ in range(_AGAIN):
            try:
                return self._read(table, self._tables.version(table), start_ms, end_ms)
            except FileNotFoundError:  # a newer version has replaced it meanwhile
                continue
        return None

    def _read(self, table: str, version: int, start_ms: int, end_ms: int) -> dict[int, bytes]:
        found = {}
        for hour, folder in self._hours(table).items():
            held = _newest(folder, version) if start_ms <= hour < end_ms else None
            if held is not None:
                found[hour] = held.read_bytes()
        return found

    def _hours(self, table: str) -> dict[int, Path]:
        """In order, by their start (ms)."""
        return {
            int(path.name): path for path in sorted(self._folder(table).glob("[0-9]*"), key=lambda one: int(one.name))
        }

    def _since(self, folder: Path, version: int, rows: pl.DataFrame) -> int:
        """From which hour on every row is counted: from the first where the table is new, else from the next."""
        path = folder / _SINCE
        if not path.exists():
            after = int(rows["at_ms"].to_numpy().max(initial=0)) // HOUR_MS * HOUR_MS + HOUR_MS
            write_atomic(path, str(0 if version < 0 else after).encode())
        return int(path.read_text())

    def _folder(self, table: str) -> Path:
        return self._root.joinpath("tallies", *table.split("/"))


class SegmentCounts:
    """`ports.Counted` of a log in segments; `on_the_way`: whether a table's rows from before a time (ms) still lie in
    segments."""

    def __init__(self, tallies: Tallies, on_the_way: Callable[[str, int], bool]) -> None:
        self._tallies, self._on_the_way = tallies, on_the_way

    def read(self, model: str, start_ms: int, end_ms: int) -> Mapping[int, bytes] | None:
        return None if self.waits(model, end_ms) else self._tallies.read(f"predictions/{model}", start_ms, end_ms)

    def waits(self, model: str, end_ms: int) -> bool:
        return self._on_the_way(model, end_ms)


def _newest(folder: Path, version: int) -> Path | None:
    """Of the versions up to this one."""
    held = [int(path.name) for path in folder.glob("[0-9]*") if int(path.name) <= version]
    return folder / str(max(held)) if held else None
