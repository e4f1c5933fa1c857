"""A job from start to end: claim the place, leave out what is there, score the rest."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from homeostat.batch.inputs import tables
from homeostat.batch.job import Job, OnError, Part
from homeostat.batch.outputs import Out, missing, out
from homeostat.batch.places import Place, place
from homeostat.batch.work import Done, Record, Shipped, Work, unrecorded
from homeostat.domain.errors import HomeostatError
from homeostat.ports import Cluster, Progress

PART_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class Terms:
    """How a job is done. `on_error`: a row that breaks a rule ends the job, or is marked with its reason."""

    part_rows: int = PART_ROWS
    on_error: OnError = "fail"


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


def score(
    shipped: Shipped,
    version: int,
    source: str | Path,
    target: str | Path,
    terms: Terms,
    progress: Progress,
    record: Record = unrecorded,
    cluster: Cluster | None = None,
) -> BatchResult:
    """Every row of `source` → `target`: `id` (the row's own, where there is such a column), `model_version`, and score
    and label, or value. Columns that the model does not know are left out. `record` sees the answers of each part
    before they are written, on this machine only. Errors: `DataError` that names file, row and field; `UsageError`
    when the target holds something else."""
    given, taken = place(source), place(target)
    to = out(taken)
    job = _job(shipped.bundle, version, terms, given, to)
    work = Work(job, job.name, shipped, to)
    to.claim(job, work.empty())
    parts = list(job.parts())
    todo = missing(parts, to.done(job))
    reused, refused = len(parts) - len(todo), 0
    rows = job.rows - sum(part.size for part in todo)
    progress(rows, job.rows, "")
    for outcome in _done(work, todo, record) if cluster is None else cluster.each(work, todo):
        if isinstance(outcome, HomeostatError):
            raise outcome
        rows, refused = rows + outcome.part.size, refused + outcome.refused
        progress(rows, job.rows, job.tables[outcome.part.number].name)
    return BatchResult(str(target), version, job.rows, len(parts), reused, refused)


def _job(bundle: str, version: int, terms: Terms, source: Place, to: Out) -> Job:
    """The job that was asked for. A Delta table may have moved on since the job was begun: an unfinished one goes on
    at the version that it began with."""

    def at(read: int | None) -> Job:
        return Job(bundle, version, terms.part_rows, terms.on_error, tables(source, read))

    job, held = at(None), to.held() if source.table else None
    if held is None or held.text == job.text or len(held.tables) != 1 or held.tables[0].version is None:
        return job
    if not missing(list(held.parts()), to.done(held)):
        return job
    begun = at(held.tables[0].version)
    return begun if begun.text == held.text else job


def _done(work: Work, todo: Sequence[Part], record: Record) -> Iterator[Done]:
    """Every core at work, a part each; a few parts are in memory at any moment."""
    cores = os.cpu_count() or 1
    pending: deque[Future[Done]] = deque()
    with ThreadPoolExecutor(cores) as pool:
        try:
            for part, rows in _read(work.job, todo):
                pending.append(pool.submit(work.part, part, rows, record))
                if len(pending) > cores:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _read(job: Job, todo: Sequence[Part]) -> Iterator[tuple[Part, pl.DataFrame]]:
    """The parts' rows, each table read once, from its first missing part on."""
    for number, table in enumerate(job.tables):
        wanted = {part.first: part for part in todo if part.number == number}
        if wanted:
            for first, rows in table.stream(job.part_rows, min(wanted)):
                if first in wanted:
                    yield wanted[first], rows
