"""What goes in and out of the engine: no socket, no protocol.

What is made for every request is a `msgspec.Struct`: made in half the time of another object, and none of the garbage
collector's business.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from string import ascii_letters, digits
from typing import Any
from urllib.parse import quote

import msgspec

from homeostat.domain.schema import Value

Row = tuple[Value, ...]
JSON = "application/json"
RETRY = b"retry-after: 1\r\n"
_SHOWN_IDS = 100
HEADERS = (
    "accept",
    "accept-encoding",
    "authorization",
    "content-encoding",
    "content-type",
    "idempotency-key",
    "inference-header-content-length",
    "traceparent",
    "tracestate",
    "x-homeostat-variant",
)
"""The request headers that are read; the others end in the parser."""


class Request(msgspec.Struct, gc=False):
    """`path` without its query; `headers`: those of `HEADERS` that were sent; `plain`: see there."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = {}
    plain: bool = False


_TELLING = frozenset(
    {"content-encoding", "idempotency-key", "inference-header-content-length", "traceparent", "x-homeostat-variant"}
)


def plain(method: str, headers: Mapping[str, str]) -> bool:
    """A POST whose body is JSON and whose headers say nothing else that its answer or its rows of the log depend on. So
    such requests to one path can be decoded together."""
    return method == "POST" and headers.get("content-type", JSON) == JSON and _TELLING.isdisjoint(headers)


class Waiting(Request):
    """A request whose answer somebody waits for."""

    def answer(self, response: Response) -> None:
        """Called once."""
        raise NotImplementedError


class Response(msgspec.Struct, gc=False):
    """`lines`: the headers, as they go over the wire; `media`: its content type."""

    status: int
    body: bytes
    lines: bytes = b""
    media: str = JSON

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Name and value of each."""
        return [(name, value) for name, _, value in (line.partition(": ") for line in self._texts())]

    def add(self, *headers: tuple[str, str]) -> None:
        self.lines += lines(*headers)

    def _texts(self) -> list[str]:
        return self.lines.decode("latin-1").split("\r\n")[:-1]


def lines(*headers: tuple[str, str]) -> bytes:
    return "".join([f"{name}: {value}\r\n" for name, value in headers]).encode("latin-1", "replace")


class Refusal(Exception):
    """A request that gets no prediction. `rule` names what was broken, `field` and `record` where; for a 405 and a 415
    it lists what would do. `ids` are those under which the refused rows stand in the log."""

    ids: Sequence[str] = ()

    def __init__(self, status: int, message: str, *, rule: str = "", name: str = "", record: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.rule, self.field, self.record = status, message, rule, name, record

    @property
    def detail(self) -> dict[str, Any]:
        """The members that are known: field, rule, record, message."""
        known = {"field": self.field, "rule": self.rule, "record": self.record, "message": self.message}
        return {name: value for name, value in known.items() if value not in ("", None)}

    @property
    def lines(self) -> bytes:
        """The headers of its answer."""
        told = lines(("x-prediction-id", header(self.ids))) if self.ids else b""
        match self.status:
            case 503:
                return RETRY + told
            case 405:
                return lines(("allow", self.rule)) + told
            case 415:
                name = "accept-encoding" if self.field == "content-encoding" else "accept"
                return lines((name, self.rule)) + told
        return told


class Ask(msgspec.Struct, gc=False):
    """A decoded request: rows in the order of the schema's fields, an id and a key for each (None: not given), and
    what its protocol wants back in the answer.

    The rest is the engine's, which gives an id to each row that has none: `codec` and `at`, the request's own in the
    tick; `start`, its first row in the batch; `refusal`, why it gets no prediction."""

    rows: Sequence[Row]
    ids: list[Any]
    keys: list[str | None]
    echo: Any = None
    codec: Any = None
    at: int = 0
    start: int = 0
    refusal: Refusal | None = None

    @property
    def part(self) -> slice:
        """Its rows in the batch."""
        return slice(self.start, self.start + len(self.ids))


class Singles(msgspec.Struct, gc=False):
    """Requests of one record each, decoded together: rows, ids and keys as an `Ask` has them, one of each for every
    request, and the places `at` which the requests stand in the tick. Their rows are the first of the batch. What a
    row has beyond the schema's `width` fields is not its own."""

    codec: Any
    rows: list[Row]
    ids: list[Any]
    keys: list[str | None]
    at: list[int]

    def apart(self, width: int) -> list[Ask]:
        """Each by itself."""
        every = enumerate(zip(self.rows, self.ids, self.keys, self.at, strict=True))
        return [Ask([row[:width]], [name], [key], None, self.codec, at, i) for i, (row, name, key, at) in every]


@dataclass
class Answered:
    """What one tick answered for one model, row by row; a row without an answer has no score. `typed` are the labels
    with the type that the data has; `classes`: the champion's, `others`: those of versions that know other ones;
    `whole`: every row has its answer. `explored`: the ids on which the caller is to act as if `act` were the answer.

    Texts that every request needs are made here once; in `said` and `alone` a protocol keeps its own."""

    release: str
    versions: Sequence[int]
    ids: Sequence[str]
    score: Sequence[float | None]
    label: Sequence[str | None]
    scores: Sequence[Sequence[float] | None]
    typed: Mapping[str | None, Value]
    classes: Sequence[Value]
    whole: bool
    others: Mapping[int, Sequence[Value]] = field(default_factory=dict)
    explored: Collection[str] = ()
    act: Value = None
    said: Any = None
    alone: Any = None

    def __post_init__(self) -> None:
        self.alike = len(set(self.versions)) == 1
        self.shown = self.ids if _all_plain(self.ids) else [quote(one, safe=_SAFE) for one in self.ids]
        self._told = _version_lines(self.release, self.versions[0])

    def mark(self, part: slice, response: Response) -> None:
        """Name the explored rows of an answer, for protocols without a place for it."""
        ids = [quote(one, safe=_SAFE) for one in self.ids[part] if one in self.explored]
        if ids:
            response.add(("x-explore", ",".join(ids)), ("x-explore-as", quote(str(self.act), safe=_SAFE)))

    def lines(self, shown: str) -> bytes:
        """The headers of an answer that one version made."""
        return b"x-prediction-id: %b\r\n%b" % (shown.encode(), self._told)  # ASCII by now

    def each_lines(self) -> list[bytes]:
        """Those of each row's own answer."""
        between = b"\r\n%b\0x-prediction-id: " % self._told
        return self.lines("\0".join(self.shown)).replace(b"\0", between).split(b"\0")


class Reply(msgspec.Struct, gc=False):
    """The answers to one `Ask`, in its order: a part of the tick's."""

    tick: Answered
    part: slice

    @property
    def release(self) -> str:
        return self.tick.release

    @property
    def ids(self) -> Sequence[str]:
        return self.tick.ids[self.part]

    @property
    def versions(self) -> Sequence[int]:
        return self.tick.versions[self.part]

    @property
    def score(self) -> Sequence[float | None]:
        return self.tick.score[self.part]

    @property
    def scores(self) -> Sequence[Sequence[float] | None]:
        return self.tick.scores[self.part]

    @property
    def label(self) -> Sequence[Value]:
        """With the type that the data has."""
        return [self.tick.typed[label] for label in self.tick.label[self.part]] if self.tick.classes else []

    @property
    def alike(self) -> bool:
        """One version made all answers."""
        return self.tick.alike or len(set(self.versions)) == 1

    @property
    def lines(self) -> bytes:
        """The headers of its answer."""
        tick = self.tick
        ids = ",".join(tick.shown[self.part][:_SHOWN_IDS])
        if tick.alike:
            return tick.lines(ids)
        versions = ",".join(map(str, dict.fromkeys(self.versions)))
        return lines(("x-prediction-id", ids), ("x-release-id", tick.release), ("x-model-version", versions))


_PLAIN = re.compile(r"[\w.:-]+", re.ASCII).fullmatch
_PLAIN_BYTES = f"{ascii_letters}{digits}_.:-".encode()
_SAFE = "!#$&'()*+/:;=?@[]~ "


def _all_plain(ids: Sequence[str]) -> bool:
    """None could break a header. One look at all of them: nothing but what stands between them is left over."""
    left = "\n".join(ids).encode(errors="replace").translate(None, _PLAIN_BYTES)
    return left == b"\n" * (len(ids) - 1)


@lru_cache(64)
def _version_lines(release: str, version: int) -> bytes:
    return lines(("x-release-id", release), ("x-model-version", str(version)))


def header(ids: Sequence[str]) -> str:
    """The first ids, with commas between; what could break a header is percent-encoded."""
    return ",".join([one if _PLAIN(one) else quote(one, safe=_SAFE) for one in ids[:_SHOWN_IDS]])


def json(status: int, value: Any, lines: bytes = b"") -> Response:
    return Response(status, msgspec.json.encode(value), lines)


def refused(refusal: Refusal) -> Response:
    """`{"error": {field, rule, record, message}, "ids": […]}`, without `ids` where nothing was logged."""
    body: dict[str, Any] = {"error": refusal.detail}
    if refusal.ids:
        body["ids"] = refusal.ids
    return json(refusal.status, body, refusal.lines)


def ids(prefix: str) -> Iterator[str]:
    """Prediction ids that never repeat while no two workers, and no two starts of one, share a prefix."""
    return map((prefix + "-{:x}").format, count(1))  # and not a generator: several threads may take from it
