"""The records protocol: `{"records": [{field: value, …}]}`, a record may carry an `id` and a `key`. A message of a
stream is one such record by itself."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from homeostat.domain.schema import Schema, Task, Value
from homeostat.serving.messages import JSON, Answered, Ask, Refusal, Reply, Request, Response, Row, Singles, refused
from homeostat.serving.typed import LONGEST_ID, fitting, media, name_text, refusal, row_type

_astuple = msgspec.structs.astuple


class Records:
    """Decodes and encodes for one schema."""

    def __init__(self, schema: Schema) -> None:
        row = row_type(schema)
        records = types.GenericAlias(list, (row,))
        body = msgspec.defstruct("Body", [("records", records)], forbid_unknown_fields=True, gc=False)
        self.schema = schema
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(body).decode
        self.one = Record(self, msgspec.json.Decoder(row).decode)
        self._k = len(schema.fields)
        after = iter(range(self._k, self._k + 2))
        self._id, self._key = (
            schema.names.index(name) if name in schema.names else next(after) for name in ("id", "key")
        )

    def decode(self, request: Request) -> Ask:
        """Errors: `Refusal`, 400 when it is not JSON, 415 when it says so, 422 when it does not fit the schema."""
        if request.headers.get("content-type", JSON) != JSON:
            media(request, JSON)
        try:
            records = self._decode(request.body).records
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise refusal(self.schema, error) from None
        if len(records) == 1:  # nearly always
            return self.one_asked(_astuple(records[0]))
        if not records:
            raise Refusal(422, "records must not be empty", rule="not empty", name="records")
        rows: list[Row] = [_astuple(record) for record in records]
        ids = [name_text(row[self._id]) for row in rows]
        keys = [name_text(row[self._key]) for row in rows]
        return Ask([row[: self._k] for row in rows], ids, keys)

    def together(self, requests: Sequence[Request], places: Sequence[int]) -> tuple[Singles, list[int]]:
        """The plain requests at these places that ask for one record each; the places of the others, sound or not."""
        decode, rows, at, others = self._decode, list[Row](), list[int](), list[int]()
        for i in places:
            try:
                records = decode(requests[i].body).records
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                records = ()
            if len(records) == 1:
                rows.append(_astuple(records[0]))
                at.append(i)
            else:
                others.append(i)
        return Singles(self, rows, _names(rows, self._id), _names(rows, self._key), at), others

    def one_asked(self, row: Row) -> Ask:
        """A decoded record: the fields, then what names it."""
        name, key = row[self._id], row[self._key]
        return Ask([row[: self._k]], [None if name is None else str(name)], [None if key is None else str(key)])

    def salvage(self, request: Request) -> Ask:
        """What can be read of a refused body, for the log: values that fit their field, null for the others."""
        return self.pick(_listed(_loose(request.body)))

    def pick(self, loose: Sequence[Any]) -> Ask:
        """What fits the schema of records that were refused: nothing of what is no record."""
        records = [one if isinstance(one, dict) else {} for one in loose]
        rows = [tuple(fitting(field, record.get(field.name)) for field in self.schema.fields) for record in records]
        return Ask(rows, [_name(record, "id") for record in records], [_name(record, "key") for record in records])

    def encode(self, ask: Ask, tick: Answered) -> Response:
        """A record's own `model_version` is told when a canary split the records of one request."""
        if tick.alike and len(ask.ids) == 1:
            return self.alone(tick)[ask.start]
        reply = Reply(tick, ask.part)
        said = self.said(tick)[ask.part]
        if not reply.alike:
            for prediction, version in zip(said, reply.versions, strict=True):
                prediction.model_version = version
        return Response(200, _encode(_Body(tick.release, tick.versions[ask.start], said)), reply.lines)

    def said(self, tick: Answered) -> list[_Said]:
        """The predictions of the whole tick, made once."""
        if tick.said is None:
            tick.said = _SAID[self.schema.task](tick)
            for prediction in tick.said if tick.explored else ():
                prediction.explore = tick.act if prediction.id in tick.explored else None
        predictions: list[_Said] = tick.said
        return predictions

    def alone(self, tick: Answered) -> list[Response]:
        """The answer to each row by itself, where one version made them all; made once. All texts are made in one call
        each: no newline stands within a prediction."""
        if tick.alone is None:
            start, end = _start(tick.release, tick.versions[0]), b"]}"
            predictions = _encode_lines(self.said(tick)).removesuffix(b"\n")
            bodies = (start + predictions.replace(b"\n", end + b"\n" + start) + end).split(b"\n")
            tick.alone = [Response(200, *one) for one in zip(bodies, tick.each_lines(), strict=True)]
        answers: list[Response] = tick.alone
        return answers

    def refuse(self, error: Refusal) -> Response:
        return refused(error)


class Record:
    """One record in, one prediction out, each a flat object."""

    def __init__(self, records: Records, decode: Callable[[bytes], msgspec.Struct]) -> None:
        self._records, self._decode = records, decode

    def decode(self, request: Request) -> Ask:
        """Errors: as `Records.decode`."""
        if request.headers.get("content-type", JSON) != JSON:
            media(request, JSON)
        try:
            row = _astuple(self._decode(request.body))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise refusal(self._records.schema, error) from None
        return self._records.one_asked(row)

    def salvage(self, request: Request) -> Ask:
        """As `Records.salvage`."""
        return self._records.pick([_loose(request.body)])

    def encode(self, ask: Ask, tick: Answered) -> Response:
        (said,) = self._records.said(tick)[ask.part]
        version = tick.versions[ask.start]
        told = _Told(said.id, tick.release, version, said.value, said.score, said.label, said.scores, said.explore)
        return Response(200, _encode(told), Reply(tick, ask.part).lines)

    def refuse(self, error: Refusal) -> Response:
        return refused(error)


@lru_cache(64)
def _start(release: str, version: int) -> bytes:
    """Of an answer: all but its predictions and `]}`."""
    return _encode(_Body(release, version, [])).removesuffix(b"]}")


def _names(rows: Sequence[Row], place: int) -> list[str | None]:
    """What stands there in each row, as text."""
    names = [row[place] for row in rows]
    return [None] * len(names) if names.count(None) == len(names) else [name_text(name) for name in names]


def _loose(body: bytes) -> Any:
    """None where it is not JSON."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _listed(loose: Any) -> Sequence[Any]:
    records = loose.get("records") if isinstance(loose, dict) else None
    return records if isinstance(records, list) and records else [{}]


def _name(record: dict[str, Any], name: str) -> str | None:
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value) if 0 < len(str(value)) <= LONGEST_ID else None


class _Said(msgspec.Struct, omit_defaults=True, gc=False):
    """One prediction, as it is written; what does not apply is left out. (No value of an answer is null.)"""

    id: str
    value: float | None = None
    score: float | None = None
    label: Value = None
    scores: dict[str, float] | None = None
    model_version: int | None = None
    explore: Value = None


class _Told(msgspec.Struct, omit_defaults=True, gc=False):
    """A prediction by itself."""

    id: str
    release: str
    model_version: int
    value: float | None = None
    score: float | None = None
    label: Value = None
    scores: dict[str, float] | None = None
    explore: Value = None


class _Body(msgspec.Struct, gc=False):
    release: str
    model_version: int
    predictions: list[_Said]


_encode, _encode_lines = msgspec.json.Encoder().encode, msgspec.json.Encoder().encode_lines


def _numbers(tick: Answered) -> list[_Said]:
    return [_Said(name, value) for name, value in zip(tick.ids, tick.score, strict=True)]


def _binary(tick: Answered) -> list[_Said]:
    typed, rows = tick.typed.get, zip(tick.ids, tick.score, tick.label, strict=True)
    return [_Said(name, None, score, typed(label)) for name, score, label in rows]


def _classes(tick: Answered) -> list[_Said]:
    names, typed = [str(known) for known in tick.classes], tick.typed.get
    others = {version: [str(known) for known in classes] for version, classes in tick.others.items()}
    rows = zip(tick.ids, tick.versions, tick.score, tick.label, tick.scores, strict=True)
    return [
        _Said(name, None, score, typed(label), dict(zip(others.get(version, names), scores, strict=True)))
        if scores
        else _Said(name, None, score, typed(label))
        for name, version, score, label, scores in rows
    ]


_SAID: Mapping[Task, Callable[[Answered], list[_Said]]] = {
    Task.REGRESSION: _numbers,
    Task.BINARY: _binary,
    Task.MULTICLASS: _classes,
}
