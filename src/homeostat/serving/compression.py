"""Compressed bodies: of requests, within a bound on what they become, and of answers that are worth it."""

from __future__ import annotations

import zlib

from homeostat.serving.messages import Refusal, Request, Response, lines

SMALL = 4_096  # bytes: a shorter answer is sent as it is
_GZIP, _ZLIB, _RAW = 31, 15, -15  # zlib's window bits
_TAKEN = "gzip, deflate"
_FAST = 1  # three times as fast as zlib's default, and JSON of numbers gets hardly longer


def inflate(request: Request, most: int) -> None:
    """Its body becomes what it stands for, at most `most` bytes. Errors: `Refusal`, 415 for another coding, 413 when it
    is longer, 400 when it is damaged."""
    coding = request.headers.get("content-encoding", "").strip().lower()
    body = request.body
    match coding:
        case "" | "identity":
            return
        case "gzip" | "x-gzip":
            request.body = _inflated(body, _GZIP, most)
        case "deflate":  # zlib's format; some clients send the bare stream
            request.body = _inflated(body, _ZLIB if _has_zlib_header(body) else _RAW, most)
        case _:
            message = "this content-encoding is not spoken here"
            raise Refusal(415, message, rule=_TAKEN, name="content-encoding")


def packed(request: Request, response: Response) -> Response:
    """The answer as gzip or deflate where the client takes it."""
    coding = _chosen(request.headers.get("accept-encoding", ""))
    if coding is None:
        return Response(response.status, response.body, response.lines + _VARY, response.media)
    deflate = zlib.compressobj(_FAST, zlib.DEFLATED, _GZIP if coding == "gzip" else _ZLIB)
    body = deflate.compress(response.body) + deflate.flush()
    return Response(response.status, body, response.lines + _VARY + lines(("content-encoding", coding)), response.media)


_VARY = lines(("vary", "accept-encoding"))


def _inflated(data: bytes, window: int, most: int) -> bytes:
    """One whole stream and nothing after it; no more than `most` + 1 bytes are ever made."""
    stream = zlib.decompressobj(window)
    try:
        inflated = stream.decompress(data, most + 1)
    except zlib.error:
        raise _damaged() from None
    if len(inflated) > most:
        raise Refusal(413, "the body is too large", rule=f"at most {most} bytes")
    if not stream.eof or stream.unused_data:
        raise _damaged()
    return inflated


def _damaged() -> Refusal:
    return Refusal(400, "the body can't be inflated", rule="content-encoding", name="content-encoding")


def _has_zlib_header(data: bytes) -> bool:
    """RFC 1950: the method is deflate, and the first two bytes are a multiple of 31."""
    return len(data) >= 2 and data[0] & 15 == 8 and int.from_bytes(data[:2]) % 31 == 0


def _chosen(accepted: str) -> str | None:
    """gzip rather than deflate; a coding with weight 0 is refused by the client."""
    weights = dict(map(_weight, accepted.lower().split(",")))
    return next((coding for coding in ("gzip", "deflate") if weights.get(coding, weights.get("*", 0.0)) > 0), None)


def _weight(item: str) -> tuple[str, float]:
    name, _, weight = item.partition(";q=")
    try:
        return name.strip(), float(weight or 1)
    except ValueError:
        return name.strip(), 0.0
