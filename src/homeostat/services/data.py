"""The data to learn from: the project's source and what was served since and has its label, version by version.

A version is a table's version and an entry in the journal. The entry is written last and is keyed by the content:
a crash in between leaves a version that nobody knows, and the same content is the same version again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict

import polars as pl

from homeostat.domain.dataset import ENTITY, EVENT_MS, DatasetVersion
from homeostat.domain.errors import ConfigError, DataError, NotFound
from homeostat.domain.event import Event
from homeostat.domain.policy import Policy
from homeostat.domain.prediction import PINNED, Role
from homeostat.domain.schema import Task
from homeostat.domain.units import iso
from homeostat.engines.broken import healthy
from homeostat.ports import Clock, Journal, LabelLog, PredictionLog, Tables
from homeostat.services.held import quarantined

KIND = "data.versioned"
_LABEL = "__label"  # the label's name while log and labels are joined: an input may be called `label`


class Data:
    """`source` reads the project's own rows, as a prepared frame."""

    def __init__(
        self,
        policy: Policy,
        source: Callable[[], pl.DataFrame],
        tables: Tables,
        log: PredictionLog,
        labels: LabelLog,
        journal: Journal,
        clock: Clock,
    ) -> None:
        self.policy, self.source, self.tables = policy, source, tables
        self.log, self.labels, self.journal, self.clock = log, labels, journal, clock
        self.table = f"datasets/{policy.name}"

    def snapshot(self) -> DatasetVersion:
        """The newest rows whose labels are as true as they will get. Errors: `DataError`."""
        return self._version(*self._newest())

    def newest(self) -> pl.DataFrame:
        """The same rows, without a version of their own: to look at. Errors: `DataError`."""
        return self._newest()[0]

    def _newest(self) -> tuple[pl.DataFrame, list[str], int]:
        """A prepared frame, the inputs that the log does not hold, and how many rows with a broken column are left
        out."""
        now = self.clock.now_ms()
        known_ms = now - self.policy.data.label_horizon
        own = self.source()
        rows = own.filter(pl.col(EVENT_MS) <= known_ms)
        if rows.is_empty():
            first = f"the first is of {iso(int(own[EVENT_MS][0]))}" if len(own) else "there is none"
            raise DataError(
                f"no row is older than the label horizon: {first}",
                where=self.policy.data.source,
                way_out="Wait, shorten data.label_horizon, or mend the times.",
            )
        served, faults = self._served(rows, now), quarantined(self.journal, self.policy.name).values()
        own_ms, served_ms = rows[EVENT_MS].to_numpy(), served[EVENT_MS].to_numpy()
        kept = pl.concat([healthy(rows, faults, own_ms, sure=False), healthy(served, faults, served_ms)])
        broken = len(rows) + len(served) - len(kept)
        return self._taught(kept.sort(EVENT_MS, maintain_order=True)), self.hidden(own), broken

    def _taught(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Without the rows of classes that are all within the newest holdout: no model can have learned them yet."""
        if self.policy.task is not Task.MULTICLASS or rows.is_empty():
            return rows
        target = self.policy.data.target
        before = rows.filter(pl.col(EVENT_MS) <= int(rows[EVENT_MS][-1]) - self.policy.train.holdout)
        return rows.filter(pl.col(target).is_in(before[target].unique().implode()))

    def read(self, dataset: DatasetVersion) -> pl.DataFrame:
        """Its rows, a prepared frame."""
        return self.tables.read(self.table, dataset.version).sort(EVENT_MS, maintain_order=True).collect()

    def versions(self) -> tuple[DatasetVersion, ...]:
        """Oldest first."""
        return tuple(DatasetVersion(**event.body) for event in self.journal.read(self.policy.name, KIND))

    def version(self, number: int) -> DatasetVersion:
        """Errors: `NotFound`."""
        found = next((one for one in self.versions() if one.version == number), None)
        if found is None:
            raise NotFound(f"no version {number} of the data of {self.policy.name}")
        return found

    def _served(self, own: pl.DataFrame, now: int) -> pl.DataFrame:
        """Answered rows later than the project's own, with their mature labels. None, where the log does not hold the
        inputs as they were served, and where the served rows do not continue the project's own: when the gap is
        longer than the training window, or than the whole history."""
        if self.hidden(own):
            return own.clear()
        until, known_ms = int(own[EVENT_MS][-1]), now - self.policy.data.label_horizon
        rows = self.log.read(self.policy.name, until + 1, known_ms + 1)
        rows = rows.filter((pl.col("role") == Role.ANSWER.value) & ~pl.col("release").str.starts_with(PINNED))
        longest = self.policy.train.window or until - int(own[EVENT_MS][0])
        if rows.is_empty() or self._began(int(rows.select(pl.col("at_ms").min()).item())) - until > longest:
            return own.clear()
        labels = self.labels.read(until + 1, now + 1).select("id", pl.col("label").alias(_LABEL))
        labelled = rows.join(labels, on="id", how="inner", maintain_order="left")
        served = set(labelled["inputs"].struct.fields)
        return labelled.select(self._column(name, dtype, served) for name, dtype in own.schema.items())

    def hidden(self, own: pl.DataFrame) -> list[str]:
        """Inputs that are dropped or hashed before they are logged. Errors: `ConfigError` for what is no input: a name
        that is mistyped would leave in the log what must not be there."""
        private, data = self.policy.log.hidden, self.policy.data
        inputs = [name for name in own.columns if name not in (EVENT_MS, ENTITY, data.target)]
        unknown = sorted(private - {*inputs, data.key})
        if unknown:
            raise ConfigError(
                f"{unknown[0]!r} is no input and not the key",
                where="homeostat.yaml  log.drop, log.hash",
                way_out=f"Inputs: {', '.join(inputs)}.",
            )
        return sorted(private.intersection(inputs))

    def _began(self, first_ms: int) -> int:
        """When the first row was served, though the log may have lost it to its age or size by now."""
        removed = [int(event.body["from_ms"]) for event in self.journal.read(self.policy.name, "log.removed")]
        return min((first_ms, *removed))

    def _column(self, name: str, dtype: pl.DataType, served: set[str]) -> pl.Expr:
        """A column of the log with the name and the type of the project's own rows; null where it is not served."""
        if name == EVENT_MS:
            column = pl.col("at_ms")
        elif name == ENTITY:
            column = pl.col("key")
        elif name == self.policy.data.target:
            column = (pl.col(_LABEL) == "True") if dtype == pl.Boolean else pl.col(_LABEL)
        else:
            column = pl.col("inputs").struct.field(name) if name in served else pl.lit(None)
        return column.cast(dtype).alias(name)

    def _version(self, frame: pl.DataFrame, hidden: Sequence[str], broken: int) -> DatasetVersion:
        digest = content_digest(frame)
        known = next((one for one in self.versions() if one.digest == digest), None)
        if known is not None:
            return known
        made = DatasetVersion(
            name=self.policy.name,
            version=self._written(frame, digest),
            digest=digest,
            rows=len(frame),
            from_ms=int(frame[EVENT_MS][0]),
            until_ms=int(frame[EVENT_MS][-1]),
        )
        text = f"Data version {made.version}: {made.rows:,} rows, {iso(made.from_ms)} to {iso(made.until_ms)}."
        if hidden:
            text += f" Without served rows: the log does not hold {', '.join(hidden)}."
        if broken:
            text += f" Without {broken:,} rows in which a column was broken."
        at = self.clock.now_ms()
        self.journal.append(Event(at, self.policy.name, KIND, f"data:{digest}", str(made.version), text, asdict(made)))
        return made

    def _written(self, frame: pl.DataFrame, digest: str) -> int:
        """The table's version. What a process wrote and did not live to record is taken up if it is the same."""
        newest = self.tables.version(self.table)
        if newest is not None and newest not in {one.version for one in self.versions()}:
            left = self.tables.read(self.table, newest).sort(EVENT_MS, maintain_order=True).collect()
            if content_digest(left) == digest:
                return newest
        return self.tables.write(self.table, frame)


def content_digest(frame: pl.DataFrame) -> str:
    """SHA-256 over names, types and values; the same rows give the same digest however they lie in memory."""
    whole = hashlib.sha256()
    for column in frame.iter_columns():
        whole.update(f"{len(column.name)}:{column.name}:{column.dtype}:{len(column)};".encode())
        whole.update(column.is_null().to_numpy().tobytes())
        if column.dtype == pl.String:
            whole.update(column.str.len_bytes().fill_null(0).to_numpy().tobytes())
            whole.update("".join(column.drop_nulls().to_list()).encode())
        else:
            whole.update(column.fill_null(0 if column.dtype.is_numeric() else False).to_numpy().tobytes())
    return whole.hexdigest()
