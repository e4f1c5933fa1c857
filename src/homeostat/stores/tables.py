"""Tables with versions as Delta tables, a folder each."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import polars as pl
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from homeostat.domain.errors import NotFound, Refused

_TRIES = 10


class DeltaTables:
    """`ports.Tables` below the folder `root`; `datasets/price` is the folder datasets/price. A crash in a write leaves
    at most files that no version refers to."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, name: str, frame: pl.DataFrame) -> int:
        return self._commit(name, frame, "overwrite")

    def append(self, name: str, frame: pl.DataFrame) -> int:
        return self._commit(name, frame, "append")

    def read(self, name: str, version: int | None = None) -> pl.LazyFrame:
        try:
            return pl.scan_delta(DeltaTable(str(self._path(name)), version=version))
        except (TableNotFoundError, DeltaError) as error:
            raise NotFound(f"there is no version {version} of table {name}", where=str(error).split("\n")[0]) from None

    def version(self, name: str) -> int | None:
        path = self._path(name)
        return DeltaTable(str(path)).version() if DeltaTable.is_deltatable(str(path)) else None

    def _path(self, name: str) -> Path:
        return self._root.joinpath(*name.split("/"))

    def _commit(self, name: str, frame: pl.DataFrame, mode: Literal["overwrite", "append"]) -> int:
        """Writers race for the next version; the loser reads the table again and tries once more."""
        path = self._path(name)
        path.mkdir(parents=True, exist_ok=True)
        schema_mode: Literal["overwrite"] | None = "overwrite" if mode == "overwrite" else None
        for _ in range(_TRIES):
            try:
                write_deltalake(str(path), frame, mode=mode, schema_mode=schema_mode)
            except CommitFailedError:
                continue
            return DeltaTable(str(path)).version()
        raise Refused(f"{_TRIES} other writers were first on table {name}", way_out="Try again.")
