"""Batch scoring: files in, one Parquet file a part out; memory stays flat, and a job that was stopped goes on.

A part is a stretch of rows of one input file. It is written whole or not at all, under a name that follows from its
place, and its prediction ids from the job and the row: the same job again makes only the parts that are not there.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat import codec
from homeostat.domain.errors import DataError, UsageError
from homeostat.domain.schema import Field, Kind, Task
from homeostat.engines.answer import answers
from homeostat.engines.transform import codes, narrow
from homeostat.ports import Progress
from homeostat.serving.bundles import Loaded

JOB = "_job.json"
AT_ONCE = 4_096
"""Rows a model call: enough to drown its overhead, few enough for the caches."""
_TYPES = {Kind.NUMBER: pl.Float64, Kind.INTEGER: pl.Int64, Kind.BOOLEAN: pl.Boolean, Kind.TEXT: pl.String}
_TRUE, _FALSE = ("true", "True", "TRUE", "1"), ("false", "False", "FALSE", "0")


@dataclass(frozen=True, slots=True)
class BatchResult:
    """`parts` files lie in `out`, `reused` of them from an earlier start of the same job."""

    out: str
    version: int
    rows: int
    parts: int
    reused: int


@dataclass(frozen=True, slots=True)
class _Job:
    """What makes two starts the same job."""

    bundle: str
    version: int
    part_rows: int
    files: tuple[tuple[str, int, int], ...]

    @property
    def name(self) -> str:
        return hashlib.sha256(codec.encode(self)).hexdigest()[:12]


def score(loaded: Loaded, version: int, source: Path, out: Path, part_rows: int, progress: Progress) -> BatchResult:
    """Every row of the CSV or Parquet file `source` (or of all such files in that folder, by name) → Parquet files in
    the folder `out`: `id` (the row's own, where there is such a column), `model_version`, and score and label, or
    value. Columns that the model does not know are left out. Errors: `DataError` that names file, row and field;
    `UsageError` when `out` holds something else."""
    files = _files(source)
    stats = tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    job = _Job(loaded.id, version, part_rows, stats)
    _claim(out, job)
    total = sum(_rows(file) for file in files)
    done = parts = reused = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        scorer = _Scorer(loaded, version, job.name, pool)
        for number, file in enumerate(files):
            for first, frame in _stretches(file, part_rows):
                path = out / f"part-{number:05d}-{first:012d}.parquet"
                if path.exists():
                    reused += 1
                else:
                    _write(scorer.frame(frame, file, number, first), path)
                parts, done = parts + 1, done + len(frame)
                progress(done, total, file.name)
    return BatchResult(str(out), version, done, parts, reused)


@dataclass(frozen=True, slots=True)
class _Scorer:
    loaded: Loaded
    version: int
    job: str
    pool: ThreadPoolExecutor

    def frame(self, rows: pl.DataFrame, file: Path, number: int, first: int) -> pl.DataFrame:
        """The answers to one stretch, whose first row is row `first` of the file."""
        schema = self.loaded.schema
        columns = {field.name: _column(rows, field, file, first) for field in schema.fields}
        exact = codes(schema, columns)
        x = narrow(exact)
        self._check(columns, exact, x, file, first)
        given = answers(schema, self.loaded.manifest.threshold, self._output(x))
        ids = rows["id"].cast(pl.String) if "id" in rows.columns and "id" not in schema.names else None
        made = [f"{self.job}-{number}-{first + i}" for i in range(len(rows))] if ids is None else ids
        answered: dict[str, Sequence[object] | pl.Series] = {"id": made, "model_version": [self.version] * len(rows)}
        if schema.task is Task.REGRESSION:
            return pl.DataFrame({**answered, "value": given.score})
        labels = pl.Series([self.loaded.typed[label] for label in given.label])
        return pl.DataFrame({**answered, "score": given.score, "label": labels})

    def _check(
        self,
        columns: dict[str, pl.Series],
        exact: NDArray[np.float64],
        x: NDArray[np.float32],
        file: Path,
        first: int,
    ) -> None:
        """The same ranges and lists as for a request."""
        texts = {field.name: columns[field.name].to_list() for field in self.loaded.schema.fields if field.values}
        faults = self.loaded.limits.faults(texts, exact, x)
        if faults:
            row = min(faults)
            raise _bad(file, first + row, faults[row].message)

    def _output(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n, c), every core at work. Errors: `DataError` when the model gives no number."""
        slices = [x[start : start + AT_ONCE] for start in range(0, len(x), AT_ONCE)]
        output = np.concatenate(list(self.pool.map(self.loaded.model, slices)))
        if not np.isfinite(output).all():
            raise DataError("the model's answer is not a finite number", way_out="Release another version.")
        return output


def _column(rows: pl.DataFrame, field: Field, file: Path, first: int) -> pl.Series:
    """A field in its type. Errors: `DataError`."""
    if field.name not in rows.columns:
        raise DataError(f"the column {field.name!r} is missing", where=str(file))
    column = rows[field.name]
    if column.dtype == pl.String and field.kind is not Kind.TEXT:
        column = column.set(column == "", None)
    typed = _booleans(column) if field.kind is Kind.BOOLEAN else column.cast(_TYPES[field.kind], strict=False)
    wrong = (typed.is_null() & column.is_not_null()).arg_true()
    if len(wrong):
        raise _bad(file, first + wrong[0], f"{field.name} holds {column[wrong[0]]!r}, not {field.kind.value}")
    missing = typed.is_null().arg_true()
    if len(missing) and not field.nullable:
        raise _bad(file, first + missing[0], f"{field.name} must not be null")
    return typed


def _booleans(column: pl.Series) -> pl.Series:
    if column.dtype == pl.Boolean:
        return column
    texts = column.cast(pl.String)
    known = pl.Series([text in _TRUE if text in (*_TRUE, *_FALSE) else None for text in texts], dtype=pl.Boolean)
    return known.alias(column.name)


def _bad(file: Path, row: int, message: str) -> DataError:
    return DataError(
        message,
        where=f"{file}, row {row + 1:,} (the first row of data is 1)",
        way_out="Mend the row and start again: what is done already stays.",
    )


def _files(source: Path) -> list[Path]:
    found = sorted(source.glob("*.parquet")) + sorted(source.glob("*.csv")) if source.is_dir() else [source]
    if not found or not found[0].is_file():
        what = "no CSV or Parquet file is in the folder" if source.is_dir() else "the file is not there"
        raise DataError(what, where=str(source))
    return found


def _scan(file: Path) -> pl.LazyFrame:
    """CSV as text: the schema says what it is."""
    return pl.scan_parquet(file) if file.suffix == ".parquet" else pl.scan_csv(file, infer_schema=False)


def _rows(file: Path) -> int:
    try:
        return int(_scan(file).select(pl.len()).collect().item())
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"can't read the file: {str(error).splitlines()[0]}", where=str(file)) from None


def _stretches(file: Path, size: int) -> Iterator[tuple[int, pl.DataFrame]]:
    """(number of its first row, rows): exactly `size` of them, however the reader cuts them; the last has the rest."""
    first, held = 0, pl.DataFrame()
    for frame in _scan(file).collect_batches(chunk_size=size, maintain_order=True):
        held = pl.concat([held, frame]) if held.width else frame
        while len(held) >= size:
            yield first, held.head(size)
            first, held = first + size, held.slice(size)
    if len(held):
        yield first, held


def _claim(out: Path, job: _Job) -> None:
    """`out` is new, or of the same job."""
    out.mkdir(parents=True, exist_ok=True)
    mark = out / JOB
    if mark.exists():
        if mark.read_bytes() == codec.encode(job):
            return
        raise UsageError(
            "the folder holds the results of another job: other rows, another version or another size of parts",
            where=str(out),
            way_out="Choose another folder, or delete this one.",
        )
    if any(out.iterdir()):
        raise UsageError("the folder is not empty", where=str(out), way_out="Choose another one.")
    mark.write_bytes(codec.encode(job))


def _write(frame: pl.DataFrame, path: Path) -> None:
    beside = path.with_name(f".{path.name}.part")
    frame.write_parquet(beside)
    beside.replace(path)
