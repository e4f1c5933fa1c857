"""Callers: requests at a mean rate, whether or not the answers come, and the truth of each a moment later.

Their gaps are exponential, as those of many independent callers (Poisson). A row is a request; its key is the card.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.release import rows

LABEL_S = 1.0
"""How long the truth takes."""
WAIT_S = 30.0
SLICE_S = 0.002
FIELDS = ("amount", "orders", "spent", "country", "visits", "hint")


@dataclass
class Heard:
    """What callers got since the count began. `shed`: refused because too many were waiting; `wrong`: what was no
    usable answer."""

    asked: int = 0
    answered: int = 0
    shed: int = 0
    wrong: tuple[str, ...] = ()


class Closed(EOFError):
    """A connection that the server had closed, as it may when it is idle for long."""


class Callers:
    """Runs as long as its task. With `labels` False nobody sends the truth back."""

    def __init__(self, port: int, model: str, rate: float) -> None:
        self._port, self._model, self._rate = port, model, rate
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._truth: deque[tuple[float, str, int]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._rows: Iterator[dict[str, Any]] = rows.live(1)
        self._sent = 0
        self.labels, self.heard = True, Heard()

    def begin(self, seed: int) -> Heard:
        """New rows, and a new count. → it."""
        self._rows, self.heard = rows.live(seed), Heard()
        return self.heard

    async def run(self, most: int) -> None:
        """At most so many requests; cancel it to end it before."""
        gaps = iter(np.random.default_rng(1).exponential(1 / self._rate, most).tolist())
        due = time.perf_counter()
        try:
            for gap in gaps:
                due += gap
                while time.perf_counter() < due:
                    await asyncio.sleep(SLICE_S)
                self._spawn(self._ask(next(self._rows)))
                if self._truth and self._truth[0][0] < due:
                    self._spawn(self._tell(self._due_labels(due)))
        finally:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for _, writer in self._idle:
                writer.close()

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, row: dict[str, Any]) -> None:
        self._sent += 1
        name, heard = f"q{self._sent}", self.heard
        record = {field: row[field] for field in FIELDS} | {"id": name, "key": row["card"]}
        heard.asked += 1
        try:
            async with asyncio.timeout(WAIT_S):
                status, said = await self._post(f"/v1/models/{self._model}/predict", {"records": [record]})
        except (OSError, EOFError, TimeoutError) as error:
            heard.wrong += (f"{name}: {error!r}",)
            return
        if status == 503 and said["error"]["rule"] == "queue":
            heard.shed += 1
            return
        score = said["predictions"][0]["score"] if status == 200 else None
        if score is None or not 0 <= score <= 1:
            heard.wrong += (f"{name}: {status} {said}",)
            return
        heard.answered += 1
        if self.labels:
            self._truth.append((time.perf_counter() + LABEL_S, name, row["fraud"]))

    def _due_labels(self, now: float) -> list[dict[str, Any]]:
        """Those of a quarter of a second together."""
        found = []
        while self._truth and self._truth[0][0] < now + 0.25:
            _, name, label = self._truth.popleft()
            found.append({"id": name, "label": label})
        return found

    async def _tell(self, labels: list[dict[str, Any]]) -> None:
        status, said = await self._post("/v1/feedback", {"labels": labels, "model": self._model})
        if status == 503:  # to be sent again
            self._truth.extend((time.perf_counter(), one["id"], one["label"]) for one in labels)
        elif status != 200:
            raise RuntimeError(f"labels were refused: {status} {said}")

    async def _post(self, path: str, body: Any) -> tuple[int, Any]:
        """On a connection that nobody uses. Errors: `OSError`, `EOFError`; the connection is not used again then."""
        data = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
        )
        while self._idle:
            with suppress(Closed):
                return await self._exchange(*self._idle.pop(), head.encode() + data)
        return await self._exchange(*await asyncio.open_connection("127.0.0.1", self._port), head.encode() + data)

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes
    ) -> tuple[int, Any]:
        try:
            writer.write(message)
            told = await _head(reader)
            lines = told.decode().lower().split("\r\n")
            length = next(int(line[15:]) for line in lines if line.startswith("content-length:"))
            said = json.loads(await reader.readexactly(length))
        except BaseException:
            writer.close()
            raise
        self._idle.append((reader, writer))
        return int(lines[0].split()[1]), said


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            raise Closed from None
        raise
