"""Failure modes: groups of rows on which a model loses more than elsewhere, ranked by what that comes to.

Groups are found by a shallow tree on one half of the labelled rows and measured on the other, so that a group is as bad
as it is said to be; segments that the policy declares are measured as they are. What is told is sure: the difference
to all other rows lies above 0 at 95 % over all groups together (Welch 1947, Bonferroni).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import ndtri

from homeostat.domain.failures import Failures, Help, Mode
from homeostat.domain.schema import Schema
from homeostat.engines import metrics
from homeostat.engines.declared import declared as segments
from homeostat.engines.groups import Group, groups, halves, plain
from homeostat.engines.report import words

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
LEAST = 100
"""Labelled rows; fewer show no modes."""
LEAST_IN = 10
ALPHA = 0.05
EXAMPLES = 5
FEW = 1 / 3
"""Rows were few to learn from where their share of what was learned is below this part of their share now."""
FEW_ROWS = 50


@dataclass(frozen=True, slots=True)
class Labelled:
    """n answered rows with their labels, in order of time: a column a field, truth (n,), output (n, c), losses (n,) in
    [0, 1], prediction ids. `values`: what each answer was worth (n,), where the policy says that."""

    frame: pl.DataFrame
    y: Array
    output: Array
    losses: Array
    ids: Sequence[str]
    values: Array | None = None

    def __len__(self) -> int:
        return len(self.losses)

    def only(self, which: Mask) -> Labelled:
        ids = [one for one, kept in zip(self.ids, which, strict=True) if kept]
        values = None if self.values is None else self.values[which]
        frame = self.frame.filter(pl.Series(which))
        return Labelled(frame, self.y[which], self.output[which], self.losses[which], ids, values)


@dataclass(frozen=True, slots=True)
class Known:
    """What else is known of a version: the rows that it learned from (None: not any more), and its holdout with the
    losses (m,) there."""

    learned: pl.DataFrame | None
    holdout: pl.DataFrame
    losses: Array


def failures(schema: Schema, metric: str, declared: Sequence[str], rows: Labelled, known: Known) -> Failures:
    """`declared`: the inputs that the policy names as segments."""
    unit = "losses" if rows.values is None else "value"
    if len(rows) < LEAST:
        fault = f"{len(rows)} answers with a label; {LEAST} are needed"
        return Failures((), 0, len(rows), 0.0, unit, fault)
    half = halves(len(rows))
    found = _found(schema, rows.only(half))
    said = list(segments(schema, declared, rows.frame, LEAST_IN))
    z = float(-ndtri(ALPHA / 2 / max(1, len(found) + len(said))))
    measured = [_mode(metric, one, False, rows, rows.only(~half), known, z) for one in found]
    measured += [_mode(metric, one, True, rows, rows, known, z) for one in said]
    sure = [one for one in measured if one is not None and one.low > 0]
    ranked = sorted(sure, key=lambda one: -one.impact)
    return Failures(tuple(ranked), len(measured), len(rows), float(rows.losses.mean()), unit)


def _found(schema: Schema, rows: Labelled) -> list[Group]:
    fields = [field for field in schema.fields if field.name in rows.frame.columns]
    nullable = {field.name: field.nullable for field in fields}
    found = groups(fields, rows.frame, rows.losses)
    return [plain(group, nullable) for group in found] if len(found) > 1 else []


def _mode(
    metric: str, group: Group, declared: bool, everything: Labelled, rows: Labelled, known: Known, z: float
) -> Mode | None:
    """None: too few rows in it, or outside of it."""
    inside = group.holds(rows.frame)
    if min(inside.sum(), (~inside).sum()) < LEAST_IN:
        return None
    here, there = rows.only(inside), rows.only(~inside)
    excess, error = _difference(here.losses, there.losses)
    whole = group.holds(everything.frame)
    n, share = int(whole.sum()), float(whole.mean())
    learned = None if known.learned is None else group.holds(known.learned)
    before = known.losses[group.holds(known.holdout)]
    helps, because = _help(share, learned, here, before, z)
    worst = np.argsort(-here.losses, kind="stable")[:EXAMPLES]
    return Mode(
        segment=str(group),
        fields=group.fields,
        declared=declared,
        n=n,
        share=share,
        inside=metrics.measure(metric, here.y, here.output),
        outside=metrics.measure(metric, there.y, there.output),
        excess=excess,
        low=excess - z * error,
        high=excess + z * error,
        impact=n * (excess if here.values is None or there.values is None else _loss_of(here.values, there.values)),
        learned=None if learned is None else int(learned.sum()),
        learned_share=0.0 if learned is None else float(learned.mean()),
        examples=tuple(here.ids[int(place)] for place in worst),
        help=helps,
        because=because,
    )


def _loss_of(here: Array, there: Array) -> float:
    return float(there.mean() - here.mean())


def _difference(here: Array, there: Array) -> tuple[float, float]:
    """Of the means, and its standard error."""
    error = np.sqrt(here.var(ddof=1) / len(here) + there.var(ddof=1) / len(there))
    return float(here.mean() - there.mean()), float(error)


def _help(share: float, learned: Mask | None, here: Labelled, before: Array, z: float) -> tuple[Help, str]:
    """What data would help, and why. The model was right there when it was made: the world has changed since. It
    learned from few such rows: more of them. From many, and was never better: they do not tell it enough."""
    if len(before) >= LEAST_IN:
        rose, error = _difference(here.losses, before)
        if rose > z * error:
            was, now = words.number(float(before.mean())), words.number(float(here.losses.mean()))
            return Help.NEWER, f"their loss was {was} when the model was made and is {now}: they have changed"
    if learned is not None and (learned.sum() < FEW_ROWS or learned.mean() < FEW * share):
        n, part = f"{int(learned.sum()):,}", words.percent(float(learned.mean()))
        return (
            Help.ROWS,
            f"only {n} of the rows it learned from are like these: {part}, where {words.percent(share)} come",
        )
    many = f"it learned from {int(learned.sum()):,} such rows" if learned is not None else "they are not new to it"
    return Help.INPUT, f"{many} and is no better: what tells them apart is not among its inputs, or labels are noisy"
