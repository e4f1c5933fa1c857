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
from homeostat.batch.job import Job, Part
from homeostat.batch.places import Place, files, is_table, reaching
from homeostat.domain.errors import DataError, UsageError

JOB = "_job.json"
NOTE = "homeostat.job"
"""The key of the job in a commit of a Delta table."""
_LOOKED = 100  # the newest commits that an unfinished job is looked for in
_TRIES = 10


class Out(Protocol):
    """Where parts go. It is sent to other machines: it holds addresses, no connections."""

    def held(self) -> Job | None:
        """The newest job that was begun here."""
        ...

    def claim(self, job: Job, empty: pl.DataFrame) -> None:
        """Begin the job, or go on with it; `empty` has the columns of its answers. Errors: `UsageError`."""
        ...

    def done(self, job: Job) -> set[str]:
        """The names of the parts that are there."""
        ...

    def write(self, job: str, part: Part, frame: pl.DataFrame) -> None:
        """The part `part` of the job named `job`, whole or not at all; a part that is there already stays as it is."""
        ...


def out(place: Place) -> Out:
    return _Table(place.address) if place.table else _Folder(place.address)


@dataclass(frozen=True, slots=True)
class _Folder:
    """Of one job."""

    address: str

    def held(self) -> Job | None:
        text = files(self.address).get(JOB)
        return None if text is None else codec.decode(text, Job)

    def claim(self, job: Job, empty: pl.DataFrame) -> None:
        del empty
        here = files(self.address)
        text = here.get(JOB)
        if text is None:
            if here.stamps():
                raise UsageError("the folder is not empty", where=self.address, way_out="Choose another one.")
            here.put(JOB, job.text)
        elif text != job.text:
            raise UsageError(
                "the folder holds the results of another job: other rows, another version or other terms",
                where=self.address,
                way_out="Choose another folder, or delete this one.",
            )

    def done(self, job: Job) -> set[str]:
        del job
        return {name.removesuffix(".parquet") for name in files(self.address).stamps()}

    def write(self, job: str, part: Part, frame: pl.DataFrame) -> None:
        del job
        data = io.BytesIO()
        frame.write_parquet(data, compression_level=1)
        files(self.address).put(f"{part.name}.parquet", data.getvalue())


@dataclass(frozen=True, slots=True)
class _Table:
    """Of many jobs: rows are added. Each part is one commit, and each commit one application transaction named after
    job and part: Delta refuses the second of two that race, and whoever comes later finds the first in the log."""

    address: str

    def held(self) -> Job | None:
        with reaching(self.address):
            if not is_table(self.address):
                return None
            notes = [commit[NOTE] for commit in DeltaTable(self.address).history(_LOOKED) if NOTE in commit]
        return codec.decode(notes[0].encode(), Job) if notes else None

    def claim(self, job: Job, empty: pl.DataFrame) -> None:
        """The note is an empty commit: who comes later can tell which job was begun, at which version of its rows."""
        with reaching(self.address):
            if is_table(self.address):
                self._fitting(empty)
            held = self.held()
            if held is None or held.text != job.text:
                note = CommitProperties(custom_metadata={NOTE: job.text.decode()})
                write_deltalake(self.address, empty, mode="append", commit_properties=note)

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
            return {part.name for part in job.parts() if _known(table, job.name, part)}

    def write(self, job: str, part: Part, frame: pl.DataFrame) -> None:
        once = CommitProperties(app_transactions=[Transaction(_transaction(job, part), 1)])
        with reaching(self.address):
            for _ in range(_TRIES):
                table = DeltaTable(self.address)
                if _known(table, job, part):
                    return
                with suppress(CommitFailedError):  # another writer was first, of this part perhaps
                    write_deltalake(table, frame, mode="append", commit_properties=once)
                    return
        raise DataError(f"{_TRIES} other writers were first", where=self.address, way_out="Start again.")


def _transaction(job: str, part: Part) -> str:
    return f"homeostat/{job}/{part.name}"


def _known(table: DeltaTable, job: str, part: Part) -> bool:
    return table.transaction_version(_transaction(job, part)) is not None


def missing(parts: Sequence[Part], done: set[str]) -> list[Part]:
    return [part for part in parts if part.name not in done]
