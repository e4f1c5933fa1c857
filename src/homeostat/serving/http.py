"""HTTP/1.1 around the engine: every request that is complete in one turn of the event loop is answered in one tick."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, cast

import httptools

from homeostat.serving.compression import inflate
from homeostat.serving.limit import Limit
from homeostat.serving.messages import HEADERS, JSON, Refusal, Response, Waiting, lines, plain, refused
from homeostat.serving.plan import refuse
from homeostat.serving.queues import Queue
from homeostat.serving.tick import Engine

_LINGER_S = 2.0
_HEADS_KEPT = 1_024
_END = b"\r\n\r\n"
_KEPT = {name.encode(): name for name in HEADERS}
_STARTS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_HEADS = {status: start + b"content-type: application/json\r\n" for status, start in _STARTS.items()}


@dataclass(frozen=True, slots=True)
class Limits:
    """`queue`: requests that may wait in one worker, at the very most (see `Limit`); `pipeline`: unanswered requests of
    one connection before it is no longer read; `idle_s`: how long a connection may be silent; `slow_s`: how long one
    request may take to arrive, or a client may take nothing of its answers."""

    max_body: int = 1_000_000
    max_head: int = 32_768
    queue: int = 1_024
    pipeline: int = 64
    connections: int = 10_000
    idle_s: float = 75.0
    slow_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Head:
    """What the bytes before a body say. `plain`: see `messages`; `bare`: the answer goes without its body; `length`: of
    the request's body. `raw`: the bytes, `size`: theirs and the body's, for one that is remembered."""

    method: str
    path: str
    headers: Mapping[str, str]
    plain: bool
    bare: bool
    length: int
    raw: bytes = b""
    size: int = -1


_NONE = Head("", "", {}, False, False, 0)


class Hub:
    """Gathers what the connections of one worker completed, and has it answered together."""

    def __init__(self, engine: Engine, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self.engine, self.limits, self.loop = engine, limits, loop
        self.connections: set[Connection] = set()
        self.heads: dict[bytes, Head] = {}
        self.draining = False
        self._quick = Queue("quick", engine, loop, Limit(limits.queue))
        self._slow = Queue("slow", engine, loop, Limit(limits.queue), ThreadPoolExecutor(1, "slow"))
        self._shed: list[Waiting] = []

    def submit(self, request: Waiting) -> None:
        if not request.plain and "content-encoding" in request.headers:
            try:
                inflate(request, self.limits.max_body)
            except Refusal as error:
                self.engine.meter.refused(error.status)
                request.answer(refuse(request, error))
                return
        queue = self._slow if self.engine.slow(request) else self._quick
        if queue.take(request):
            return
        if not self._shed:
            self.loop.call_soon(self._refuse)
        self._shed.append(request)

    def _refuse(self) -> None:
        requests, self._shed = self._shed, []
        for request, response in zip(requests, self.engine.shed(requests), strict=True):
            request.answer(response)

    def remember(self, raw: bytes, head: Head) -> None:
        """A client that stays sends the same head again and again. The parser has passed these bytes once; the same
        bytes mean the same."""
        if len(self.heads) >= _HEADS_KEPT:
            self.heads.clear()
        self.heads[raw] = replace(head, raw=raw, size=len(raw) + head.length)

    def sweep(self) -> None:
        """Close connections that are idle or too slow; asks for itself again."""
        now = self.loop.time()
        queues = {queue.name: queue.state for queue in (self._quick, self._slow)}
        self.engine.meter.states(len(self.connections), queues)
        for connection in list(self.connections):
            connection.expire(now)
        self.loop.call_later(1.0, self.sweep)

    def drain(self) -> None:
        """No new requests: each connection closes after its last answer."""
        self.draining = True
        for connection in list(self.connections):
            connection.drain()


class Slot(Waiting, gc=False):
    """One request, and the place of its answer in the order of the connection. `close`: the last one; `bare`: of a HEAD
    request, answered without its body; `old`: HTTP/1.0, which must be told to stay."""

    connection: Any = None
    close: bool = False
    bare: bool = False
    old: bool = False
    data: bytes | None = None

    def answer(self, response: Response) -> None:
        start, head = _HEADS[response.status], response.lines
        if response.media is not JSON:
            start, head = _STARTS[response.status], lines(("content-type", response.media)) + head
        if self.close:
            head += b"connection: close\r\n"
        elif self.old:
            head += b"connection: keep-alive\r\n"
        self.data = b"%bcontent-length: %d\r\n%b\r\n%b" % (
            start,
            len(response.body),
            head,
            b"" if self.bare else response.body,
        )
        self.connection.flush()


class Connection(asyncio.Protocol):
    """One client. Requests may be pipelined; answers keep their order."""

    def __init__(self, hub: Hub) -> None:
        self._hub, self._limits = hub, hub.limits
        self._slots: deque[Slot] = deque()
        self._deaf = self._paused = False
        self._since = hub.loop.time()
        self._begun = self._active = False
        self._unsent, self._moved = 0, self._since
        self._url, self._declared, self._expects, self._chunked = b"", 0, False, False
        self._headers = dict[str, str]()
        self._head, self._body, self._size = 0, list[bytes](), 0
        self._plain: Head | None = None
        self._known = _NONE

    # The transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)
        self._hub.connections.add(self)
        if len(self._hub.connections) > self._limits.connections:
            self._refuse(Refusal(503, "too many connections", rule="connections"))

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._deaf = True
        self._slots.clear()
        self._hub.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        known, hub = self._known, self._hub
        if len(data) != known.size or self._begun or not data.startswith(known.raw):
            end = data.find(_END) + len(_END)
            found = None if self._begun else hub.heads.get(data[:end])
            if found is None or len(data) != found.size:
                self._unknown(data, end)
                return
            self._known = known = found
        self._active = True
        self._submit(known, data[len(known.raw) :], hub.draining, False)

    def _unknown(self, data: bytes, end: int) -> None:
        """Of a head that ends there."""
        whole, head = not self._begun, self._parse(data)
        if whole and head is not None and len(data) == end + head.length:
            self._hub.remember(data[:end], head)

    def _parse(self, data: bytes) -> Head | None:
        """→ the head of the last request that is complete now, if its like may come again."""
        self._plain = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as offered:
            self._stay(data[offered.args[0] :])
        except httptools.HttpParserError:
            self._refuse(Refusal(400, "not HTTP", rule="http"))
        return self._plain

    def _stay(self, rest: bytes) -> None:
        """Another protocol is offered (h2c, as by Java's client) and not taken up: the same request again without the
        offer, for a parser that expects its body, of which `rest` is the beginning."""
        method = self._parser.get_method()
        if method == b"CONNECT":
            self._refuse(Refusal(400, "no other protocol is spoken here", rule="upgrade"))
            return
        body = b"transfer-encoding: chunked" if self._chunked else b"content-length: %d" % self._declared
        head = b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in self._headers.items())
        self._parser = httptools.HttpRequestParser(self)
        self._parse(b"%b %b HTTP/1.1\r\n%b%b\r\n\r\n%b" % (method, self._url, head, body, rest))

    def eof_received(self) -> bool:
        """A client may close its half and still read its answers."""
        self._deaf = True
        if not self._slots:
            return False
        self._slots[-1].close = True
        return True

    def pause_writing(self) -> None:
        self._pause()

    def resume_writing(self) -> None:
        self._resume()

    # The parser

    def on_message_begin(self) -> None:
        self._begun, self._since = True, self._hub.loop.time()
        self._url, self._declared, self._expects, self._chunked = b"", 0, False, False
        self._headers = {}
        self._head, self._body, self._size = 0, [], 0

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._grow(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Two are read here, some are handed on; the parser sees to the others that frame a message."""
        self._grow(len(name) + len(value))
        name = name.lower()
        kept = _KEPT.get(name)
        if kept is not None:
            self._headers[kept] = value.decode("latin-1")
        elif name == b"content-length":
            self._declared = int(value) if value.isdigit() else 0
        elif name == b"transfer-encoding":
            self._chunked = True
        elif name == b"expect":
            self._expects = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        if self._declared > self._limits.max_body:
            self._too_large()
        elif self._expects and not self._slots and not self._deaf:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._limits.max_body:
            self._too_large()
        elif not self._deaf:
            self._body.append(part)

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade():
            return  # see `_stay`
        self._begun = False
        if self._deaf:
            return
        method = self._parser.get_method().decode("latin-1")
        bare, old = method == "HEAD", self._parser.get_http_version() == "1.0"
        path = self._url.decode("latin-1").partition("?")[0]
        if not path.startswith("/"):  # a whole URL is allowed too: RFC 9112, 3.2.2
            path = "/" + path.partition("://")[2].partition("/")[2]
        head = Head("GET" if bare else method, path, self._headers, plain(method, self._headers), bare, self._declared)
        close = not self._parser.should_keep_alive() or self._hub.draining
        if not (close or old or self._expects):
            self._plain = head
        self._submit(head, self._body[0] if len(self._body) == 1 else b"".join(self._body), close, old)

    def _submit(self, head: Head, body: bytes, close: bool, old: bool) -> None:
        slot = Slot(head.method, head.path, body, head.headers, head.plain, self, close, head.bare, old)
        slots = self._slots
        slots.append(slot)
        self._deaf = close
        self._hub.submit(slot)
        if len(slots) >= self._limits.pipeline:
            self._pause()

    # Answers and limits

    def flush(self) -> None:
        """Write the answers that are ready and whose turn it is."""
        slots = self._slots
        while slots and (data := slots[0].data) is not None:
            self._transport.write(data)
            if slots.popleft().close:
                self._finish()
                return
        if self._paused and len(slots) < self._limits.pipeline:
            self._resume()

    def expire(self, now: float) -> None:
        unsent = self._transport.get_write_buffer_size()
        if not unsent or unsent < self._unsent:
            self._moved = now
        self._unsent = unsent
        if now - self._moved > self._limits.slow_s:  # a client that takes no answer
            self._transport.abort()
        if self._active:  # since the last look
            self._active, self._since = False, now
        waited = now - self._since
        if self._begun and waited > self._limits.slow_s:
            self._refuse(Refusal(408, "the request took too long to arrive", rule="time"))
        elif not self._begun and not self._slots and waited > self._limits.idle_s:
            self._transport.close()

    def drain(self) -> None:
        if self._slots:
            self._deaf = self._slots[-1].close = True
        elif not self._begun:
            self._transport.close()

    @property
    def busy(self) -> bool:
        return self._begun or bool(self._slots)

    def _grow(self, size: int) -> None:
        self._head += size
        if self._head > self._limits.max_head:
            self._refuse(Refusal(431, "the headers are too large", rule=f"at most {self._limits.max_head} bytes"))

    def _too_large(self) -> None:
        self._refuse(Refusal(413, "the body is too large", rule=f"at most {self._limits.max_body} bytes"))

    def _refuse(self, error: Refusal) -> None:
        """Answer in turn, and hear no more from this client."""
        if self._deaf:
            return
        self._deaf, self._begun = True, False
        self._hub.engine.meter.refused(error.status)
        slot = Slot("", "", connection=self, close=True)
        self._slots.append(slot)
        slot.answer(refused(error))

    def _finish(self) -> None:
        """Close, but let the client read its answer first: what it still sends is read and dropped for a while."""
        self._slots.clear()
        self._deaf = True
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()
            self._resume()
            self._hub.loop.call_later(_LINGER_S, self._transport.close)

    def _pause(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()
