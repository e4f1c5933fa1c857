"""IN: a CSV or Parquet file, a folder of them, or a Delta table at one version."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import polars as pl
from deltalake import DeltaTable

from homeostat.batch.places import FILES, Place, files, is_table, reaching
from homeostat.domain.errors import DataError


@dataclass(frozen=True, slots=True)
class Table:
    """Rows that are read as one, in a fixed order. `stamp` changes with the content; `version` and `id` are a Delta
    table's."""

    name: str
    address: str
    stamp: str
    version: int | None = None
    id: str = ""
    rows: int = 0

    def scan(self) -> pl.LazyFrame:
        """CSV as text: the schema says what it is."""
        if self.version is not None:
            return pl.scan_delta(self.address, version=self.version)
        if self.address.endswith(".parquet"):
            return pl.scan_parquet(self.address, glob=False)
        return pl.scan_csv(self.address, glob=False, infer_schema=False)

    def counted(self) -> Table:
        with reaching(self.address):
            return replace(self, rows=int(self.scan().select(pl.len()).collect().item()))

    def read(self, columns: Container[str], first: int, size: int) -> pl.DataFrame:
        with reaching(self.address):
            return self._of(columns).slice(first, size).collect()

    def stream(self, columns: Container[str], size: int, first: int = 0) -> Iterator[tuple[int, pl.DataFrame]]:
        """(number of its first row, rows) from row `first` on: exactly `size` of them, however the reader cuts them;
        the last has the rest. Of `columns` those that are there."""
        held = pl.DataFrame()
        with reaching(self.address):
            for frame in self._of(columns).slice(first).collect_batches(chunk_size=size, maintain_order=True):
                held = pl.concat([held, frame]) if held.width else frame
                while len(held) >= size:
                    yield first, held.head(size)
                    first, held = first + size, held.slice(size)
        if len(held):
            yield first, held

    def _of(self, columns: Container[str]) -> pl.LazyFrame:
        """Of a table that has none of them the first column: its rows still count. Of a CSV file the last one too: a
        line with more fields than columns is found only where it is read to its end."""
        rows = self.scan()
        names = rows.collect_schema().names()
        end = names[-1] if self.address.endswith(".csv") else None
        return rows.select([name for name in names if name in columns or name == end] or names[:1])


def tables(source: Place, version: int | None = None) -> tuple[Table, ...]:
    """In the order of their names; a Delta table at `version`, the newest by default. Errors: `DataError`."""
    found = (_delta(source.address, version),) if source.table else _files(source.address)
    return tuple(table.counted() for table in found)


def _delta(address: str, version: int | None) -> Table:
    """Its files belong to the stamp, in the order in which they are read: ids follow from the order of the rows."""
    if not is_table(address):
        raise DataError("there is no Delta table", where=address)
    with reaching(address):
        table = DeltaTable(address, version=version)
        names = [uri.rpartition("/")[2] for uri in table.file_uris()]
        order = hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]
        return Table(PurePosixPath(address).name, address, order, table.version(), str(table.metadata().id))


def _files(address: str) -> list[Table]:
    """Hidden files (`.x`, `_x`) are left out. A folder gives its Parquet files, then its CSV files."""
    if address.endswith(FILES):
        folder, _, name = address.rpartition("/")
        stamp = files(folder).stamps().get(name)
        if stamp is None:
            raise DataError("the file is not there", where=address)
        return [Table(name, address, stamp)]
    seen = sorted(files(address).stamps().items())
    found = [(name, stamp) for kind in FILES for name, stamp in seen if name.endswith(kind) and name[0] not in "._"]
    if not found:
        told = "no CSV or Parquet file is there, and no Delta table"
        raise DataError(told, where=address, way_out="The names of files end with .csv or .parquet.")
    return [Table(name, f"{address}/{name}", stamp) for name, stamp in found]
