"""Requests at a mean rate, whether or not the answers come: python -m bench.flood PORT PATH RATE SECONDS < BODY

Their gaps are exponential, as those of many independent callers. A request goes out on a connection that waits for
nothing; latency counts from the moment it was due. One line of JSON: for each status the answers and their latency.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import defaultdict, deque

import httptools
import numpy as np
import uvloop

CONNECTIONS = 1_000
SLICE_S = 0.001


class Line(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, flood: Flood) -> None:
        self._flood = flood
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._flood.answered(self, self._parser.get_status_code())
        self._parser = httptools.HttpResponseParser(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._flood.lost(self)


class Flood:
    def __init__(self, message: bytes) -> None:
        self._message = message
        self.idle: list[Line] = []
        self.waiting: deque[float] = deque()  # due, and no connection was free
        self.took: dict[int, list[tuple[float, float]]] = defaultdict(list)  # status → (due, latency)
        self.broken, self.open = 0, CONNECTIONS

    def send(self, due: float) -> None:
        if not self.idle:
            self.waiting.append(due)
            return
        line = self.idle.pop()
        line.due = due
        line.transport.write(self._message)

    def lost(self, line: Line) -> None:
        """One that was idle for long is closed by the server, and not missed."""
        self.open -= 1
        self.broken += line.due > 0
        if line in self.idle:
            self.idle.remove(line)

    def answered(self, line: Line, status: int) -> None:
        self.took[status].append((line.due, time.perf_counter() - line.due))
        line.due = 0.0
        self.idle.append(line)
        if self.waiting:
            self.send(self.waiting.popleft())


async def main(port: int, path: str, rate: float, seconds: float, body: bytes) -> None:
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    flood, loop = Flood(head.encode() + body), asyncio.get_running_loop()
    for _ in range(CONNECTIONS):
        _, line = await loop.create_connection(lambda: Line(flood), "127.0.0.1", port)
        flood.idle.append(line)
    gaps = np.random.default_rng(1).exponential(1 / rate, round(1.1 * rate * seconds) + 100)
    begun, sent = time.perf_counter(), 0
    due = (begun + np.cumsum(gaps)).tolist()
    while (now := time.perf_counter()) < begun + seconds:
        while due[sent] < now:
            flood.send(due[sent])
            sent += 1
        await asyncio.sleep(SLICE_S)
    end = time.perf_counter() + 5
    while len(flood.idle) < flood.open and time.perf_counter() < end:
        await asyncio.sleep(SLICE_S)
    print(json.dumps(_told(flood, begun, sent, seconds)))  # noqa: T201


def _told(flood: Flood, begun: float, sent: int, seconds: float) -> dict[str, object]:
    found: dict[str, object] = {"sent": sent, "broken": flood.broken, "unanswered": flood.open - len(flood.idle)}
    for status, took in flood.took.items():
        due, latency = np.array(took).T
        p50, p99 = np.quantile(1e3 * latency, [0.5, 0.99])
        second = (due - begun).astype(int)
        a_second = [round(float(np.quantile(1e3 * latency[second == s], 0.99)), 2) for s in np.unique(second)]
        found[str(status)] = {"rate": len(took) / seconds, "p50_ms": p50, "p99_ms": p99, "a_second": a_second}
    return found


if __name__ == "__main__":
    port, path, rate, seconds = sys.argv[1:]
    uvloop.run(main(int(port), path, float(rate), float(seconds), sys.stdin.buffer.read()))
