"""The data file as `init` sees it: asked for in a way that can be done, read, and inferred."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from homeostat.adapters.source import field_names, fits_dates, prepared, read_table
from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.errors import DataError, UsageError
from homeostat.domain.policy import DataPolicy, Every
from homeostat.domain.schema import Task
from homeostat.domain.units import show_duration
from homeostat.engines.infer import ColumnRule, column_rule, task_of
from homeostat.scaffold.options import Options

FEWEST = 40
"""A metric's interval needs this many rows."""
_MOST_CLASSES = 100
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Look:
    """`frame` is prepared (domain/dataset.py); `unlabelled` rows of the file have no target and are not in it."""

    frame: pl.DataFrame
    unlabelled: int
    data: DataPolicy
    task: Task
    inputs: tuple[ColumnRule, ...]
    target: ColumnRule

    @property
    def history_ms(self) -> int:
        times = self.frame[EVENT_MS]
        return int(times[-1]) - int(times[0])


def look(root: Path, options: Options) -> Look:
    """Errors: `UsageError`, `DataError`."""
    _refuse_contradictions(options)
    if not options.data.is_file():
        raise DataError("the data file is not there", where=str(options.data), way_out="Name another one with --data.")
    table = read_table(options.data, options.drop)
    _refuse_unknown_columns(table.columns, options)
    data = _data_policy(root, options)
    _refuse_no_inputs(table, data)
    task = task_of(table[options.target])
    frame = prepared(table, data, task, options.data.name)
    seen = Look(
        frame=frame,
        unlabelled=len(table) - len(frame),
        data=data,
        task=task,
        inputs=tuple(column_rule(frame[name]) for name in field_names(table, data)),
        target=column_rule(frame[options.target]),
    )
    _refuse_too_little(seen)
    return seen


def project_name(root: Path) -> str:
    """The folder's name in lower case; what is neither letter, digit, `_` nor `-` becomes a `-`."""
    folder = root.resolve().name
    name = re.sub(r"[^a-z0-9_-]+", "-", folder.lower()).strip("-")
    if not name:
        raise UsageError(
            f"the folder name {folder!r} makes no name for a model", way_out="Use letters and digits, as in: price."
        )
    return name


def _refuse_contradictions(options: Options) -> None:
    """What can be seen without the data."""
    if options.time and (options.every_ms is not None or options.start is not None):
        raise UsageError("--time and --every both say when a row happened", way_out="Give one of them.")
    if (options.every_ms is None) != (options.start is None):
        missing = "--start" if options.start is None else "--every"
        raise UsageError(f"{missing} is missing", way_out="Give both, as: --every 30m --start 1996-05-07.")
    if options.every_ms is not None and options.every_ms <= 0:
        raise UsageError("--every must be longer than nothing", way_out="Give a duration, as 30m.")
    if options.start is not None and not fits_dates([options.start]):
        raise UsageError(
            f"--start {options.start!r} is not a time", way_out="Write it as 2026-01-31 or 2026-01-31 14:30:00."
        )
    if options.label_horizon_ms and not (options.time or options.every_ms):
        raise UsageError(
            "a label horizon needs times", way_out="Say when a row happened: --time, or --every and --start."
        )
    for option, names in (("--key", (options.key,)), ("--time", options.time), ("--drop", options.drop)):
        if options.target in names:
            raise UsageError(f"{options.target!r} is the target and in {option}", way_out="A column can't be both.")


def _refuse_unknown_columns(columns: Sequence[str], options: Options) -> None:
    asked = [("--target", options.target), *(("--time", name) for name in options.time)]
    asked += [("--key", options.key)] if options.key is not None else []
    asked += [("--drop", name) for name in options.drop]
    for option, name in asked:
        if name not in columns:
            shown = ", ".join(columns[:_SHOWN])
            more = f", and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else ""
            raise DataError(
                f"there is no column {name!r} ({option})",
                where=options.data.name,
                way_out=f"{_nearest(name, columns)}Columns: {shown}{more}.",
            )


def _nearest(name: str, columns: Sequence[str]) -> str:
    lower = {column.lower(): column for column in columns}
    close = difflib.get_close_matches(name.lower(), list(lower), n=1, cutoff=0.5)
    return f"Did you mean {lower[close[0]]!r}? " if close else ""


def _data_policy(root: Path, options: Options) -> DataPolicy:
    time: str | tuple[str, ...] | Every | None = None
    if options.every_ms is not None and options.start is not None:
        time = Every(options.every_ms, options.start)
    elif options.time:
        time = options.time[0] if len(options.time) == 1 else options.time
    return DataPolicy(
        source=_relative(options.data, root),
        target=options.target,
        time=time,
        key=options.key,
        label_horizon=options.label_horizon_ms,
        drop=options.drop,
        repeated_times=options.repeated_times,
    )


def _relative(file: Path, root: Path) -> str:
    """From the project folder. Links in the way are followed (`..` of a link is not the link's parent), the file's own
    is not: it may point to tomorrow's data tomorrow."""
    return Path(os.path.relpath(file.parent.resolve() / file.name, root.resolve())).as_posix()


def _refuse_no_inputs(table: pl.DataFrame, data: DataPolicy) -> None:
    if not field_names(table, data):
        raise DataError(
            "no column is left to learn from",
            where=data.source,
            way_out=f"Besides {data.target!r} a column must stay: take one out of --drop, --time or --key.",
        )


def _refuse_too_little(seen: Look) -> None:
    file = seen.data.source
    if len(seen.frame) < FEWEST:
        raise DataError(f"{len(seen.frame)} rows with a target are too few: {FEWEST} are needed", where=file)
    classes = seen.frame[seen.target.name].n_unique()
    if seen.task is Task.MULTICLASS and classes > _MOST_CLASSES:
        raise DataError(
            f"the target {seen.target.name!r} is text with {classes:,} different values",
            where=file,
            way_out=f"Choose a target with at most {_MOST_CLASSES} classes, or a number.",
        )
    if not seen.history_ms:
        raise DataError(
            "all rows have the same time", where=file, way_out="Name another --time, or --every and --start."
        )
    if seen.data.label_horizon * 2 > seen.history_ms and seen.data.label_horizon:
        raise UsageError(
            f"the label horizon, {show_duration(seen.data.label_horizon)}, is over half of the history, "
            f"{show_duration(seen.history_ms)}",
            way_out="Give more history, or a shorter --label-horizon.",
        )
