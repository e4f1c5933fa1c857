"""A model's output as an answer, and a logged answer as an output again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.schema import Schema, Task, Value

Array = NDArray[np.float64]


class Answers(NamedTuple):
    """Column by column as in `LOG_COLUMNS`: n scores, n labels as text (None: regression), n lists of class
    probabilities (None unless multiclass)."""

    score: list[float]
    label: list[str | None]
    scores: list[Sequence[float] | None]


def answers(schema: Schema, threshold: float, output: Array) -> Answers:
    """`output` is (n, c). Binary: the second class from `threshold` on; multiclass: the likeliest, the first of
    equals; regression: the value. The caller sees to it that c is `width`."""
    n = len(output)
    if schema.task is Task.REGRESSION:
        return Answers(output[:, 0].tolist(), [None] * n, [None] * n)
    names = [str(known) for known in schema.classes]
    if schema.task is Task.BINARY:
        score = output[:, 1].tolist()
        return Answers(score, [names[value >= threshold] for value in score], [None] * n)
    best = output.argmax(axis=1)
    return Answers(output[np.arange(n), best].tolist(), [names[i] for i in best.tolist()], output.tolist())


def decided(schema: Schema, threshold: float, output: Array) -> tuple[Array, NDArray[np.intp]]:
    """The same as arrays, for many rows: scores (n,) and indices (n,) of the answered classes, 0 for regression."""
    if schema.task is Task.MULTICLASS:
        best = output.argmax(axis=1)
        return output[np.arange(len(output)), best], best
    score = output[:, -1]
    return score, (score >= threshold).astype(np.intp) * (schema.task is Task.BINARY)


def width(schema: Schema) -> int:
    """c: how many columns the model's output must have."""
    return 1 if schema.task is Task.REGRESSION else len(schema.classes)


def aligned(output: Array, classes: Sequence[Value], wanted: Sequence[Value]) -> Array:
    """The output (n, c) over `classes` as (n, w) over those that are `wanted`: no chance for one that is not known."""
    if tuple(classes) == tuple(wanted):
        return output
    empty = np.zeros((len(output), 1))
    place = {known: i for i, known in enumerate(classes)}
    return np.hstack([output, empty])[:, [place.get(one, len(classes)) for one in wanted]]


def output_of(schema: Schema, frame: pl.DataFrame) -> Array:
    """(n, c) from the `score` and `scores` columns of a log frame; NaN where a row has no score, or those of a version
    with more or fewer classes."""
    if schema.task is Task.MULTICLASS:
        gap = [float("nan")] * len(schema.classes)
        rows = [row if row and len(row) == len(gap) else gap for row in frame["scores"].to_list()]
        return np.array(rows, np.float64).reshape(-1, len(gap))
    score = frame["score"].cast(pl.Float64).to_numpy()  # null is NaN
    return np.column_stack([1 - score, score]) if schema.task is Task.BINARY else score.reshape(-1, 1)
