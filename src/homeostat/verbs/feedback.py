"""`project.feedback`: what callers tell of predictions, from files and from Python, and how it stands."""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from homeostat.adapters.source import read_table
from homeostat.domain.errors import DataError
from homeostat.domain.event import Event
from homeostat.domain.feedback import FeedbackStanding
from homeostat.domain.schema import Value
from homeostat.domain.units import DAY_MS
from homeostat.engines.feedback import ACCEPTED, REJECTED
from homeostat.services import classes
from homeostat.services.classes import NewClasses
from homeostat.services.feedback import Feedback
from homeostat.serving.feedback import SIGNALS

Rows = pl.DataFrame | Sequence[Mapping[str, Value]]
_COLUMNS = "Columns: id or key; label and source, or name and value, or a column for each signal; at, if known."
REMARK = "#"
"""How the names of columns begin that tell people something, and say nothing themselves."""
_OURS = ("id", "key", "at", "label", "source", "name", "value")


def caller() -> str:
    """The user of this process, as the environment or the machine names them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number without a name
        return f"user {os.getuid()}"


@dataclass(frozen=True, slots=True)
class Taken:
    """How much of a file was taken: all of it."""

    rows: int
    labels: int
    signals: int


class FeedbackVerbs:
    """Called, it takes labels. `ask`: a request to a data plane, with its body → what it says."""

    def __init__(
        self,
        model: str,
        ask: Callable[[str, Mapping[str, Any]], Mapping[str, Any]],
        told: Callable[[], Feedback],
        classes: Callable[[], NewClasses],
    ) -> None:
        self._model, self._ask, self._feedback, self._classes = model, ask, told, classes

    def __call__(self, labels: Rows) -> int:
        """Labels by prediction id: `id`, `label` and, if known, `source` and `at`. → how many were taken. Errors:
        `DataError` that names the first wrong one; `NotFound` before the first release."""
        return self._told({"labels": _listed(labels)})

    def signals(self, signals: Rows) -> int:
        """Numbers by prediction id, or by entity: `id` or `key`, `name`, `value` (1 without it) and, if known, `at`.
        → how many were taken. Errors: as above."""
        return self._told({"signals": _listed(signals)})

    def add(self, path: Path) -> Taken:
        """From a CSV, Parquet or JSON Lines file: all of it or nothing. A row without a time is of when the file was
        written, so that the file may be added again. Errors: `DataError` that names file, row and rule."""
        labels, signals, rows = _of_file(path)
        told = {"labels": [one for _, one in labels], "signals": [one for _, one in signals]}
        if not (labels or signals):
            raise DataError("the file holds no label and no signal", where=str(path), way_out=_COLUMNS)
        try:
            self._told({name: some for name, some in told.items() if some})
        except Wrong as error:
            number = (labels if error.labels else signals)[error.record][0]
            raise DataError(error.what, where=f"{path}, row {number + 1} (the first is 1)", way_out=_COLUMNS) from None
        return Taken(rows, len(labels), len(signals))

    def status(self, last_ms: int = 30 * DAY_MS) -> FeedbackStanding:
        """What came of late, by source and by signal; the classes that labels name and the model does not know."""
        return replace(self._feedback().standing(last_ms), classes=self._classes().standing())

    def accept_class(self, name: str, reason: str = "", who: str = "") -> Event:
        """A class that the model does not know is one: labels that name it count, and are learned from. Errors:
        `NotFound`."""
        return self._classes().decide(classes.ACCEPTED, name, reason, who or caller())

    def reject_class(self, name: str, reason: str = "", who: str = "") -> Event:
        """It is none: labels that name it are errors. Errors: `NotFound`."""
        return self._classes().decide(classes.REJECTED, name, reason, who or caller())

    def accept(self, source: str = "", from_ms: int | None = None, reason: str = "", who: str = "") -> Event:
        """Labels of `source` ("": none named) given from then on are right after all; by default since they became
        suspicious. The source is held against its labels from then on. Errors: `NotFound`."""
        return self._feedback().decide(ACCEPTED, source, from_ms, reason, who or caller())

    def reject(self, source: str = "", from_ms: int | None = None, reason: str = "", who: str = "") -> Event:
        """They are wrong: neither learned from nor counted, until they are accepted from a later time on. Errors:
        `NotFound`."""
        return self._feedback().decide(REJECTED, source, from_ms, reason, who or caller())

    def _told(self, told: Mapping[str, Sequence[Mapping[str, Any]]]) -> int:
        said = self._ask("/v1/feedback", {**told, "model": self._model})
        return int(said["accepted"])


class Wrong(DataError):
    """One of the labels, or of the signals, is refused; `record` counts from 0."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        self.labels, self.record = not error.get("field", "").startswith(SIGNALS), int(error["record"])
        super().__init__(error["message"], where=f"row {self.record + 1} (the first is 1)")


def _listed(rows: Rows) -> Sequence[Mapping[str, Any]]:
    return rows.to_dicts() if isinstance(rows, pl.DataFrame) else rows


Told = list[tuple[int, dict[str, Any]]]
"""(number of the row, a label or a signal)."""


def _of_file(path: Path) -> tuple[Told, Told, int]:
    """The labels and the signals of a file, and its number of rows. An empty cell says nothing. Errors: `DataError`."""
    rows = _rows(path)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if not {"id", "key"} & {*columns} or ("label" in columns and "id" not in columns):
        raise DataError("the column 'id' is missing", where=str(path), way_out=_COLUMNS)
    if any(row.get("key") is not None and row.get("at") is None for row in rows):
        raise DataError("an event of an entity needs its time", where=f"{path}, column 'at'", way_out=_COLUMNS)
    written = round(min(path.stat().st_mtime, time.time()) * 1_000)
    labels: Told = []
    signals: Told = []
    for number, row in enumerate(rows):
        said = {name: value for name, value in row.items() if value is not None} | {"at": row.get("at") or written}
        if "label" in said:
            labels.append((number, _only(said, "id", "label", "source", "at")))
        signals += [(number, one) for one in _signals(said)]
    return labels, signals, len(rows)


def _rows(path: Path) -> list[dict[str, Any]]:
    """Errors: `DataError` that names the row that is no JSON object."""
    if path.suffix not in (".jsonl", ".ndjson"):
        return read_table(path).to_dicts()
    rows = []
    for number, line in enumerate(_lines(path)):
        try:
            rows.append(msgspec.json.decode(line, type=dict[str, Any]))
        except msgspec.MsgspecError as error:
            raise DataError(str(error), where=f"{path}, row {number + 1} (the first is 1)", way_out=_COLUMNS) from None
    return rows


def _lines(path: Path) -> list[bytes]:
    try:
        return [line for line in path.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        raise DataError(f"can't read the file: {error.strerror}", where=str(path)) from None


def _signals(said: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The signals of a row: one under `name` and `value`, or one a column."""
    if "name" in said:
        yield _only(said, "id", "key", "name", "value", "at")
        return
    who = _only(said, "id", "key", "at")
    for name, value in said.items():
        if name not in _OURS and not name.startswith(REMARK):
            yield {**who, "name": name, "value": value}


def _only(said: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: said[name] for name in names if name in said}
