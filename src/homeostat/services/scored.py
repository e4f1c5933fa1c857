"""The rows that one version scored, joined with their labels."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.prediction import PINNED, Role
from homeostat.domain.schema import Schema, Task
from homeostat.engines.feedback import in_order
from homeostat.engines.labels import known
from homeostat.ports import LabelLog, PredictionLog

_KEPT = ("id", "at_ms", "score", "scores")
_SEEN = (
    pl.col("role").is_in([Role.ANSWER.value, Role.SHADOW.value])
    & ~pl.col("release").str.starts_with(PINNED)
    & (pl.col("status") == "ok")
)


def scored_by(log: pl.DataFrame, version: int) -> pl.DataFrame:
    """Each row that `version` scored, to answer or in shadow, once; in order of time. Without callers' tests."""
    rows = log.filter(_SEEN & (pl.col("version") == version))
    if rows["id"].n_unique() < rows.height:
        rows = rows.filter(pl.col("id").is_first_distinct())
    return in_order(rows)


def inputs_of(log: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """The inputs of `rows`, a column a field: they are logged once, with the answer, whoever gave it."""
    if (rows["role"] == Role.ANSWER.value).all():
        return rows["inputs"].struct.unnest()
    answers = log.filter(pl.col("role") == Role.ANSWER.value).select("id", "inputs")
    return rows.select("id").join(answers, on="id", how="left", maintain_order="left")["inputs"].struct.unnest()


def labelled(schema: Schema, rows: pl.DataFrame, labels: pl.DataFrame) -> tuple[pl.DataFrame, NDArray[np.float64]]:
    """The rows that have a label, and the truth (n,): the class's index (`engines.labels.known`), or the value. Labels
    are stored in their canonical form, so that the column is read at once."""
    joined = rows.join(labels.select("id", truth="label"), on="id", how="inner", maintain_order="left")
    truth = joined.drop_in_place("truth")
    if schema.task is Task.REGRESSION:
        return joined, truth.cast(pl.Float64).to_numpy()
    named = truth.to_list()
    index = known(schema, set(named))
    return joined, np.array([index[name] for name in named], np.float64)


class LiveRows:
    """A cache of one version's rows since a moment: each is read about once. Labels are read anew each time: one that
    comes late, or counts no more, may be of any time."""

    def __init__(self, version: int, since_ms: int) -> None:
        self.version, self.since_ms = version, since_ms
        self._rows: pl.DataFrame | None = None
        self._rows_ms = since_ms

    def continues(self, version: int, since_ms: int, end_ms: int) -> bool:
        """What is cached is a beginning of what is asked for."""
        return (self.version, self.since_ms) == (version, since_ms) and self._rows_ms <= end_ms

    def extend(
        self, model: str, log: PredictionLog, labels: LabelLog, end_ms: int, now_ms: int
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Rows answered before `end_ms`; the labels that count by `now_ms`."""
        end_ms = max(end_ms, self._rows_ms)
        rows = scored_by(log.read(model, self._rows_ms, end_ms, False), self.version).select(_KEPT)
        self._rows = rows if self._rows is None else pl.concat([self._rows, rows])
        self._rows_ms = end_ms
        return self._rows, labels.read(self.since_ms, now_ms + 1)
