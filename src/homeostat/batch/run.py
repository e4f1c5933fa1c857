"""A job from start to end: claim the place, leave out what is there, score the rest."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from homeostat.batch.inputs import tables
from homeostat.batch.job import Job, OnError, Part
from homeostat.batch.outputs import Out, missing, out
from homeostat.batch.places import Place, place
from homeostat.batch.record import Logs, recorder
from homeostat.batch.work import Done, Record, Shipped, Work, changed, opened, unrecorded
from homeostat.domain.errors import HomeostatError
from homeostat.domain.feedback import Exploration
from homeostat.domain.rollout import Arm
from homeostat.ports import Clock, Cluster, Progress

PART_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class Terms:
    """How a job is done. `on_error`: a row that breaks a rule ends the job, or is marked with its reason."""

    part_rows: int = PART_ROWS
    on_error: OnError = "fail"
    exploration: Exploration | None = None


@dataclass(frozen=True, slots=True)
class BatchResult:
    """`parts` lie in `out`, `reused` of them from an earlier start of the same job; `refused` of the rows that this
    start has scored broke a rule and are marked."""

    out: str
    version: int
    rows: int
    parts: int
    reused: int
    refused: int


@dataclass(frozen=True, slots=True)
class Batch:
    """`ship` fetches a bundle by its id; `logs` keep the answers too, and which of them are explored, on this machine;
    `cluster` does the work elsewhere."""

    ship: Callable[[str], Shipped]
    clock: Clock
    logs: Logs | None = None
    cluster: Cluster | None = None

    def score(
        self, serves: Arm, source: str | Path, target: str | Path, terms: Terms, progress: Progress
    ) -> BatchResult:
        """Every row of `source` → `target`: `id` (the row's own, where there is such a column), `model_version`, and
        score and label, or value; `explore` where there is such a slice. Columns that the model does not know are left
        out. Errors: `DataError` that names file, row and field; `UsageError` when the target holds something else."""
        given, to = place(source), out(place(target))
        how = terms.part_rows, terms.on_error, tables(given), terms.exploration
        job = _unfinished(Job(serves.bundle, serves.version, *how), given, to)
        work = Work(job, self.ship(job.bundle), to)
        to.claim(job, work.empty())
        parts = list(job.parts())
        todo = missing(parts, to.done(job))
        rows, refused = job.rows - sum(part.size for part in todo), 0
        progress(rows, job.rows, "")
        for outcome in self._outcomes(work, todo):
            if isinstance(outcome, HomeostatError):
                raise outcome
            rows, refused = rows + outcome.part.size, refused + outcome.refused
            progress(rows, job.rows, job.tables[outcome.part.number].name)
        return BatchResult(str(target), job.version, job.rows, len(parts), len(parts) - len(todo), refused)

    def _outcomes(self, work: Work, todo: Sequence[Part]) -> Iterator[Done | HomeostatError]:
        if self.cluster is not None:
            return self.cluster.each(work, todo)
        job, bundle = work.job, opened(work.shipped).manifest
        arm = Arm(job.version, job.bundle)
        record = recorder(self.logs, self.clock, bundle, arm, job.exploration) if self.logs else unrecorded
        return _done(work, todo, record)


def _unfinished(asked: Job, source: Place, to: Out) -> Job:
    """The job to do: `asked`, unless it was begun here before and not finished. Then it goes on as it was begun, though
    another version may serve now, and a Delta table have moved on."""
    for begun in to.begun():
        same = source.table and begun.source == asked.tables[0].id
        read = tables(source, begun.read) if same and begun.read != asked.tables[0].version else asked.tables
        job = replace(asked, bundle=begun.bundle, version=begun.version, tables=read)
        if job.name == begun.name and missing(list(job.parts()), to.done(job)):
            return job
    return asked


def _done(work: Work, todo: Sequence[Part], record: Record) -> Iterator[Done]:
    """Every core at work, a part each; a few parts are in memory at any moment."""
    cores = os.cpu_count() or 1
    pending: deque[Future[Done]] = deque()
    with ThreadPoolExecutor(cores) as pool:
        try:
            for part, rows in _read(work, todo):
                pending.append(pool.submit(work.part, part, rows, record))
                if len(pending) > cores:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _read(work: Work, todo: Sequence[Part]) -> Iterator[tuple[Part, pl.DataFrame]]:
    """The parts' rows, each table read once, from its first missing part on."""
    for number, table in enumerate(work.job.tables):
        wanted = {part.first: part for part in todo if part.number == number}
        if wanted:
            for first, rows in table.stream(work.columns, work.job.part_rows, min(wanted)):
                if first in wanted:
                    yield wanted.pop(first), rows
        if wanted:
            raise changed(table)
