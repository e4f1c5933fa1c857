"""The binary data extension of the V2 protocol: a JSON head, then the raw tensors in the order it names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from homeostat.serving.messages import JSON, Refusal, Request, Response, lines
from homeostat.serving.tensors import encode_raw

EXTENSION = "binary_tensor_data"
MEDIA = "application/octet-stream"
_LENGTH = "inference-header-content-length"


def split(request: Request) -> tuple[bytes, bytes]:
    """→ the JSON head and what follows it. Errors: `Refusal`."""
    told, body = request.headers.get(_LENGTH), request.body
    if told is None:
        return body, b""
    if not (told.isascii() and told.isdigit() and len(told) < 12 and int(told) <= len(body)):
        raise Refusal(400, f"{_LENGTH} is not the length of a part of the body", rule="length", name=_LENGTH)
    return body[: int(told)], body[int(told) :]


def blobs(inputs: Sequence[tuple[str, Mapping[str, Any] | None]], rest: bytes) -> dict[str, bytes]:
    """Name → raw content of the inputs (name, parameters) that have one. Errors: `Refusal` unless they make up the
    whole of `rest`."""
    found, at = dict[str, bytes](), 0
    for name, parameters in inputs:
        size = parameters.get("binary_data_size") if parameters else None
        if size is None:
            continue
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(rest) - at:
            raise Refusal(400, f"{name}: binary_data_size leads beyond the body", rule="binary_data_size", name=name)
        found[name], at = rest[at : at + size], at + size
    if at < len(rest):
        raise Refusal(400, "the body is longer than its binary_data_size say", rule="binary_data_size")
    return found


def response(body: dict[str, Any], raw: Sequence[str], headers: bytes) -> Response:
    """The answer `body`, whose outputs of the names `raw` become binary."""
    contents = []
    for output in body["outputs"]:
        if output["name"] in raw:
            contents.append(encode_raw(output["datatype"], output.pop("data")))
            output["parameters"] = {"binary_data_size": len(contents[-1])}
    head = msgspec.json.encode(body)
    if not contents:
        return Response(200, head, headers, JSON)
    return Response(200, b"".join([head, *contents]), headers + lines((_LENGTH, str(len(head)))), MEDIA)
