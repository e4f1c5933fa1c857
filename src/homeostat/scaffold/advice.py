"""What `init` tells: what it chose and why, and which columns deserve a look."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from homeostat.adapters.source import fits_dates
from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.policy import Every
from homeostat.domain.schema import Kind, Task
from homeostat.domain.units import show_duration
from homeostat.scaffold.look import Look
from homeostat.scaffold.settings import Settings

_SAMPLE = 100
_NEARLY_THE_TARGET = 0.95
_SHOWN = 5


def advice(name: str, root: Path, seen: Look, chosen: Settings) -> tuple[str, ...]:
    """Plain sentences, the choices first."""
    notes = [*_name(name, root), _task(seen, chosen), *_rows(seen), *_times(seen, chosen)]
    return (*notes, *_columns(seen))


def _name(name: str, root: Path) -> Iterator[str]:
    folder = root.resolve().name
    if name != folder:
        yield f"The model is called {name}: a name has small letters, digits, _ and - only."


def _task(seen: Look, chosen: Settings) -> str:
    target, values = seen.target.name, seen.frame[seen.target.name].unique().sort().to_list()
    if seen.task is Task.REGRESSION:
        spread = (
            f"a candidate may be worse than the champion by {chosen.margin:g}, a tenth of the target's mean deviation"
        )
        return f"{target} is a number: regression, judged by the mean absolute error (mae); {spread}."
    judged = "ROC AUC" if seen.task is Task.BINARY else "accuracy"
    shown = ", ".join(map(str, values[:_SHOWN])) + (" …" if len(values) > _SHOWN else "")
    second = f"; scores are the probability of {values[1]}" if seen.task is Task.BINARY else ""
    return f"{target} holds {len(values)} values ({shown}): {seen.task.value}, judged by {judged}{second}."


def _rows(seen: Look) -> Iterator[str]:
    if seen.unlabelled:
        yield f"Left out, because they have no {seen.target.name}: {seen.unlabelled:,} of the rows."


def _times(seen: Look, chosen: Settings) -> Iterator[str]:
    if seen.data.time is None:
        yield "No times were given: rows count as one a second in the file's order, and no schedule retrains."
        texts = [rule.name for rule in seen.inputs if rule.kind is Kind.TEXT and _like_times(seen.frame[rule.name])]
        if texts:
            yield f"{', '.join(texts)} looks like a time: if it says when a row happened, name it with --time."
    else:
        held = (seen.frame[EVENT_MS] > seen.frame[EVENT_MS][-1] - chosen.holdout_ms).sum()
        yield (
            f"The newest {show_duration(chosen.holdout_ms)} ({held:,} rows) of {show_duration(seen.history_ms)} are "
            f"held out; a rehearsal warms up on the first {show_duration(chosen.warmup_ms)}."
        )
        if not seen.data.label_horizon:
            yield "Targets count as known at once: if they come later, set data.label_horizon."
    if isinstance(seen.data.time, tuple):
        kept = [name for name in seen.data.time if name in seen.frame.columns]
        if kept:
            yield f"{', '.join(kept)} is a part of the time, and stays an input."
    repeated = len(seen.frame) - seen.frame[EVENT_MS].n_unique()
    if repeated and not isinstance(seen.data.time, Every):
        yield f"{repeated:,} rows share their time with another one; they keep the file's order."


def _like_times(column: pl.Series) -> bool:
    return fits_dates(column.drop_nulls().head(_SAMPLE).to_list())


def _columns(seen: Look) -> Iterator[str]:
    """Columns that a model should perhaps not see. They stay inputs: whoever knows the data decides."""
    names = [rule.name for rule in seen.inputs]
    values = seen.frame
    for said, found in (
        ("Nothing in any row", [name for name in names if values[name].null_count() == len(values)]),
        ("The same in all rows", [name for name in names if values[name].drop_nulls().n_unique() == 1]),
        ("Only counts the rows", [name for name in names if _counts(values[name])]),
        ("Another text in nearly every row", [name for name in names if _unique_text(values[name])]),
        (f"Nearly the same as {seen.target.name}", [name for name in names if _gives_away(seen, name)]),
    ):
        if found:
            yield f"{said}: {', '.join(found)}. If the model should not see this: --drop {','.join(found)}."


def _counts(column: pl.Series) -> bool:
    return column.dtype.is_integer() and not column.null_count() and bool((column.diff().drop_nulls() == 1).all())


def _unique_text(column: pl.Series) -> bool:
    return column.dtype == pl.String and column.n_unique() > 0.95 * len(column)


def _gives_away(seen: Look, name: str) -> bool:
    """Correlation with the target (numbers only)."""
    column, target = seen.frame[name], seen.frame[seen.target.name]
    if not (column.dtype.is_numeric() and target.dtype.is_numeric()) or column.drop_nulls().n_unique() < 2:
        return False
    said = seen.frame.select(pl.corr(name, seen.target.name)).item()
    return said is not None and abs(said) >= _NEARLY_THE_TARGET
