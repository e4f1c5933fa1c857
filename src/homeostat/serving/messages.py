"""What goes in and out of the engine: no socket, no protocol."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import msgspec

from homeostat.domain.schema import Value

Row = tuple[Value, ...]
_SHOWN_IDS = 100
HEADERS = (
    "accept",
    "accept-encoding",
    "content-encoding",
    "content-type",
    "idempotency-key",
    "inference-header-content-length",
    "traceparent",
    "tracestate",
    "x-homeostat-variant",
)
"""The request headers that are read; the others end in the parser."""


@dataclass(slots=True)
class Request:
    """`path` without its query; `headers`: those of `HEADERS` that were sent."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Response:
    status: int
    body: bytes
    headers: Sequence[tuple[str, str]] = ()


class Refusal(Exception):
    """A request that gets no prediction. `rule` names what was broken, `field` and `record` where."""

    def __init__(self, status: int, message: str, *, rule: str = "", name: str = "", record: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.rule, self.field, self.record = status, message, rule, name, record

    @property
    def detail(self) -> dict[str, Any]:
        """The members that are known: field, rule, record, message."""
        known = {"field": self.field, "rule": self.rule, "record": self.record, "message": self.message}
        return {name: value for name, value in known.items() if value not in ("", None)}

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        if self.status == 503:
            return (("retry-after", "1"),)
        return (("allow", self.rule),) if self.status == 405 else ()


@dataclass(slots=True)
class Ask:
    """A decoded request: rows in the order of the schema's fields, an id and a key for each (None: not given), and
    what its protocol wants back in the answer."""

    rows: list[Row]
    ids: list[str | None]
    keys: list[str | None]
    echo: Any = None


@dataclass(slots=True)
class Reply:
    """The answers to one `Ask`, in its order. `typed` are the labels with the type that the data has."""

    release: str
    versions: Sequence[int]
    ids: Sequence[str]
    score: Sequence[float | None]
    label: Sequence[str | None]
    scores: Sequence[Sequence[float] | None]
    typed: Mapping[str | None, Value]
    classes: Sequence[Value]

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        ids = ",".join([one if _PLAIN(one) else quote(one, safe=_SAFE) for one in self.ids[:_SHOWN_IDS]])
        versions = str(self.versions[0]) if self.alike else ",".join(map(str, dict.fromkeys(self.versions)))
        return (("x-prediction-id", ids), ("x-release-id", self.release), ("x-model-version", versions))

    @property
    def alike(self) -> bool:
        """One version made all answers."""
        return len(self.versions) == 1 or len(set(self.versions)) == 1


_PLAIN = re.compile(r"[\w.:-]+", re.ASCII).fullmatch
_SAFE = "!#$&'()*+/:;=?@[]~ "


def json(status: int, value: Any, headers: Sequence[tuple[str, str]] = ()) -> Response:
    return Response(status, msgspec.json.encode(value), headers)


def refused(refusal: Refusal) -> Response:
    """`{"error": {field, rule, record, message}}`."""
    return json(refusal.status, {"error": refusal.detail}, refusal.headers)


def ids(prefix: str) -> Iterator[str]:
    """Prediction ids that never repeat while no two workers, and no two starts of one, share a prefix."""
    count = 0
    while True:
        count += 1
        yield f"{prefix}-{count:x}"
