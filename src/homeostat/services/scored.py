"""The rows that one version scored, joined with their labels."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.prediction import PINNED, SETTLED_MS, Role
from homeostat.domain.schema import Schema, Task
from homeostat.ports import LabelLog, PredictionLog

_KEPT = ("id", "at_ms", "score", "scores")


def scored_by(log: pl.DataFrame, version: int) -> pl.DataFrame:
    """Each row that `version` scored, to answer or in shadow, once; in order of time. Without callers' tests."""
    tests = pl.col("release").str.starts_with(PINNED)
    seen = pl.col("role").is_in([Role.ANSWER.value, Role.SHADOW.value]) & ~tests
    rows = log.filter(seen & (pl.col("version") == version) & (pl.col("status") == "ok"))
    return rows.unique("id", keep="first", maintain_order=True).sort("at_ms", maintain_order=True)


def inputs_of(log: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """The inputs of `rows`, a column a field: they are logged once, with the answer, whoever gave it."""
    answers = log.filter(pl.col("role") == Role.ANSWER.value).select("id", "inputs")
    return rows.select("id").join(answers, on="id", how="left", maintain_order="left")["inputs"].struct.unnest()


def labelled(schema: Schema, rows: pl.DataFrame, labels: pl.DataFrame) -> tuple[pl.DataFrame, NDArray[np.float64]]:
    """The rows that have a label, and the truth (n,): the class's index, or the value. Labels are stored in their
    canonical form, so that the column is read at once."""
    joined = rows.join(labels.select("id", truth="label"), on="id", how="inner", maintain_order="left")
    truth = joined["truth"]
    if schema.task is not Task.REGRESSION:
        truth = truth.replace_strict({str(known): i for i, known in enumerate(schema.classes)})
    return joined.drop("truth"), truth.cast(pl.Float64).to_numpy()


class LiveRows:
    """A cache of one version's rows since a moment, and of the labels since then: each is read about once."""

    def __init__(self, version: int, since_ms: int) -> None:
        self.version, self.since_ms = version, since_ms
        self._rows: pl.DataFrame | None = None
        self._labels: pl.DataFrame | None = None
        self._rows_ms = self._labels_ms = since_ms

    def continues(self, version: int, since_ms: int, end_ms: int, now_ms: int) -> bool:
        """What is cached is a beginning of what is asked for."""
        same = (self.version, self.since_ms) == (version, since_ms)
        return same and self._rows_ms <= end_ms and self._labels_ms <= now_ms

    def extend(
        self, model: str, log: PredictionLog, labels: LabelLog, end_ms: int, now_ms: int
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Rows answered before `end_ms`; the last label of each id received by `now_ms`."""
        end_ms = max(end_ms, self._rows_ms)
        rows = scored_by(log.read(model, self._rows_ms, end_ms), self.version).select(_KEPT)
        new = labels.read(self._labels_ms, now_ms + 1)
        if self._rows is not None and self._labels is not None:
            rows = pl.concat([self._rows, rows])
            new = pl.concat([self._labels, new]).unique("id", keep="last", maintain_order=True)
        self._rows, self._labels = rows, new
        self._rows_ms, self._labels_ms = end_ms, max(self.since_ms, now_ms - SETTLED_MS)
        return rows, new
