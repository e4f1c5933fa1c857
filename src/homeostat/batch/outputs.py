"""OUT: a folder with a Parquet file a part, or a Delta table with a commit a part. No part is there twice."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from homeostat import codec
from homeostat.batch.job import Begun, Job, Part
from homeostat.batch.places import Place, files, is_table, reaching
from homeostat.domain.errors import DataError, UsageError

JOB = "_job.json"
NOTE = "homeostat.job"
"""The key of the job in a commit of a Delta table."""
_LOOKED = 100  # of the newest commits, for a job that is unfinished
_TRIES = 10


class Out(Protocol):
    """Where parts go. It is sent to other machines: it holds addresses, no connections."""

    def begun(self) -> Sequence[Begun]:
        """The jobs that were begun here, the newest first."""
        ...

    def claim(self, job: Job, empty: pl.DataFrame) -> None:
        """Begin the job, or go on with it; `empty` has the columns of its answers. Errors: `UsageError`."""
        ...

    def done(self, job: Job) -> set[str]:
        """The names of the parts that are there."""
        ...

    def write(self, job: Job, part: Part, frame: pl.DataFrame) -> None:
        """Whole or not at all; the same part again changes nothing."""
        ...


def out(place: Place) -> Out:
    return _Table(place.address) if place.table else _Folder(place.address)


@dataclass(frozen=True, slots=True)
class _Folder:
    """Of one job, from its first part on."""

    address: str

    def begun(self) -> Sequence[Begun]:
        text = files(self.address).get(JOB)
        return () if text is None else (codec.decode(text, Begun),)

    def claim(self, job: Job, empty: pl.DataFrame) -> None:
        del empty
        here, begun = files(self.address), self.begun()
        if begun == (job.begun,):
            return
        if not any(name != JOB and not name.startswith(".") for name in here.stamps()):
            here.put(JOB, codec.encode(job.begun))
        elif begun:
            raise self._others()
        else:
            raise UsageError("the folder is not empty", where=self.address, way_out="Choose another one.")

    def done(self, job: Job) -> set[str]:
        del job
        return {name.removesuffix(".parquet") for name in files(self.address).stamps()}

    def write(self, job: Job, part: Part, frame: pl.DataFrame) -> None:
        data = io.BytesIO()
        frame.write_parquet(data, compression_level=1)
        if self.begun() != (job.begun,):  # another was started here before the first part of this one
            raise self._others()
        files(self.address).put(f"{part.name}.parquet", data.getvalue())

    def _others(self) -> UsageError:
        return UsageError(
            "the folder holds the results of another job: other rows, another version or other terms",
            where=self.address,
            way_out="Choose another folder, or delete this one.",
        )


@dataclass(frozen=True, slots=True)
class _Table:
    """Of many jobs: rows are added. Each part is one commit, and each commit one application transaction named after
    job and part: Delta refuses the second of two that race, and whoever comes later finds the first in the log."""

    address: str

    def begun(self) -> Sequence[Begun]:
        """Those of the newest commits: each commit of a part has a note of its job."""
        if not is_table(self.address):
            return ()
        with reaching(self.address):
            notes = [commit[NOTE] for commit in DeltaTable(self.address).history(_LOOKED) if NOTE in commit]
        return [codec.decode(note.encode(), Begun) for note in dict.fromkeys(notes)]

    def claim(self, job: Job, empty: pl.DataFrame) -> None:
        """A table that is not there is made now: parts are written at the same time."""
        with reaching(self.address):
            if is_table(self.address):
                self._fitting(empty)
            else:
                write_deltalake(self.address, empty, mode="append", commit_properties=_noted(job))

    def _fitting(self, empty: pl.DataFrame) -> None:
        columns = pl.Schema(DeltaTable(self.address).schema())
        if dict(columns) != dict(empty.schema):
            wanted = ", ".join(f"{name} ({kind})" for name, kind in empty.schema.items())
            raise UsageError(
                "the table has other columns than the answers", where=self.address, way_out=f"They are: {wanted}."
            )

    def done(self, job: Job) -> set[str]:
        with reaching(self.address):
            table = DeltaTable(self.address)
            return {part.name for part in job.parts() if _known(table, job, part)}

    def write(self, job: Job, part: Part, frame: pl.DataFrame) -> None:
        once = _noted(job, Transaction(_transaction(job, part), 1))
        with reaching(self.address):
            for _ in range(_TRIES):
                table = DeltaTable(self.address)
                if _known(table, job, part):
                    return
                with suppress(CommitFailedError):  # another writer was first, of this part perhaps
                    write_deltalake(table, frame, mode="append", commit_properties=once)
                    return
        raise DataError(f"{_TRIES} other writers were first", where=self.address, way_out="Start again.")


def _noted(job: Job, *transactions: Transaction) -> CommitProperties:
    return CommitProperties({NOTE: codec.encode(job.begun).decode()}, app_transactions=list(transactions))


def _transaction(job: Job, part: Part) -> str:
    return f"homeostat/{job.name}/{part.name}"


def _known(table: DeltaTable, job: Job, part: Part) -> bool:
    return table.transaction_version(_transaction(job, part)) is not None


def missing(parts: Sequence[Part], done: set[str]) -> list[Part]:
    return [part for part in parts if part.name not in done]
