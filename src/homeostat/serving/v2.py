"""The Open Inference Protocol V2 over JSON: one tensor a feature, by name, shape [n] or [n, 1]; text is BYTES.

Two more tensors may come along, `id` and `key`, unless the schema has fields of that name.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from homeostat.domain.schema import Field, Kind, Schema, Task, Value
from homeostat.serving.messages import Ask, Refusal, Reply, Request, Response, json
from homeostat.serving.typed import Name, name_text, type_of

_FLOATS = frozenset({"FP16", "FP32", "FP64"})
_INTEGERS = frozenset({"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"})
_TAKEN = {
    Kind.NUMBER: _FLOATS | _INTEGERS,
    Kind.INTEGER: _INTEGERS,
    Kind.BOOLEAN: frozenset({"BOOL"}),
    Kind.TEXT: frozenset({"BYTES"}),
}
_TOLD = {Kind.NUMBER: "FP64", Kind.INTEGER: "INT64", Kind.BOOLEAN: "BOOL", Kind.TEXT: "BYTES"}
_SHOWN_IDS = 100


class Tensor(msgspec.Struct, gc=False):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] = {}


class Wanted(msgspec.Struct, gc=False):
    name: str
    parameters: dict[str, Any] = {}


class Infer(msgspec.Struct, gc=False):
    inputs: list[Tensor]
    id: str | None = None
    parameters: dict[str, Any] = {}
    outputs: list[Wanted] = []


_decode = msgspec.json.Decoder(Infer).decode


class V2:
    """Decodes and encodes for one model."""

    def __init__(self, model: str, schema: Schema) -> None:
        self._model, self._schema = model, schema
        self._fields = {field.name: field for field in schema.fields}

    def decode(self, request: Request) -> Ask:
        """Errors: `Refusal`, as in the records protocol."""
        infer = _parse(request.body)
        tensors = {tensor.name: tensor for tensor in infer.inputs}
        self._check_names(tensors, infer)
        n = _rows(infer.inputs[0])
        columns = {name: self._column(field, tensors[name], n) for name, field in self._fields.items()}
        extra = {
            name: list(map(name_text, columns[name])) if name in columns else _names(tensors[name], n)
            for name in ("id", "key")
            if name in tensors
        }
        ids = extra.get("id") or _ids(infer.id, n)
        return Ask(list(zip(*columns.values(), strict=True)), ids, extra.get("key") or [None] * n, infer)

    def salvage(self, request: Request) -> Ask:
        """The tensors that can be read; null for the others."""
        try:
            infer = _parse(request.body)
        except Refusal:
            return Ask([], [], [])
        columns = {tensor.name: _fitting(self._fields[tensor.name], tensor) for tensor in infer.inputs
                   if tensor.name in self._fields}  # fmt: skip
        n = max(map(len, columns.values()), default=1)
        padded = [[*columns.get(name, ()), *[None] * (n - len(columns.get(name, ())))] for name in self._schema.names]
        return Ask(list(zip(*padded, strict=True)), _ids(infer.id, n), [None] * n)

    def encode(self, ask: Ask, reply: Reply) -> Response:
        infer: Infer = ask.echo
        wanted = {output.name for output in infer.outputs}
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
        return json(200, body, reply.headers)

    def refuse(self, error: Refusal) -> Response:
        """The protocol wants a text; what it names stands beside it."""
        return json(error.status, {"error": error.message, **error.detail}, error.headers)

    def metadata(self, versions: Sequence[int]) -> dict[str, Any]:
        """Model metadata as the protocol defines it."""
        inputs = [{"name": f.name, "datatype": _TOLD[f.kind], "shape": [-1]} for f in self._schema.fields]
        outputs = [{"name": name, "datatype": kind, "shape": shape} for name, kind, shape in _declared(self._schema)]
        return {
            "name": self._model,
            "versions": [str(version) for version in versions],
            "platform": "onnxruntime_onnx",
            "inputs": inputs,
            "outputs": outputs,
        }

    def _check_names(self, tensors: Mapping[str, Tensor], infer: Infer) -> None:
        known = {*self._fields, "id", "key"}
        for name in tensors:
            if name not in known:
                raise Refusal(422, f"input {name} is unknown", rule="unknown", name=name)
        if len(tensors) < len(infer.inputs):
            raise Refusal(422, "an input is given twice", rule="once")
        for name in self._fields:
            if name not in tensors:
                raise Refusal(422, f"input {name} is missing", rule="required", name=name)
        told = {name for name, _, _ in _declared(self._schema)}
        for output in infer.outputs:
            if output.name not in told:
                raise Refusal(422, f"output {output.name} is unknown", rule="unknown", name=output.name)

    def _column(self, field: Field, tensor: Tensor, n: int) -> Sequence[Value]:
        if tensor.datatype not in _TAKEN[field.kind]:
            rule = f"datatype {_TOLD[field.kind]}"
            raise Refusal(422, f"{field.name} must have {rule}", rule=rule, name=field.name)
        return _values(tensor, n, type_of(field))

    def _outputs(self, reply: Reply) -> list[dict[str, Any]]:
        n = len(reply.ids)
        data: dict[str, list[Any]] = {"id": list(reply.ids), "score": list(reply.score), "value": list(reply.score)}
        data["label"] = list(reply.label)
        data["scores"] = [score for scores in reply.scores for score in scores or ()]
        return [
            {"name": name, "datatype": kind, "shape": [n, *shape[1:]], "data": data[name]}
            for name, kind, shape in _declared(self._schema)
        ]


def _parse(body: bytes) -> Infer:
    try:
        infer = _decode(body)
    except msgspec.ValidationError as error:
        raise Refusal(422, f"not an inference request: {error}", rule="form") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refusal(400, "the body is not JSON", rule="json") from None
    if not infer.inputs:
        raise Refusal(422, "inputs must not be empty", rule="not empty", name="inputs")
    return infer


def _rows(tensor: Tensor) -> int:
    if not tensor.shape or tensor.shape[0] < 1:
        raise Refusal(422, f"{tensor.name} must have shape [n] or [n, 1]", rule="shape", name=tensor.name)
    return tensor.shape[0]


def _values(tensor: Tensor, n: int, kind: Any) -> list[Any]:
    """The tensor's n values, each a `kind`."""
    name, data = tensor.name, _flat(tensor)
    if tensor.shape not in ([n], [n, 1]) or len(data) != n:
        raise Refusal(422, f"{name} must have shape [{n}] or [{n}, 1]", rule="shape", name=name)
    try:
        values: list[Any] = msgspec.convert(data, types.GenericAlias(list, (kind,)))
    except msgspec.ValidationError as error:
        at = str(error).rpartition("$[")[2].partition("]")[0]
        record = int(at) if at.isdigit() else None
        raise Refusal(
            422, f"{name} has a value of the wrong type", rule=f"type {tensor.datatype}", name=name, record=record
        ) from None
    return values


def _flat(tensor: Tensor) -> list[Any]:
    """[n, 1] may come nested."""
    if all(isinstance(value, list) and len(value) == 1 for value in tensor.data):
        return [value[0] for value in tensor.data]
    return tensor.data


def _names(tensor: Tensor, n: int) -> list[str | None]:
    return [name_text(value) for value in _values(tensor, n, Name)]


def _ids(given: str | None, n: int) -> list[str | None]:
    """The request's id names its one prediction; several are numbered."""
    if not given:
        return [None] * n
    return [given] if n == 1 else [f"{given}-{i}" for i in range(n)]


def _fitting(field: Field, tensor: Tensor) -> list[Value]:
    values = _flat(tensor)
    try:
        checked: list[Value] = msgspec.convert(values, types.GenericAlias(list, (type_of(field),)))
    except msgspec.ValidationError:
        return [None] * len(values)
    return checked


def _declared(schema: Schema) -> list[tuple[str, str, list[int]]]:
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
