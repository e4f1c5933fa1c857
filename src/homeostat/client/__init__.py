"""The client of a data plane, sync and async: `homeostat.Client`, `homeostat.AsyncClient`.

client = homeostat.Client("http://127.0.0.1:8701", "fraud")
answer = client.predict({"amount": 12.5, "country": "de"})
client.feedback({answer.id: "no"})
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Self, TypeVar, overload

import httpx

from homeostat.client.attempts import Attempt, Call, Got, Outcome, Timeouts, Wait
from homeostat.client.calls import Calls
from homeostat.client.results import Metadata, Prediction, Predictions
from homeostat.client.rows import Frame, Labels, Record, Rows

__all__ = [
    "AsyncClient",
    "Client",
    "Frame",
    "Labels",
    "Metadata",
    "Prediction",
    "Predictions",
    "Record",
    "Rows",
    "Timeouts",
]

R = TypeVar("R")
_LINKS = httpx.Limits(max_connections=64, max_keepalive_connections=64, keepalive_expiry=60.0)
"""A connection that is used again saves its set-up. The data plane keeps an idle one for longer than this."""


class Client:
    """Asks the data plane at `url` about one model. Connections are used again; safe to share between threads; close
    it, or use `with`.

    A call that does not get through, or is answered with 502, 503 or 504, is repeated, ever later, while
    `timeouts.total` lasts. Errors of every call: `RequestRefused` when the request is wrong, `NotFound`,
    `Unavailable` when the last repetition failed too, `ServiceError` when the data plane could not answer.
    """

    def __init__(self, url: str, model: str, timeouts: Timeouts | None = None) -> None:
        self._calls = Calls(url, model, timeouts or Timeouts())
        self._http = httpx.Client(limits=_LINKS)

    def __repr__(self) -> str:
        return f"Client({self._calls})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    @overload
    def predict(self, rows: Record) -> Prediction: ...

    @overload
    def predict(self, rows: Sequence[Record] | Frame) -> Predictions: ...

    def predict(self, rows: Rows) -> Prediction | Predictions:
        """One record → its prediction; a list of records, or a pandas or polars frame → theirs, in order. A record may
        carry an `id` and a `key`. NaN means: missing. Errors: also `DataError` for a value that can't be sent."""
        return self._run(self._calls.predict(rows))

    def feedback(self, labels: Labels, source: str = "") -> int:
        """Labels by prediction id: `{id: label}`, or records or a frame with `id`, `label` and, if known, `source` and
        `at`. `source`: of all that name none. → how many were taken: all of them."""
        return self._run(self._calls.feedback(labels, source))

    def signals(self, signals: Sequence[Record] | Frame) -> int:
        """Thumbs, ratings, amounts, events: `id` or `key`, `name`, and, if known, `value` and `at`. → how many were
        taken: all of them."""
        return self._run(self._calls.signals(signals))

    def ready(self) -> bool:
        """The model can answer. False also where nothing can be reached."""
        return self._run(self._calls.ready())

    def live(self) -> bool:
        """The data plane answers."""
        return self._run(self._calls.live())

    def metadata(self) -> Metadata:
        """The model's inputs, outputs and versions."""
        return self._run(self._calls.metadata())

    def _run(self, call: Call[R]) -> R:
        outcome: Outcome = None
        try:
            while True:
                outcome = self._do(call.send(outcome))
        except StopIteration as done:
            result: R = done.value
            return result

    def _do(self, step: Attempt | Wait) -> Outcome:
        if isinstance(step, Wait):
            time.sleep(step.seconds)
            return None
        parts = []
        try:
            with self._http.stream(**step.asked()) as response:
                for part in response.iter_bytes():
                    parts.append(part)
                    step.check()
                return Got(response.status_code, response.headers, b"".join(parts))
        except httpx.RequestError as error:
            return error


class AsyncClient:
    """`Client` for asyncio: the same calls, to be awaited."""

    def __init__(self, url: str, model: str, timeouts: Timeouts | None = None) -> None:
        self._calls = Calls(url, model, timeouts or Timeouts())
        self._http = httpx.AsyncClient(limits=_LINKS)

    def __repr__(self) -> str:
        return f"AsyncClient({self._calls})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    @overload
    async def predict(self, rows: Record) -> Prediction: ...

    @overload
    async def predict(self, rows: Sequence[Record] | Frame) -> Predictions: ...

    async def predict(self, rows: Rows) -> Prediction | Predictions:
        """As `Client.predict`."""
        return await self._run(self._calls.predict(rows))

    async def feedback(self, labels: Labels, source: str = "") -> int:
        """As `Client.feedback`."""
        return await self._run(self._calls.feedback(labels, source))

    async def signals(self, signals: Sequence[Record] | Frame) -> int:
        """As `Client.signals`."""
        return await self._run(self._calls.signals(signals))

    async def ready(self) -> bool:
        """As `Client.ready`."""
        return await self._run(self._calls.ready())

    async def live(self) -> bool:
        """As `Client.live`."""
        return await self._run(self._calls.live())

    async def metadata(self) -> Metadata:
        """As `Client.metadata`."""
        return await self._run(self._calls.metadata())

    async def _run(self, call: Call[R]) -> R:
        outcome: Outcome = None
        try:
            while True:
                outcome = await self._do(call.send(outcome))
        except StopIteration as done:
            result: R = done.value
            return result

    async def _do(self, step: Attempt | Wait) -> Outcome:
        if isinstance(step, Wait):
            await asyncio.sleep(step.seconds)
            return None
        parts = []
        try:
            async with self._http.stream(**step.asked()) as response:
                async for part in response.aiter_bytes():
                    parts.append(part)
                    step.check()
                return Got(response.status_code, response.headers, b"".join(parts))
        except httpx.RequestError as error:
            return error
