"""Each call as a request of the HTTP protocol, and the answer back: rules, ids and the log are the same for both.

Tensors go through as they come, behind a JSON head (the binary data extension): no value is decoded twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

import msgspec
from google.protobuf import json_format

from homeostat.serving.grpc.messages import MESSAGES
from homeostat.serving.messages import Refusal, Request, Response
from homeostat.serving.tensors import encode_raw

Headers = Mapping[str, str]
_LENGTH = "inference-header-content-length"
_TYPED = {
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    **{name: f"{name.lower()}_contents" for name in ("BOOL", "INT64", "UINT64", "FP32", "FP64", "BYTES")},
}


@dataclass(frozen=True, slots=True)
class Rpc:
    """One method. `ask`: its message as a request; `tell`: an answer, whose status is one of `good`, as a message."""

    kind: Any
    ask: Callable[[Any, Headers], Request]
    tell: Callable[[Response], bytes]
    good: frozenset[int] = frozenset({200})


def _get(path: str) -> Callable[[Any, Headers], Request]:
    return lambda _, headers: Request("GET", path, b"", headers)


def _model(message: Any, headers: Headers, after: str = "") -> Request:
    return Request("GET", _path(message.name, message.version) + after, b"", headers)


def _path(name: str, version: str) -> str:
    path = f"/v2/models/{quote(name, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


def _infer(message: Any, headers: Headers) -> Request:
    """Errors: `Refusal` for contents that belong to no input."""
    contents = _contents(message)
    inputs = [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
            "parameters": {"binary_data_size": len(content)},
        }
        for tensor, content in zip(message.inputs, contents, strict=True)
    ]
    body: dict[str, Any] = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    if message.id:
        body["id"] = message.id
    if message.outputs:
        body["outputs"] = [{"name": wanted.name} for wanted in message.outputs]
    head = msgspec.json.encode(body)
    told = {**headers, "content-type": "application/octet-stream", _LENGTH: str(len(head))}
    path = _path(message.model_name, message.model_version)
    return Request("POST", f"{path}/infer", b"".join([head, *contents]), told)


def _contents(message: Any) -> list[bytes]:
    """Raw, for each input."""
    raw = message.raw_input_contents
    if not raw:
        return [_typed(tensor) for tensor in message.inputs]
    if len(raw) != len(message.inputs) or any(tensor.HasField("contents") for tensor in message.inputs):
        name = "raw_input_contents"
        raise Refusal(422, f"{name} must hold each input, and `contents` none", rule="all or none", name=name)
    return list(raw)


def _typed(tensor: Any) -> bytes:
    """Nothing where the datatype has no contents: the rules of the protocol refuse it."""
    field = _TYPED.get(tensor.datatype)
    if field is None:
        return b""
    try:
        return encode_raw(tensor.datatype, list(getattr(tensor.contents, field)))
    except OverflowError:
        rule = f"values of {tensor.datatype}"
        raise Refusal(422, f"{tensor.name} must have {rule}", rule=rule, name=tensor.name) from None


def _told(kind: str, response: Response) -> bytes:
    """The JSON has the names that the message has."""
    message = json_format.Parse(response.body, MESSAGES[kind](), ignore_unknown_fields=True)
    return bytes(message.SerializeToString())


def _inferred(response: Response) -> bytes:
    at = int(dict(response.headers)[_LENGTH])
    told = msgspec.json.decode(response.body[:at])
    message = MESSAGES["ModelInferResponse"](
        model_name=told["model_name"], model_version=told["model_version"], id=told["id"]
    )
    for name, value in told["parameters"].items():
        message.parameters.add(key=name, value={"string_param": str(value)})
    for output in told["outputs"]:
        message.outputs.add(name=output["name"], datatype=output["datatype"], shape=output["shape"])
        end = at + output["parameters"]["binary_data_size"]
        message.raw_output_contents.append(response.body[at:end])
        at = end
    return bytes(message.SerializeToString())


def _rpc(name: str, ask: Callable[[Any, Headers], Request], *also_good: int) -> Rpc:
    return Rpc(MESSAGES[f"{name}Request"], ask, partial(_told, f"{name}Response"), frozenset({200, *also_good}))


RPCS: Mapping[str, Rpc] = {
    "ServerLive": _rpc("ServerLive", _get("/v2/health/live")),
    "ServerReady": _rpc("ServerReady", _get("/v2/health/ready"), 503),
    "ModelReady": _rpc("ModelReady", partial(_model, after="/ready"), 503),
    "ServerMetadata": _rpc("ServerMetadata", _get("/v2")),
    "ModelMetadata": _rpc("ModelMetadata", _model),
    "ModelInfer": Rpc(MESSAGES["ModelInferRequest"], _infer, _inferred),
}
