"""What makes two starts the same job, and its parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from homeostat import codec
from homeostat.batch.inputs import Table
from homeostat.domain.feedback import Exploration

OnError = Literal["fail", "mark"]


@dataclass(frozen=True, slots=True)
class Part:
    """Rows `first` to `first + size` of the job's table `number`."""

    number: int
    first: int
    size: int

    @property
    def name(self) -> str:
        return f"part-{self.number:05d}-{self.first:012d}"


@dataclass(frozen=True, slots=True)
class Begun:
    """What is noted of a job where its parts are: its name, the model's bundle and version, and for a Delta table its
    id and the version that is read."""

    name: str
    bundle: str
    version: int
    source: str = ""
    read: int | None = None


@dataclass(frozen=True)
class Job:
    """The version `version` of the model on the rows of `tables`; with an `exploration` slice a column tells it."""

    bundle: str
    version: int
    part_rows: int
    on_error: OnError
    tables: tuple[Table, ...]
    exploration: Exploration | None = None

    @cached_property
    def name(self) -> str:
        """Where the tables lie is not part of it: a folder may be moved."""
        same = replace(self, tables=tuple(replace(table, address="") for table in self.tables))
        return hashlib.sha256(codec.encode(same)).hexdigest()[:12]

    @property
    def begun(self) -> Begun:
        first = self.tables[0]
        return Begun(self.name, self.bundle, self.version, first.id, first.version)

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)

    def parts(self) -> Iterator[Part]:
        size = self.part_rows
        for number, table in enumerate(self.tables):
            for first in range(0, table.rows, size):
                yield Part(number, first, min(size, table.rows - first))
