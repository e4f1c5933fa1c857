"""A CSV or Parquet file → a prepared frame: typed columns, event times, keys, sorted."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from homeostat.domain.dataset import ENTITY, EVENT_MS
from homeostat.domain.errors import DataError
from homeostat.domain.policy import DataPolicy, Every
from homeostat.domain.schema import NO_VALUE, Task
from homeostat.domain.units import HOUR_MS, SECOND_MS

_MOSTLY = 0.95  # a text column with at least this share of numbers is a number column with wrong values in it
_FORMATS = ("%Y-%m-%d", "%Y/%m/%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y")
_CLOCKS = ("", " %H:%M", " %H:%M:%S", "T%H:%M:%S", "T%H:%M", " %H:%M:%S%.f", "T%H:%M:%S%.f")
_MS_FROM = 100_000_000_000  # larger numbers are milliseconds since 1970, smaller ones seconds


@dataclass(frozen=True, slots=True)
class Source:
    """The rows of a project's data file. A relative path counts from the project folder `root`."""

    root: Path
    data: DataPolicy
    task: Task

    def __call__(self) -> pl.DataFrame:
        """Errors: `DataError` that names file, column and row."""
        path = self.root / self.data.source
        return prepared(read_table(path, self.data.drop), self.data, self.task, path.name)


def read_table(path: Path, drop: Sequence[str] = ()) -> pl.DataFrame:
    """All rows, numbers as Int64 and Float64; the columns in `drop` stay as they are. Errors: `DataError`."""
    if not path.is_file():
        raise DataError(
            "the file is not there",
            where=str(path),
            way_out="Put it back, or name another (the project's own is data.source in homeostat.yaml).",
        )
    try:
        frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, infer_schema_length=None)
    except pl.exceptions.NoDataError:
        frame = pl.DataFrame()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(path, str(error).splitlines()[0]) from None
    if frame.is_empty():
        raise DataError(
            "the data file is empty", where=str(path), way_out="It needs a line of column names, then rows."
        )
    return frame.with_columns(_typed(frame[name], path.name) for name in frame.columns if name not in drop)


def column_names(path: Path) -> list[str]:
    """As the head of the file has them; [] where there is no file, or none that can be read."""
    if not path.is_file():
        return []
    try:
        lazy = pl.scan_parquet(path) if path.suffix == ".parquet" else pl.scan_csv(path)
        return lazy.collect_schema().names()
    except pl.exceptions.PolarsError:
        return []


def _unreadable(path: Path, why: str) -> DataError:
    """With the line, of a CSV file in which one holds more values than the first has names."""
    line = None if path.suffix == ".parquet" else _longer(path)
    if line is None:
        return DataError(f"can't read the file: {why}", where=str(path), way_out="CSV (UTF-8) or Parquet is read.")
    return DataError(
        "a line holds more values than there are columns",
        where=f"{path}, line {line:,}",
        way_out="Mend it; a text with commas or line breaks stands in double quotes.",
    )


def _longer(path: Path) -> int | None:
    """The number of the first such line, from 1."""
    with path.open(encoding="utf-8", errors="replace", newline="") as lines:
        rows = csv.reader(lines)
        try:
            width = len(next(rows, []))
            return next((rows.line_num for row in rows if len(row) > width), None)
        except csv.Error:  # a field without an end, bytes that are no text
            return None


def _typed(column: pl.Series, file: str) -> pl.Series:
    if column.dtype.is_integer():
        return column.cast(pl.Int64)
    if column.dtype.is_float() or column.dtype.is_decimal():
        return column.cast(pl.Float64).fill_nan(None)
    if column.dtype in (pl.Categorical, pl.Enum):
        return column.cast(pl.String)
    return _numbers(column, file) if column.dtype == pl.String else column


def _numbers(column: pl.Series, file: str) -> pl.Series:
    """The numbers in a text column, if they are; else the texts. Errors: `DataError` when nearly all are."""
    texts = column.set(column.is_in(NO_VALUE), None)
    numbers = texts.cast(pl.Float64, strict=False)
    wrong = (texts.is_not_null() & numbers.is_null()).arg_true()
    held = len(texts) - texts.null_count()
    if not held:
        return column.set(column == "", None)
    if not len(wrong):
        return numbers.fill_nan(None)
    if 1 - len(wrong) / held < _MOSTLY:
        return column.set(column == "", None)
    others = f", and {len(wrong) - 1:,} rows more" if len(wrong) > 1 else ""
    raise DataError(
        f"column {column.name!r} holds numbers, but row {wrong[0] + 1:,} holds {column[wrong[0]]!r}{others}",
        where=f"{file}, column {column.name!r}, row {wrong[0] + 1:,} (the first row of data is 1)",
        way_out="Mend the value or leave it empty; or leave the column out (data.drop, `init --drop`).",
    )


def prepared(frame: pl.DataFrame, data: DataPolicy, task: Task, file: str) -> pl.DataFrame:
    """The field columns, the target, `__event_ms`, `__key`; sorted by time. Rows without a target are left out.

    Errors: `DataError`.
    """
    for name in (*time_columns(data), data.target, *((data.key,) if data.key else ())):
        _require(frame, name, file)
    times = event_times(frame, data, file)
    keys = frame[data.key].cast(pl.String) if data.key else pl.Series([None] * len(frame), dtype=pl.String)
    names = field_names(frame, data)
    if not names:
        raise DataError("no column is left to learn from", where=file, way_out="Take a name out of data.drop.")
    target = frame[data.target]
    if task is Task.REGRESSION:
        if not target.dtype.is_numeric():
            raise DataError(f"the target {data.target!r} is {target.dtype}, not a number", where=file)
        target = target.cast(pl.Float64)
    whole = frame.select(names).with_columns(target, times.alias(EVENT_MS), keys.alias(ENTITY))
    _refuse_repeated(whole, data, file)
    return whole.filter(pl.col(data.target).is_not_null()).sort(EVENT_MS, maintain_order=True)


def time_columns(data: DataPolicy) -> tuple[str, ...]:
    if isinstance(data.time, str):
        return (data.time,)
    return data.time if isinstance(data.time, tuple) else ()


def field_names(frame: pl.DataFrame, data: DataPolicy) -> list[str]:
    """The model's inputs: all columns but the target, the key, the dropped and the times. Of several columns that
    make the time the numeric ones (the hour) stay inputs. Errors: `DataError` for a type no request can send."""
    times = time_columns(data)
    parts = [name for name in times if len(times) > 1 and frame[name].dtype.is_numeric()]
    out = ({data.target, data.key, *times} - set(parts)) | set(data.drop)
    names = [name for name in frame.columns if name not in out]
    for name in names:
        if frame[name].dtype not in (pl.Int64, pl.Float64, pl.Boolean, pl.String):
            raise DataError(
                f"column {name!r} is of type {frame[name].dtype}; an input is a number, a boolean or a text",
                way_out="Add it to data.drop (`init --drop`), or name it as the time.",
            )
    return names


def _require(frame: pl.DataFrame, name: str, file: str) -> None:
    if name not in frame.columns:
        raise DataError(f"there is no column {name!r}", where=file, way_out=f"Columns: {', '.join(frame.columns)}.")


def event_times(frame: pl.DataFrame, data: DataPolicy, file: str) -> pl.Series:
    """(n,) milliseconds since 1970, UTC. Errors: `DataError` that names the first row without a readable time."""
    if isinstance(data.time, Every):
        start = parse_times(pl.Series("data.time.start", [data.time.start]), file)[0]
        rows: pl.Series = pl.int_range(len(frame), eager=True, dtype=pl.Int64)
        return rows * data.time.every + int(start)
    if data.time is None:
        return pl.int_range(len(frame), eager=True, dtype=pl.Int64) * SECOND_MS
    names = time_columns(data)
    times = parse_times(frame[names[0]], file)
    for name in names[1:]:
        times = times + _time_of_day(frame[name], file)
    return times


def parse_times(column: pl.Series, file: str) -> pl.Series:
    """Dates and times, numbers since 1970, or text. Of the formats that fit all rows (1/2/2011 fits two) the one
    that puts the rows in order is taken, else the first."""
    if column.dtype.is_temporal():
        times = column.cast(pl.Datetime("ms")).dt.epoch("ms")
        return _readable(column, times, file)
    if column.dtype.is_numeric():
        scale = 1 if (column > _MS_FROM).any() else SECOND_MS
        return _readable(column, (column * scale).cast(pl.Int64), file)
    plain = column.cast(pl.String).str.strip_chars().str.replace(r"(Z|\+00:00)$", "")
    fits: list[pl.Series] = []
    best = plain.str.to_datetime(_FORMATS[0], strict=False, time_unit="ms").dt.epoch("ms")
    for pattern in [day + clock for clock in _CLOCKS for day in _FORMATS]:
        times = plain.str.to_datetime(pattern, strict=False, time_unit="ms").dt.epoch("ms")
        if times.null_count() < best.null_count():
            best = times
        if not times.null_count():
            fits.append(times)
    return next((times for times in fits if times.is_sorted()), fits[0] if fits else _readable(column, best, file))


def _time_of_day(column: pl.Series, file: str) -> pl.Series:
    if column.dtype.is_numeric():
        return _readable(column, (column * HOUR_MS).cast(pl.Int64), file)
    return parse_times(("1970-01-01 " + column.cast(pl.String)).alias(column.name), file)


def _readable(column: pl.Series, times: pl.Series, file: str) -> pl.Series:
    bad = times.is_null().arg_true()
    if len(bad):
        raise DataError(
            f"column {column.name!r}: row {bad[0] + 1:,} holds {column[bad[0]]!r}, which is not a time",
            where=f"{file}, column {column.name!r}, row {bad[0] + 1:,} (the first row of data is 1)",
            way_out="Write times as 2026-01-31 or 2026-01-31 14:30:00, or seconds since 1970.",
        )
    return times


def _refuse_repeated(frame: pl.DataFrame, data: DataPolicy, file: str) -> None:
    if data.repeated_times == "allow" or data.time is None:
        return
    again = (~frame.select(pl.struct(EVENT_MS, ENTITY)).to_series().is_first_distinct()).arg_true()
    if not len(again):
        return
    row = int(again[0])
    at = pl.Series([frame[EVENT_MS][row]]).cast(pl.Datetime("ms"))[0].isoformat(sep=" ")
    same = f"{at}, key {frame[ENTITY][row]}" if data.key else at
    raise DataError(
        f"{len(again):,} rows repeat a time, row {row + 1:,} first: {same}",
        where=f"{file}, column {', '.join(time_columns(data))}",
        way_out="Remove them, name a key (data.key, `--key`), or allow them: `--repeated-times allow`.",
    )


def fits_dates(texts: Sequence[str]) -> bool:
    """Is each of them a date or a time?"""
    try:
        parse_times(pl.Series("text", texts, dtype=pl.String), "")
    except DataError:
        return False
    return bool(texts)
