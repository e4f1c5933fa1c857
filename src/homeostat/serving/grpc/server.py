"""The gRPC server, on the loop of the HTTP server: calls that are complete in one turn of it share its tick."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

import grpc
import msgspec
from google.protobuf.message import DecodeError

from homeostat.domain.errors import Refused
from homeostat.serving.grpc.messages import SERVICE
from homeostat.serving.grpc.translate import RPCS, Headers, Rpc
from homeostat.serving.http import Hub
from homeostat.serving.messages import HEADERS, Refusal, Request, Response, Waiting, refused

GRACE_S = 10.0
_FRAMING = frozenset(
    {"accept", "accept-encoding", "content-encoding", "content-type", "inference-header-content-length"}
)
_READ = frozenset(HEADERS) - _FRAMING
_SAID = frozenset({"retry-after", "traceparent", "tracestate"}) | {
    "x-explore",
    "x-explore-as",
    "x-model-version",
    "x-prediction-id",
    "x-release-id",
}
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    503: grpc.StatusCode.UNAVAILABLE,
}
_log = logging.getLogger("homeostat.serving")


@asynccontextmanager
async def door(address: str, hub: Hub) -> AsyncIterator[int]:
    """Calls are taken at `address` (host:port; port 0 takes a free one) while this lasts; at its end, those under way
    are answered. → the port. Errors: `Refused` when it is taken."""
    limits = hub.limits
    options = (
        ("grpc.max_receive_message_length", limits.max_body),
        ("grpc.max_metadata_size", limits.max_head),
        ("grpc.max_concurrent_streams", limits.pipeline),
        ("grpc.max_connection_idle_ms", int(limits.idle_s * 1_000)),
    )
    server = grpc.aio.server(options=options)
    methods = {name: grpc.unary_unary_rpc_method_handler(partial(_call, hub, rpc)) for name, rpc in RPCS.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    try:
        port = int(server.add_insecure_port(address))
    except RuntimeError:
        raise Refused(f"can't listen on {address}", way_out="Choose another --grpc-port.") from None
    await server.start()
    try:
        yield port
    finally:
        await server.stop(GRACE_S)


@dataclass(frozen=True, slots=True)
class _Told:
    """What goes back; `data` is the message when the code is OK."""

    code: Any
    text: str
    trailing: Sequence[tuple[str, str]] = ()
    data: bytes = b""


async def _call(hub: Hub, rpc: Rpc, data: bytes, context: Any) -> bytes:
    headers = {name: value for name, value in context.invocation_metadata() if name in _READ}
    try:
        told = await _answered(hub, rpc, data, headers)
    except Exception:  # the caller is told no more than that
        _log.exception("a gRPC call failed")
        told = _Told(grpc.StatusCode.INTERNAL, "the request got no answer")
    if told.code is not grpc.StatusCode.OK:
        await context.abort(told.code, told.text, tuple(told.trailing))
    context.set_trailing_metadata(tuple(told.trailing))
    return told.data


async def _answered(hub: Hub, rpc: Rpc, data: bytes, headers: Headers) -> _Told:
    try:
        response = await submitted(hub, rpc.ask(rpc.kind.FromString(data), headers))
    except DecodeError:
        response = refused(Refusal(400, "not a message of the protocol", rule="protobuf"))
    except Refusal as error:
        response = refused(error)
    said = [(name, value) for name, value in response.headers if name in _SAID]
    if response.status in rpc.good:
        return _Told(grpc.StatusCode.OK, "", said, rpc.tell(response))
    text, named = _named(response.body)
    return _Told(_CODES.get(response.status, grpc.StatusCode.INTERNAL), text, [*said, *named])


def _named(body: bytes) -> tuple[str, list[tuple[str, str]]]:
    """The message of a refusal; field, rule and record as metadata, percent-encoded as that must be ASCII."""
    told = msgspec.json.decode(body)
    detail = told["error"] if isinstance(told["error"], dict) else told
    named = [(f"x-error-{name}", detail[name]) for name in ("field", "rule", "record") if name in detail]
    return detail["message"], [(name, quote(str(value), safe=" ,_[]")) for name, value in named]


class _Call(Waiting):
    """It may have been cancelled when its answer comes."""

    future: Any = None

    def answer(self, response: Response) -> None:
        if not self.future.done():
            self.future.set_result(response)


async def submitted(hub: Hub, request: Request) -> Response:
    """The answer, of the next tick."""
    answer: asyncio.Future[Response] = hub.loop.create_future()
    hub.submit(_Call(request.method, request.path, request.body, request.headers, future=answer))
    return await answer
