"""W3C trace context without a tracing library: what came in goes on, under a span id of our own."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

from homeostat.ports import Asked, Told

_PARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?").fullmatch
_LONGEST_STATE = 512  # characters that must be passed on; W3C Trace Context, 3.3.1.5


class PassedOn:
    """`ports.Tracing` that makes no spans, and every tick's `ports.TickTrace`."""

    def tick(self) -> PassedOn:
        return self

    def stage(self, name: str) -> None:
        del name

    def end(self, requests: Sequence[Asked], answers: Sequence[Told]) -> None:
        for request, answer in zip(requests, answers, strict=True):
            if "traceparent" in request.headers:
                answer.add(*passed_on(request.headers))


def trace_id(headers: Mapping[str, str]) -> str | None:
    """Of the trace that the request is part of; None where what came in is not trace context."""
    parent = _PARENT(headers["traceparent"])
    return None if parent is None or (parent[1] == "00" and parent[4]) else parent[2]


def passed_on(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The headers of the answer; none where what came in is not trace context."""
    parent = _PARENT(headers["traceparent"])
    if parent is None or (parent[1] == "00" and parent[4]):
        return ()
    ours = ("traceparent", f"00-{parent[2]}-{random.getrandbits(64) or 1:016x}-{parent[3]}")
    state = headers.get("tracestate", "")
    return (ours, ("tracestate", state)) if 0 < len(state) <= _LONGEST_STATE else (ours,)
