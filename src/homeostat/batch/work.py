"""One part: its rows checked, scored, written. The same code runs in a thread here and on another machine."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat import codec
from homeostat.batch.columns import Faults, typed
from homeostat.batch.inputs import Table
from homeostat.batch.job import Job, Part
from homeostat.batch.outputs import Out
from homeostat.domain.bundle import Bundle
from homeostat.domain.errors import Corrupt, DataError, HomeostatError
from homeostat.domain.schema import Schema, Task
from homeostat.engines.answer import decided, width
from homeostat.engines.transform import coded, narrow, slices
from homeostat.ports import Model, Runtime
from homeostat.serving.bundles import Unfit, verify
from homeostat.serving.limits import Fault, Limits
from homeostat.serving.typed import LONGEST_ID

AT_ONCE = 4_096
"""Rows a model call: enough to drown its overhead, few enough for the caches."""
ID, KEY = "id", "key"
"""Columns of the rows that are no inputs, but names."""
_LABELS = {bool: pl.Boolean, int: pl.Int64, float: pl.Float64, str: pl.String}


@dataclass(frozen=True, slots=True)
class Shipped:
    """A bundle as bytes: what a worker needs of it. Two of the same bundle are equal."""

    bundle: str
    manifest: bytes = field(compare=False, repr=False)
    onnx: bytes = field(compare=False, repr=False)
    runtime: Runtime = field(compare=False)


@dataclass(frozen=True, slots=True)
class Opened:
    """A bundle that scores."""

    manifest: Bundle
    model: Model
    limits: Limits

    @property
    def schema(self) -> Schema:
        return self.manifest.schema


@lru_cache(maxsize=1)
def opened(shipped: Shipped) -> Opened:
    """Once a process. Errors: `Corrupt` when the model does not give the scores of its stored sample."""
    manifest = codec.decode(shipped.manifest, Bundle)
    model = shipped.runtime.load(shipped.onnx)
    try:
        verify(manifest, model)
    except Unfit as error:
        raise Corrupt("the version that serves can't be loaded", where=str(error)) from None
    return Opened(manifest, model, Limits(manifest.schema))


@dataclass(frozen=True, slots=True)
class Done:
    """A part that is written; `refused` of its rows have no score."""

    part: Part
    refused: int


@dataclass(frozen=True, slots=True)
class Scored:
    """A part of n rows before it is written: ids, keys and inputs as served of all rows, `good` (n,) and the model's
    output (m, c) of the m good ones."""

    ids: pl.Series
    keys: pl.Series | None
    good: NDArray[np.bool_]
    inputs: Mapping[str, pl.Series]
    output: NDArray[np.float64]


Record = Callable[[Scored], Collection[str]]
"""→ the ids that are marked as explored."""


def unrecorded(_scored: Scored) -> Collection[str]:
    """No log, and no mark: it could not be written down."""
    return ()


@dataclass(frozen=True, slots=True)
class Work:
    """The job, ready to be sent to other machines."""

    job: Job
    shipped: Shipped
    out: Out

    def __call__(self, part: Part) -> Done | HomeostatError:
        """Read, score and write the part. What a person must mend is returned: doing it again would not help."""
        try:
            return self.part(part, self.job.tables[part.number].read(self.columns, part.first, part.size))
        except HomeostatError as error:
            return error

    @property
    def columns(self) -> frozenset[str]:
        """What is read of the rows."""
        return frozenset((*opened(self.shipped).schema.names, ID, KEY))

    def part(self, part: Part, rows: pl.DataFrame, record: Record = unrecorded) -> Done:
        """Score `rows`, `record` the answers, then write them. Errors: `DataError` that names file, row and field."""
        if len(rows) != part.size:
            raise changed(self.job.tables[part.number])
        scored, faults = self._scored(part, rows)
        if faults and self.job.on_error == "fail":
            raise self._refusal(part, min(faults), faults[min(faults)])
        explored = record(scored)
        self.out.write(self.job, part, self._frame(scored, faults, explored))
        return Done(part, len(faults))

    def empty(self) -> pl.DataFrame:
        """The columns of the answers."""
        bundle = opened(self.shipped)
        none = np.empty((0, width(bundle.schema)))
        return self._frame(Scored(pl.Series("id", [], pl.String), None, np.ones(0, np.bool_), {}, none), {}, ())

    def _scored(self, part: Part, rows: pl.DataFrame) -> tuple[Scored, Faults]:
        bundle, table = opened(self.shipped), self.job.tables[part.number].address
        columns, faults = typed(bundle.schema, rows, table)
        ids = self._ids(part, rows, bundle.schema, faults)
        numbers = coded(bundle.schema, columns)
        for row, fault in _broken(bundle, columns, numbers).items():
            faults.setdefault(row, fault)
        good = _others(len(rows), faults)
        output = _output(bundle, [column[good] for column in numbers] if faults else numbers)
        if not np.isfinite(output).all():
            sound = np.isfinite(output).all(axis=1)
            silent = Fault("", "finite", "the model's answer is not a finite number")
            faults.update(dict.fromkeys(np.flatnonzero(good)[~sound].tolist(), silent))
            good, output = _others(len(rows), faults), output[sound]
        return Scored(ids, _extra(rows, bundle.schema, KEY), good, columns, output), faults

    def _ids(self, part: Part, rows: pl.DataFrame, schema: Schema, faults: Faults) -> pl.Series:
        """The rows' own, where there is such a column; else, and where it can't be one, from job and row."""
        numbers = pl.int_range(part.first, part.first + len(rows))
        made = pl.select(pl.format(f"{self.job.name}-{part.number}-{{}}", numbers).alias("id")).to_series()
        own = _extra(rows, schema, ID)
        if own is None:
            return made
        usable = own.str.len_chars().is_between(1, LONGEST_ID).fill_null(False)
        for row in (~usable).arg_true().to_list():
            told = f"id must have 1 to {LONGEST_ID} characters"
            faults.setdefault(row, Fault("id", f"1 to {LONGEST_ID} characters", told))
        return own.zip_with(usable, made)

    def _frame(self, scored: Scored, faults: Faults, explored: Collection[str]) -> pl.DataFrame:
        said = _said(opened(self.shipped).manifest, scored.output)
        if faults:
            place = np.cumsum(scored.good) - 1
            at = pl.Series(place.astype(np.uint32)).set(pl.Series(~scored.good), None)
            said = [column.gather(at) for column in said]
        version = pl.repeat(self.job.version, len(scored.ids), dtype=pl.Int64, eager=True).alias("model_version")
        frame = pl.DataFrame([scored.ids.alias("id"), version, *said, *self._marks(scored.ids, explored)])
        if self.job.on_error == "fail":
            return frame
        told = [faults[row].message if row in faults else None for row in range(len(frame))] if faults else None
        error = pl.Series("error", told or [None] * len(frame), pl.String)
        return frame.with_columns(error)

    def _marks(self, ids: pl.Series, explored: Collection[str]) -> list[pl.Series]:
        """The answer that is to be acted upon instead, null outside of the slice."""
        if self.job.exploration is None:
            return []
        answer = pl.lit(self.job.exploration.answer, _LABELS[type(self.job.exploration.answer)])
        inside = ids.is_in(pl.Series(list(explored), dtype=pl.String).implode())
        return [pl.select(explore=pl.when(inside).then(answer)).to_series()]

    def _refusal(self, part: Part, row: int, fault: Fault) -> DataError:
        where = f"{self.job.tables[part.number].address}, row {part.first + row + 1:,} (the first row of data is 1)"
        way_out = (
            "Mend the row, and give another OUT where parts are written already; or let such rows have their reason "
            "instead of a score: --on-error mark."
        )
        return DataError(fault.message, where=where, way_out=way_out)


def changed(table: Table) -> DataError:
    return DataError("its rows changed while they were read", where=table.address, way_out="Start a job of its own.")


def _others(n: int, faults: Faults) -> NDArray[np.bool_]:
    """(n,) the rows without a fault."""
    good = np.ones(n, np.bool_)
    good[list(faults)] = False
    return good


def _extra(rows: pl.DataFrame, schema: Schema, name: str) -> pl.Series | None:
    """A column that is not an input, as text."""
    return rows[name].cast(pl.String) if name in rows.columns and name not in schema.names else None


def _broken(bundle: Opened, columns: Mapping[str, pl.Series], numbers: Sequence[NDArray[np.float64]]) -> Faults:
    """What the schema's limits say: nothing, nearly always, at a glance."""
    texts = {field.name: columns[field.name] for field in bundle.schema.fields if field.values is not None}
    if bundle.limits.kept({name: column.unique().to_list() for name, column in texts.items()}, numbers):
        return {}
    exact = np.array(numbers).T
    return bundle.limits.faults({name: column.to_list() for name, column in texts.items()}, exact, narrow(exact))


def _output(bundle: Opened, numbers: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """(n, c) for k columns (n,)."""
    made = [bundle.model(x) for x in slices(numbers, AT_ONCE)]
    return np.concatenate(made) if made else np.empty((0, width(bundle.schema)))


def _said(bundle: Bundle, output: NDArray[np.float64]) -> list[pl.Series]:
    """Score and label, in the type that the data has; or the value."""
    score, chosen = decided(bundle.schema, bundle.threshold, output)
    if bundle.schema.task is Task.REGRESSION:
        return [pl.Series("value", score)]
    classes = bundle.schema.classes
    labels = pl.Series("label", classes, _LABELS[type(classes[0])])
    return [pl.Series("score", score), labels.gather(chosen)]
