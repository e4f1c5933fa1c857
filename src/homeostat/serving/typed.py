"""From the schema to types that msgspec checks while it decodes, and from its complaints to ours."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from homeostat.domain.schema import Field, Kind, Schema, Value
from homeostat.serving.messages import JSON, Ask, Refusal, Request

LONGEST_ID = 256
_NUMBER = 16
"""Characters that a number after it may take."""
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_ID)] | Int64 | None
_TYPES: Mapping[Kind, Any] = {Kind.NUMBER: float, Kind.INTEGER: Int64, Kind.BOOLEAN: bool, Kind.TEXT: str}
_WORDS = {Kind.NUMBER: "a number", Kind.INTEGER: "an integer", Kind.BOOLEAN: "true or false", Kind.TEXT: "text"}
_PATH = re.compile(r" - at `\$(?:\.records\[(\d+)\])?\.?(.*)`$", re.DOTALL)
_QUOTED = re.compile(r"Object (contains unknown|missing required) field `(.*?)`(?= - at |$)", re.DOTALL)


def type_of(field: Field) -> Any:
    return _TYPES[field.kind] | None if field.nullable else _TYPES[field.kind]


def row_type(schema: Schema) -> type[msgspec.Struct]:
    """A struct of the schema's fields, then `id` and `key` unless they are fields themselves. Attributes are numbered:
    a field may have any name."""
    members: list[tuple[str, Any] | tuple[str, Any, Any]] = [
        (f"f{i}", type_of(field)) for i, field in enumerate(schema.fields)
    ]
    extra: list[tuple[str, Any, Any]] = [(name, Name, None) for name in ("id", "key") if name not in schema.names]
    names = {f"f{i}": name for i, name in enumerate(schema.names)}
    return msgspec.defstruct("Row", [*members, *extra], rename=names, forbid_unknown_fields=True, gc=False)


def fitting(field: Field, value: object) -> Value:
    """The value where it has the field's type, else None: what the log keeps of a refused row."""
    try:
        checked: Value = msgspec.convert(value, type_of(field))
    except msgspec.ValidationError:
        return None
    return checked


FORM = "application/x-www-form-urlencoded"
"""What curl says of any body unless it is told otherwise: taken as if nothing had been said."""


def media(request: Request, *spoken: str) -> str:
    """The content type of the body, one of `spoken`; the first where none is named. Errors: `Refusal` (415)."""
    told = request.headers.get("content-type", FORM)
    if told in spoken:
        return told
    kind, _, parameters = told.lower().partition(";")
    kind = kind.strip()
    charset = parameters.partition("charset=")[2].partition(";")[0]
    if charset.strip(' "') not in ("", "utf-8", "utf8", "us-ascii"):
        raise Refusal(415, "text must be UTF-8", rule="charset=utf-8", name="content-type")
    if kind in ("", FORM):
        return spoken[0]
    if kind.endswith("+json") or kind == "text/json":
        kind = JSON
    if kind not in spoken:
        raise Refusal(415, f"send {' or '.join(spoken)}", rule=", ".join(spoken), name="content-type")
    return kind


def unread(schema: Schema) -> Ask:
    """Stands in the log for a request that could not be read: one row of nulls."""
    return Ask([(None,) * len(schema.fields)], [None], [None])


def stem(key: str) -> str:
    """What the ids of a request that names itself are numbered from: its digest where they would be too long."""
    return key if len(key) <= LONGEST_ID - _NUMBER else hashlib.sha256(key.encode()).hexdigest()


def name_text(value: object) -> str | None:
    """An id or key as text."""
    return None if value is None else str(value)


def refusal(schema: Schema, error: Exception) -> Refusal:
    """A complaint of msgspec in the caller's words: the field, the rule, the record."""
    text = str(error)
    if not isinstance(error, msgspec.ValidationError):
        return Refusal(400, "the body is not JSON", rule="json")
    path = _PATH.search(text)
    record = int(path[1]) if path and path[1] else None
    quoted = _QUOTED.match(text)
    if quoted:
        rule, word = ("unknown", "is unknown") if quoted[1] == "contains unknown" else ("required", "is missing")
        return Refusal(422, f"field {quoted[2]} {word}", rule=rule, name=quoted[2], record=record)
    name = path[2] if path else ""
    return _wrong_type(schema.fields, name, text, record)


def _wrong_type(fields: Sequence[Field], name: str, text: str, record: int | None) -> Refusal:
    field = next((field for field in fields if field.name == name), None)
    if field is None:
        rule = "length" if "length" in text else "type"
        where = name or ("the record" if record is not None else "the body")
        return Refusal(422, f"{where} does not have the expected form", rule=rule, name=name, record=record)
    if "got `null`" in text:
        return Refusal(422, f"{name} must not be null", rule="not null", name=name, record=record)
    if "out of range" in text or ">=" in text or "<=" in text:
        return Refusal(422, f"{name} is out of range", rule="finite", name=name, record=record)
    rule = _WORDS[field.kind]
    return Refusal(422, f"{name} must be {rule}", rule="type", name=name, record=record)
