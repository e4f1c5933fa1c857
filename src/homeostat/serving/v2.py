"""The Open Inference Protocol V2 over HTTP: one tensor a feature, by name, shape [n] or [n, 1]; text is BYTES. Its data
stand in the JSON or, by the binary data extension, behind it.

Two more tensors may come along, `id` and `key`, unless the schema has fields of that name.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from homeostat.domain.schema import Field, Kind, Schema, Task, Value
from homeostat.engines.transform import MANY
from homeostat.serving import binary
from homeostat.serving.columns import Columns
from homeostat.serving.messages import JSON, Answered, Ask, Refusal, Reply, Request, Response, json
from homeostat.serving.tensors import decode_raw, fixed
from homeostat.serving.typed import LONGEST_ID, Name, media, name_text, stem, type_of, unread

_FLOATS = frozenset({"FP16", "FP32", "FP64"})
_INTEGERS = frozenset({"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"})
TAKEN = {
    Kind.NUMBER: _FLOATS | _INTEGERS,
    Kind.INTEGER: _INTEGERS,
    Kind.BOOLEAN: frozenset({"BOOL"}),
    Kind.TEXT: frozenset({"BYTES"}),
}
"""The datatypes of each kind of field."""
_TOLD = {Kind.NUMBER: "FP64", Kind.INTEGER: "INT64", Kind.BOOLEAN: "BOOL", Kind.TEXT: "BYTES"}
_VIEWS: Mapping[Kind, type] = {Kind.NUMBER: np.float64, Kind.INTEGER: np.int64}
_LARGEST = np.iinfo(np.int64).max
_NAMES = _INTEGERS | {"BYTES"}
_SHOWN_IDS = 100
_NO_DATA = msgspec.Raw()


class Tensor(msgspec.Struct, gc=False):
    """`data` is decoded later, when the type of its values is known."""

    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = _NO_DATA
    parameters: dict[str, Any] | None = None


class Wanted(msgspec.Struct, gc=False):
    name: str
    parameters: dict[str, Any] | None = None


class Infer(msgspec.Struct, gc=False):
    inputs: list[Tensor]
    id: Annotated[str, msgspec.Meta(max_length=LONGEST_ID)] | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[Wanted] | None = None


_decode = msgspec.json.Decoder(Infer).decode


class Column:
    """The values of one field out of its tensor."""

    def __init__(self, name: str, taken: frozenset[str], told: str, kind: Any, view: type | None = None) -> None:
        """`view`: what many of its numbers are seen as."""
        self._name, self._taken, self._told, self._view = name, taken, told, view
        self._type = types.GenericAlias(list, (kind,))
        self._flat = msgspec.json.Decoder(self._type).decode
        self._nested = msgspec.json.Decoder(types.GenericAlias(list, (self._type,))).decode

    @classmethod
    def of(cls, field: Field) -> Column:
        return cls(field.name, TAKEN[field.kind], _TOLD[field.kind], type_of(field), _VIEWS.get(field.kind))

    def values(self, tensor: Tensor, raw: bytes | None, n: int) -> Sequence[Any]:
        """n of them; `raw` is the tensor's binary content, None when the data stand in the JSON. Errors: `Refusal`."""
        if tensor.datatype not in self._taken:
            raise self._wrong(f"datatype {self._told}", f"datatype {self._told}")
        if tensor.shape != [n] and tensor.shape != [n, 1]:
            raise self._wrong("shape", f"shape [{n}] or [{n}, 1]")
        try:
            values: Sequence[Any] = self._json(tensor.data) if raw is None else self._raw(tensor.datatype, raw, n)
        except msgspec.ValidationError as error:
            at = str(error).rpartition("`$[")[2].partition("]")[0]
            kind, record = tensor.datatype, int(at) if at.isdigit() else None
            raise self._wrong(f"type {kind}", f"values that fit {kind} and the field", record) from None
        if len(values) != n:
            raise self._wrong("shape", f"{n} values")
        return values

    def _json(self, data: msgspec.Raw) -> list[Any]:
        """[n, 1] may come nested."""
        if not data:
            raise self._wrong("required", "data")
        try:
            values: list[Any] = self._flat(data)
        except msgspec.ValidationError as error:
            if "got `array`" not in str(error):
                raise
            values = [value for row in self._nested(data) for value in row]
        return values

    def _raw(self, datatype: str, raw: bytes, n: int) -> Sequence[Any]:
        try:
            seen = self._seen(datatype, raw, n) if n >= MANY and self._view else None
            if seen is not None:
                return seen
            found = decode_raw(datatype, raw, n)
        except ValueError as error:
            raise Refusal(422, f"{self._name} {error}", rule="binary data", name=self._name) from None
        if self._view is np.float64 and datatype in _FLOATS and None not in found:
            return found
        values: list[Any] = msgspec.convert(found, self._type)
        return values

    def _seen(self, datatype: str, raw: bytes, n: int) -> memoryview | None:
        """Its numbers as memory; None where there is a null, or an integer that is too big. Errors: `ValueError`."""
        values = fixed(datatype, raw, n)
        if np.isnan(values).any() or (self._view is np.int64 and values.max() > _LARGEST):
            return None
        doubles = self._view is np.float64
        return values.astype(np.float64).data if doubles else values.astype(np.int64).data.cast("B").cast("q")

    def _wrong(self, rule: str, needed: str, record: int | None = None) -> Refusal:
        return Refusal(422, f"{self._name} must have {needed}", rule=rule, name=self._name, record=record)


class V2:
    """Decodes and encodes for one model."""

    def __init__(self, model: str, schema: Schema) -> None:
        self._model, self._schema = model, schema
        self._columns = {field.name: Column.of(field) for field in schema.fields}
        self._extra = {name: Column(name, _NAMES, "BYTES", Name) for name in ("id", "key")}
        self._declared = declared(schema)

    def decode(self, request: Request) -> Ask:
        """Errors: `Refusal`, as in the records protocol."""
        infer, raw = _parse(request)
        tensors = {tensor.name: tensor for tensor in infer.inputs}
        self._check_names(tensors, infer)
        n = _rows(infer.inputs[0])
        try:
            columns = {name: one.values(tensors[name], raw.get(name), n) for name, one in self._columns.items()}
            ids, keys = (self._named(name, columns, tensors, raw, n) for name in ("id", "key"))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _not_json() from None
        table = list(columns.values())
        rows = Columns(table) if n >= MANY else list(zip(*table, strict=True))
        return Ask(rows, ids or _ids(infer.id, n), keys or [None] * n, infer)

    def salvage(self, request: Request) -> Ask:
        """The tensors that can be read; null for the others."""
        try:
            infer, raw = _parse(request)
        except Refusal:
            return unread(self._schema)
        columns = {tensor.name: list(self._readable(tensor, raw)) for tensor in infer.inputs}
        n = max(map(len, columns.values())) or 1
        padded = [[*columns.get(name, ()), *[None] * (n - len(columns.get(name, ())))] for name in self._schema.names]
        return Ask(list(zip(*padded, strict=True)), _ids(infer.id, n), [None] * n)

    def encode(self, ask: Ask, tick: Answered) -> Response:
        infer: Infer = ask.echo
        reply = Reply(tick, ask.part)
        wanted = {output.name: output.parameters or {} for output in infer.outputs or ()}
        outputs = [tensor for tensor in self._outputs(reply) if not wanted or tensor["name"] in wanted]
        parameters: dict[str, Value] = {
            "release": reply.release,
            "prediction_ids": ",".join(reply.ids[:_SHOWN_IDS]),
        }
        body = {
            "model_name": self._model,
            "model_version": str(reply.versions[0]),
            "id": infer.id or reply.ids[0],
            "parameters": parameters,
            "outputs": outputs,
        }
        every = (infer.parameters or {}).get("binary_data_output", False)
        raw = [one["name"] for one in outputs if wanted.get(one["name"], {}).get("binary_data", every) is True]
        return binary.response(body, raw, reply.lines) if raw else json(200, body, reply.lines)

    def refuse(self, error: Refusal) -> Response:
        return refused(error)

    def metadata(self, versions: Sequence[int]) -> dict[str, Any]:
        """Model metadata as the protocol defines it."""
        inputs = [{"name": f.name, "datatype": _TOLD[f.kind], "shape": [-1]} for f in self._schema.fields]
        outputs = [{"name": name, "datatype": kind, "shape": shape} for name, kind, shape in self._declared]
        return {
            "name": self._model,
            "versions": [str(version) for version in versions],
            "platform": "onnxruntime_onnx",
            "inputs": inputs,
            "outputs": outputs,
        }

    def _check_names(self, tensors: Mapping[str, Tensor], infer: Infer) -> None:
        for name in tensors:
            if name not in self._columns and name not in self._extra:
                raise Refusal(422, f"input {name} is unknown", rule="unknown", name=name)
        if len(tensors) < len(infer.inputs):
            raise Refusal(422, "an input is given twice", rule="once")
        for name in self._columns:
            if name not in tensors:
                raise Refusal(422, f"input {name} is missing", rule="required", name=name)
        told = {name for name, _, _ in self._declared}
        for output in infer.outputs or ():
            if output.name not in told:
                raise Refusal(422, f"output {output.name} is unknown", rule="unknown", name=output.name)

    def _named(
        self,
        name: str,
        columns: Mapping[str, Sequence[Value]],
        tensors: Mapping[str, Tensor],
        raw: Mapping[str, bytes],
        n: int,
    ) -> list[str | None]:
        """The tensor `id` or `key` as text, be it a field or not; empty when it was not sent."""
        if name not in tensors:
            return []
        values = columns[name] if name in columns else self._extra[name].values(tensors[name], raw.get(name), n)
        return [name_text(value) for value in values]

    def _readable(self, tensor: Tensor, raw: Mapping[str, bytes]) -> Iterator[Value]:
        column = self._columns.get(tensor.name)
        if column is not None and tensor.shape:
            try:
                yield from column.values(tensor, raw.get(tensor.name), tensor.shape[0])
            except (Refusal, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                return  # it is what the request was refused for

    def _outputs(self, reply: Reply) -> list[dict[str, Any]]:
        n = len(reply.ids)
        data: dict[str, list[Any]] = {"id": list(reply.ids), "score": list(reply.score), "value": list(reply.score)}
        data["label"] = list(reply.label)
        data["scores"] = [score for scores in self._scores(reply) for score in scores or ()]
        return [
            {"name": name, "datatype": kind, "shape": [n, *shape[1:]], "data": data[name]}
            for name, kind, shape in self._declared
        ]

    def _scores(self, reply: Reply) -> Sequence[Sequence[float] | None]:
        """Of the champion's classes, as declared: a version that knows others has no other form to say so."""
        others = reply.tick.others
        if not others:
            return reply.scores
        own, found = self._schema.classes, []
        for version, scores in zip(reply.versions, reply.scores, strict=True):
            known = dict(zip(others.get(version, own), scores or (), strict=False))
            found.append([known.get(one, 0.0) for one in own])
        return found


def refused(error: Refusal) -> Response:
    """The protocol wants a text; what it names stands beside it."""
    body = {"error": error.message, **error.detail}
    return json(error.status, {**body, "ids": error.ids} if error.ids else body, error.lines)


def _parse(request: Request) -> tuple[Infer, dict[str, bytes]]:
    """→ the JSON, and the binary contents by the names of their tensors. Errors: `Refusal`."""
    if request.headers.get("content-type", JSON) != JSON:
        media(request, JSON, binary.MEDIA)
    head, rest = binary.split(request)
    try:
        infer = _decode(head)
    except msgspec.ValidationError as error:
        raise Refusal(422, f"not an inference request: {error}", rule="form") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _not_json() from None
    if not infer.inputs:
        raise Refusal(422, "inputs must not be empty", rule="not empty", name="inputs")
    return infer, binary.blobs([(tensor.name, tensor.parameters) for tensor in infer.inputs], rest)


def _not_json() -> Refusal:
    return Refusal(400, "the body is not JSON", rule="json")


def _rows(tensor: Tensor) -> int:
    if not tensor.shape or tensor.shape[0] < 1:
        raise Refusal(422, f"{tensor.name} must have shape [n] or [n, 1]", rule="shape", name=tensor.name)
    return tensor.shape[0]


def _ids(given: str | None, n: int) -> list[str | None]:
    """The request's id names its one prediction; several are numbered."""
    if not given:
        return [None] * n
    return [given] if n == 1 else [f"{stem(given)}-{i}" for i in range(n)]


def declared(schema: Schema) -> list[tuple[str, str, list[int]]]:
    """Name, datatype and shape of each output tensor."""
    if schema.task is Task.REGRESSION:
        return [("value", "FP64", [-1]), ("id", "BYTES", [-1])]
    declared = [("score", "FP64", [-1]), ("label", _label_type(schema.classes), [-1])]
    if schema.task is Task.MULTICLASS:
        declared.append(("scores", "FP64", [-1, len(schema.classes)]))
    return [*declared, ("id", "BYTES", [-1])]


def _label_type(classes: Sequence[Value]) -> str:
    if all(isinstance(known, bool) for known in classes):
        return "BOOL"
    if all(isinstance(known, int) for known in classes):
        return "INT64"
    return "FP64" if all(isinstance(known, float) for known in classes) else "BYTES"
