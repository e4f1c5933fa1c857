"""MLflow's scoring protocol: a table in one of four JSON forms, or as CSV, in; `{"predictions": […]}` out.

As with MLflow, columns that the model does not know are ignored; a table without column names must have the schema's
columns in their order. Columns named `id` and `key` name the predictions and their entities.
"""

from __future__ import annotations

import csv
import io
import re
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from homeostat.domain.schema import Kind, Schema, Task
from homeostat.serving.messages import JSON, Answered, Ask, Refusal, Reply, Request, Response, json
from homeostat.serving.typed import Name, media, name_text, type_of, unread

CSV = "text/csv"
_CODES = {
    400: "BAD_REQUEST",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    422: "INVALID_PARAMETER_VALUE",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
}
_NULLS = frozenset({"", "NA", "NaN", "nan", "null", "None", "N/A", "<NA>"})  # some of what pandas reads as missing
Table = Mapping[str, Sequence[Any]]


class Mlflow:
    """Decodes and encodes for one schema."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._types = {field.name: types.GenericAlias(list, (type_of(field),)) for field in schema.fields}
        self._texts = frozenset(field.name for field in schema.fields if field.kind is Kind.TEXT)
        for name in ("id", "key"):
            self._types.setdefault(name, types.GenericAlias(list, (Name,)))

    def decode(self, request: Request) -> Ask:
        """Errors: `Refusal`, as in the records protocol."""
        loose = media(request, JSON, CSV) == CSV
        table = self._table(request.body, loose)
        n = len(next(iter(table.values()), ()))
        if n == 0:
            raise Refusal(422, "the table must not be empty", rule="not empty")
        for name in self._schema.names:
            if name not in table:
                raise Refusal(422, f"column {name} is missing", rule="required", name=name)
        columns = {name: self._column(name, table[name], n, loose) for name in self._types if name in table}
        ids, keys = (list(map(name_text, columns.get(name) or [None] * n)) for name in ("id", "key"))
        rows = list(zip(*[columns[name] for name in self._schema.names], strict=True))
        return Ask(rows, ids, keys)

    def salvage(self, request: Request) -> Ask:
        """The columns that can be read; null for the others."""
        try:
            loose = media(request, JSON, CSV) == CSV
            table = self._table(request.body, loose)
        except Refusal:
            return unread(self._schema)
        n = max(map(len, table.values()), default=0) or 1
        columns = [self._readable(name, table.get(name, ()), n, loose) for name in self._schema.names]
        return Ask(list(zip(*columns, strict=True)), [None] * n, [None] * n)

    def encode(self, ask: Ask, tick: Answered) -> Response:
        """What the model's own `predict` gives, the class or the value, and the ids beside it."""
        reply = Reply(tick, ask.part)
        regression = self._schema.task is Task.REGRESSION
        predictions = reply.score if regression else reply.label
        return json(200, {"predictions": predictions, "ids": reply.ids}, reply.lines)

    def refuse(self, error: Refusal) -> Response:
        return refused(error)

    def _table(self, body: bytes, loose: bool) -> Table:
        """Name → values. Errors: `Refusal`."""
        if loose:
            return _from_csv(body)
        given = _parse(body)
        forms = [form for form in _FORMS if form in given]
        if len(forms) != 1:
            raise Refusal(422, f"send one of {', '.join(_FORMS)}", rule=f"one of {', '.join(_FORMS)}")
        return _FORMS[forms[0]](forms[0], given[forms[0]], self._schema.names)

    def _column(self, name: str, values: Sequence[Any], n: int, loose: bool) -> list[Any]:
        if len(values) != n:
            raise Refusal(422, f"column {name} must have {n} values", rule="length", name=name)
        try:
            return self._typed(name, values, loose)
        except msgspec.ValidationError as error:
            at = str(error).rpartition("`$[")[2].partition("]")[0]
            record = int(at) if at.isdigit() else None
            raise Refusal(422, f"{name} has a value of the wrong type", rule="type", name=name, record=record) from None

    def _readable(self, name: str, values: Sequence[Any], n: int, loose: bool) -> list[Any]:
        try:
            found = self._typed(name, values, loose)
        except msgspec.ValidationError:
            found = []
        return found + [None] * (n - len(found))

    def _typed(self, name: str, values: Sequence[Any], loose: bool) -> list[Any]:
        """`loose`: the values are text, whatever the field is."""
        if loose:
            values = [None if value in _NULLS else value for value in values]
        typed: list[Any] = msgspec.convert(values, self._types[name], strict=not loose or name in self._texts)
        return typed


def refused(error: Refusal) -> Response:
    """As MLflow says it; what it names stands beside it."""
    body = {"error_code": _CODES.get(error.status, "BAD_REQUEST"), **error.detail}
    return json(error.status, {**body, "ids": error.ids} if error.ids else body, error.lines)


def _parse(body: bytes) -> dict[str, Any]:
    try:
        given = msgspec.json.decode(_without_nan(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refusal(400, "the body is not JSON", rule="json") from None
    if not isinstance(given, dict):
        raise Refusal(422, "the body must be a JSON object", rule="type")
    return given


_TOKEN = re.compile(rb'"(?:[^"\\]|\\.?)*+"?|NaN', re.DOTALL)


def _without_nan(body: bytes) -> bytes:
    """MLflow's own client writes a missing number as NaN, which no JSON has: null, unless it stands in a text."""
    if b"NaN" not in body:
        return body
    return _TOKEN.sub(lambda found: b"null" if found[0] == b"NaN" else found[0], body)


def _split(form: str, given: Any, names: Sequence[str]) -> Table:
    if not isinstance(given, dict) or not isinstance(given.get("data"), list):
        raise Refusal(422, f"{form} must have data, a list of rows", rule="form", name=form)
    told = given.get("columns")
    if told is None:
        return _by_position(form, given["data"], names)
    if not isinstance(told, list) or len(set(map(repr, told))) < len(told):
        raise Refusal(422, f"{form}: columns must be a list of names, each once", rule="form", name="columns")
    return _by_position(form, given["data"], [name if isinstance(name, str) else repr(name) for name in told])


def _by_position(form: str, rows: Sequence[Any], names: Sequence[str]) -> Table:
    for record, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(names):
            raise Refusal(422, f"a row must be a list of {len(names)} values", rule="form", name=form, record=record)
    return dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {}


def _by_name(form: str, rows: Sequence[Any], names: Sequence[str]) -> Table:
    """A record without a column has null there. Only known columns are looked at: they bound the table."""
    for record, row in enumerate(rows):
        if not isinstance(row, dict):
            raise Refusal(422, "a row must be an object, like the first", rule="form", name=form, record=record)
    known = [name for name in (*names, "id", "key") if any(name in row for row in rows)]
    return {name: [row.get(name) for row in rows] for name in known}


def _records(form: str, given: Any, names: Sequence[str]) -> Table:
    if not isinstance(given, list):
        raise Refusal(422, f"{form} must be a list of records", rule="form", name=form)
    return _by_name(form, given, names)


def _tensor(form: str, given: Any, names: Sequence[str]) -> Table:
    """Rows by name or by position, or columns by name; a column's only value may stand alone, each value of one in a
    list of its own."""
    if isinstance(given, dict):
        return {name: _flat(values) if isinstance(values, list) else [values] for name, values in given.items()}
    if not isinstance(given, list):
        raise Refusal(422, f"{form} must be a list of rows or an object of columns", rule="form", name=form)
    table = (_by_name if given and isinstance(given[0], dict) else _by_position)(form, given, names)
    return {name: _flat(values) for name, values in table.items()}


def _flat(values: Sequence[Any]) -> Sequence[Any]:
    if all(isinstance(value, list) and len(value) == 1 for value in values):
        return [value[0] for value in values]
    return values


_FORMS: Mapping[str, Callable[[str, Any, Sequence[str]], Table]] = {
    "dataframe_split": _split,
    "dataframe_records": _records,
    "instances": _tensor,
    "inputs": _tensor,
}


def _from_csv(body: bytes) -> Table:
    """The first line names the columns."""
    try:
        rows = [row for row in csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True) if row]
    except (UnicodeDecodeError, csv.Error):
        raise Refusal(400, "the body is not CSV", rule="csv") from None
    if not rows or len(set(rows[0])) < len(rows[0]):
        raise Refusal(422, "the first line must name the columns, each once", rule="columns")
    return _by_position("csv", rows[1:], rows[0])
