"""Which answers are worth a label: those the model is unsure of, those that two versions answer otherwise, and those
unlike anything it learned from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.schema import Schema, Task
from homeostat.engines.groups import NUMERIC

Array = NDArray[np.float64]
LEARNED = 1_000
"""Rows that a row is compared with, at most."""
FAR = 3.0
"""Interquartile ranges beyond which a number is no farther."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A row, by its place among the n, and why its label is worth having: `reason` in a word, `because` in words."""

    row: int
    reason: str
    because: str


def unsure(schema: Schema, output: Array) -> Array:
    """(n,) 1 where the two likeliest classes are as likely, 0 where one is sure; 0 for numbers. output (n, c)."""
    if schema.task is Task.REGRESSION:
        return np.zeros(len(output))
    ranked = np.sort(output, axis=1)
    return np.asarray(1 - (ranked[:, -1] - ranked[:, -2]))


def apart(schema: Schema, output: Array, other: Array, scale: float) -> Array:
    """(n,) how far two versions' answers lie apart, in [0, 1]: half of the sum over classes, or the difference over
    `scale`. NaN rows of `other` (n, c), which were not scored, are 0 apart."""
    gap = np.abs(output - other).sum(axis=1)
    return np.asarray(np.nan_to_num(np.minimum(gap / (scale if schema.task is Task.REGRESSION else 2), 1.0)))


def distance(schema: Schema, frame: pl.DataFrame, learned: pl.DataFrame) -> tuple[Array, list[str]]:
    """(n,) of each row to the nearest one of `learned`, summed over the fields, and the field that adds most. A number
    counts in interquartile ranges, up to `FAR`; another text, or a gap on one side only, counts 1."""
    some = learned.gather_every(-(-len(learned) // LEARNED) or 1)
    fields = [field for field in schema.fields if field.name in frame.columns and field.name in learned.columns]
    if not fields or not len(some):
        return np.zeros(len(frame)), [""] * len(frame)
    numeric = {field.name: field.kind in NUMERIC for field in fields}
    gaps = [_numbers if numeric[name] else _texts for name in numeric]
    found, most = np.empty(len(frame)), []
    for start in range(0, len(frame), LEARNED):
        part = frame.slice(start, LEARNED)
        each = np.stack([gap(part[name], some[name]) for gap, name in zip(gaps, numeric, strict=True)])
        total = each.sum(axis=0)
        nearest = total.argmin(axis=1)
        rows = np.arange(len(part))
        found[start : start + len(part)] = total[rows, nearest]
        most += [fields[place].name for place in each[:, rows, nearest].argmax(axis=0)]
    return found, most


def _numbers(here: pl.Series, there: pl.Series) -> Array:
    """(n, m) between rows and learned rows."""
    a, b = (one.cast(pl.Float64).fill_null(float("nan")).to_numpy() for one in (here, there))
    known = b[np.isfinite(b)]
    low, high = np.quantile(known, (0.25, 0.75)) if len(known) else (0.0, 1.0)
    scale = float(high - low) or float(np.std(known)) or 1.0
    gap = np.minimum(np.abs(a[:, None] - b[None, :]) / scale, FAR)
    one_sided = np.isnan(a)[:, None] != np.isnan(b)[None, :]
    return np.where(one_sided, 1.0, np.nan_to_num(gap))


def _texts(here: pl.Series, there: pl.Series) -> Array:
    a, b = (one.cast(pl.String).fill_null("\0").to_numpy() for one in (here, there))
    return np.asarray(a[:, None] != b[None, :], np.float64)


def wanted(n: int, unsure: Array, apart: Array, far: Array, most: Sequence[str]) -> list[Wanted]:
    """n rows, or fewer: the most unsure, the farthest apart and the newest in turn, each row once. A row with nothing
    of a kind is not wanted for it."""
    ranked = {kind: _ranked(one) for kind, one in zip(WORDS, (unsure, apart, far), strict=True)}
    values = dict(zip(WORDS, (unsure, apart, far), strict=True))
    taken: dict[int, Wanted] = {}
    while ranked and len(taken) < n:
        for kind, rows in list(ranked.items()):
            row = next((one for one in rows if one not in taken), None)
            if row is None:
                del ranked[kind]
            elif len(taken) < n:
                taken[row] = Wanted(row, kind, WORDS[kind].format(values[kind][row], most[row]))
    return list(taken.values())


WORDS = {
    "uncertain": "two answers are nearly as likely: {:.2g}, where 1 is a draw",
    "disagreeing": "two versions answer {:.2g} apart",
    "new": "{:.2g} from the nearest row it learned from, mostly {}",
}


def _ranked(measure: Array) -> Iterator[int]:
    order = np.argsort(-measure, kind="stable")
    return (int(row) for row in order if measure[row] > 0)
