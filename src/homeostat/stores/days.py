"""Tables that only grow and then lose their oldest days: Delta, partitioned by the column `day`.

Nothing refers to a version of such a table (what a model learned from is copied into its data version), so files that
the newest version does not need are deleted an hour later. Every commit is on disk when its method returns. One
writer at a time.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from urllib.parse import unquote

import polars as pl
from deltalake import DeltaTable, write_deltalake

from homeostat.stores.segments import sync_folder

DAY = "day"
_TARGET = 128 << 20  # bytes of a file that is not merged any further
_MANY = 50  # small files of a day that is not over
_GRACE_H = 1  # how long a reader may go on with the files of an old version
_SETTINGS = {"delta.logRetentionDuration": "interval 1 days", "delta.deletedFileRetentionDuration": "interval 1 hours"}


class DayTables:
    """Below the folder `root`: the table `predictions/price` is the folder predictions/price."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> list[str]:
        """Of the logs; what else lies in the folder is none of its business."""
        places = ("predictions/*", "labels", "signals")
        logs = [path for place in places for path in self._root.glob(f"{place}/_delta_log")]
        return sorted(str(path.parent.relative_to(self._root)) for path in logs)

    def append(self, name: str, rows: pl.DataFrame) -> None:
        """`rows` has the column `day` (Date). A column that the table has not yet is null in its older rows."""
        path = self._path(name)
        path.mkdir(parents=True, exist_ok=True)
        settings = None if DeltaTable.is_deltatable(str(path)) else _SETTINGS
        write_deltalake(str(path), rows, mode="append", schema_mode="merge", partition_by=[DAY], configuration=settings)
        _flush(path)

    def version(self, name: str) -> int:
        """The newest; -1 where there is no such table."""
        path = str(self._path(name))
        return DeltaTable(path).version() if DeltaTable.is_deltatable(path) else -1

    def read(self, name: str) -> pl.LazyFrame | None:
        """None where there is no such table. A filter on a time opens only the files that hold such times: each commit
        says what is in its files."""
        path = str(self._path(name))
        return pl.scan_delta(DeltaTable(path)) if DeltaTable.is_deltatable(path) else None

    def days(self) -> dict[date, int]:
        """Bytes of each day, over all tables."""
        total: Counter[date] = Counter()
        for name in self.names():
            for day, size in _files(DeltaTable(str(self._path(name)))):
                total[day] += size
        return dict(sorted(total.items()))

    def remove(self, before: date) -> None:
        """Drop the days before that one from all tables. Their files go an hour later."""
        for name in self.names():
            table = DeltaTable(str(self._path(name)))
            if any(day < before for day, _ in _files(table)):
                table.delete(f"{DAY} < '{before.isoformat()}'")
                _flush(self._path(name))

    def tidy(self, today: date) -> None:
        """Merge small files: those of a day that is over, and of one that has many. Delete what nobody needs, and
        what a crash has left."""
        for name in self.names():
            table = DeltaTable(str(self._path(name)))
            small = Counter(day for day, size in _files(table) if size < _TARGET // 2)
            for day, files in small.items():
                if files >= (_MANY if day >= today else 2):
                    table.optimize.compact([(DAY, "=", day.isoformat())], target_size=_TARGET)
                    _flush(self._path(name))
            table.vacuum(_GRACE_H, dry_run=False, enforce_retention_duration=False, full=True)

    def _path(self, name: str) -> Path:
        return self._root.joinpath(*name.split("/"))


def _files(table: DeltaTable) -> Iterator[tuple[date, int]]:
    """(day, bytes) of each file."""
    files = pl.DataFrame(table.get_add_actions(flatten=True))
    return files.select(f"partition.{DAY}", "size_bytes").iter_rows()


def _flush(path: Path) -> None:
    """The newest version survives a power cut: its files first, then the commit that names them."""
    log = path / "_delta_log"
    commit = log / f"{DeltaTable(str(path)).version():020d}.json"
    actions = [json.loads(line) for line in commit.read_text().splitlines()]
    made = [path / unquote(action["add"]["path"]) for action in actions if "add" in action]
    for file in (*made, commit):
        _sync(file)
    for folder in dict.fromkeys([*(file.parent for file in made), log, path, path.parent]):
        sync_folder(folder)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
