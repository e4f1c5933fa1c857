"""OpenTelemetry spans of the data plane (the extra `otel`), set up by the OTEL_* variables of its own SDK."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import entry_points

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from homeostat.domain.errors import ConfigError
from homeostat.ports import Asked, Told

_CARRIED = TraceContextTextMapPropagator()
_UNKNOWN_PATH = (404, 405)


def provider(name: str) -> TracerProvider:
    """Sends spans to the exporter of that name. Errors: `ConfigError` when it is not installed."""
    found = entry_points(group="opentelemetry_traces_exporter", name="otlp_proto_http" if name == "otlp" else name)
    if not found:
        raise ConfigError(
            f"the OpenTelemetry exporter {name} is not installed",
            where="OTEL_TRACES_EXPORTER",
            way_out="Run pip install 'homeostat[otel]', or name another one.",
        )
    made = TracerProvider()
    made.add_span_processor(BatchSpanProcessor(next(iter(found)).load()()))
    return made


class Spans:
    """`ports.Tracing`."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def tick(self) -> Tick:
        return Tick(self._tracer)


class Tick:
    """`ports.TickTrace`: a span for the tick with one for each stage, and one for each request, linked to the tick."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._began = time.time_ns()
        self._stages: list[tuple[str, int]] = []

    def stage(self, name: str) -> None:
        self._stages.append((name, time.time_ns()))

    def end(self, requests: Sequence[Asked], answers: Sequence[Told]) -> None:
        ended = time.time_ns()
        tick = self._spans(len(requests), ended)
        for request, answer in zip(requests, answers, strict=True):
            self._request(request, answer, tick, ended)

    def _spans(self, requests: int, ended: int) -> Link:
        tick = self._tracer.start_span("tick", start_time=self._began, attributes={"homeostat.requests": requests})
        began = self._began
        for name, over in self._stages:
            self._tracer.start_span(name, set_span_in_context(tick), start_time=began).end(over)
            began = over
        tick.end(ended)
        return Link(tick.get_span_context())

    def _request(self, request: Asked, answer: Told, tick: Link, ended: int) -> None:
        """Named by its path where that is one of ours: there are few of them."""
        known = answer.status not in _UNKNOWN_PATH
        span = self._tracer.start_span(
            f"{request.method} {request.path}" if known else request.method,
            _CARRIED.extract(request.headers),
            SpanKind.SERVER,
            {"http.request.method": request.method, "url.path": request.path},
            [tick],
            self._began,
        )
        span.set_attribute("http.response.status_code", answer.status)
        span.set_attributes({f"homeostat.{name[2:]}": text for name, text in answer.headers if name.startswith("x-")})
        if answer.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end(ended)
        carried = dict[str, str]()
        _CARRIED.inject(carried, set_span_in_context(span))
        answer.add(*carried.items())
