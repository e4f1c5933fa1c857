"""One call as attempts and pauses, without a socket: a generator yields what to do next and is sent what came of it, so
that the sync and the async client are the same but for the doing."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import random
from typing import Any, TypeVar

import httpx

_AGAIN = frozenset({502, 503, 504})
_PASSING = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError)
_FIRST_S, _LONGEST_S = 0.1, 5.0


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: to connect, between two parts of an answer, and for a call with all its attempts (looked at before
    each, and after each part of an answer)."""

    connect: float = 2.0
    read: float = 10.0
    total: float = 30.0


@dataclass(frozen=True, slots=True)
class Ask:
    """What every attempt of a call sends."""

    method: str
    url: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attempt:
    """Send this. `end` is when the call must be over, by the monotonic clock `now`."""

    ask: Ask
    timeouts: Timeouts
    end: float
    now: Callable[[], float]

    def asked(self) -> dict[str, Any]:
        """For httpx."""
        left = max(self.end - self.now(), 0.001)
        limits = httpx.Timeout(min(self.timeouts.read, left), connect=min(self.timeouts.connect, left))
        ask = self.ask
        return {"method": ask.method, "url": ask.url, "content": ask.body, "headers": ask.headers, "timeout": limits}

    def check(self) -> None:
        """Errors: `httpx.ReadTimeout` once the call's time is up."""
        if self.now() > self.end:
            raise httpx.ReadTimeout("the answer took too long to arrive")


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for a while."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Got:
    """An answer, whatever its status. `headers` look names up in any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def passing(self) -> bool:
        return self.status in _AGAIN


@dataclass(frozen=True, slots=True)
class Spent:
    """The last outcome when the time was up, after so many attempts in so many seconds."""

    outcome: Got | httpx.RequestError
    tries: int
    seconds: float


Outcome = Got | httpx.RequestError | None
R = TypeVar("R")
Call = Generator[Attempt | Wait, Outcome, R]


def once(ask: Ask, timeouts: Timeouts, now: Callable[[], float]) -> Call[Got | httpx.RequestError]:
    outcome = yield Attempt(ask, timeouts, now() + timeouts.total, now)
    assert outcome is not None  # an attempt has one
    return outcome


def repeated(
    ask: Ask, timeouts: Timeouts, now: Callable[[], float], chance: Callable[[], float] = random
) -> Call[Got | httpx.RequestError | Spent]:
    """Until the outcome is one that no other attempt would change, or the time is up. `chance`: a number in [0, 1)."""
    begun, tries = now(), 0
    end = begun + timeouts.total
    while True:
        outcome = yield Attempt(ask, timeouts, end, now)
        assert outcome is not None
        tries += 1
        if not (outcome.passing if isinstance(outcome, Got) else isinstance(outcome, _PASSING)):
            return outcome
        seconds = pause(tries, outcome, chance())
        if now() + seconds >= end:
            return Spent(outcome, tries, now() - begun)
        yield Wait(seconds)


def pause(tries: int, outcome: Outcome, chance: float) -> float:
    """Seconds: twice as long each time and never the same for two callers, but no shorter than the server asks for."""
    asked = _retry_after(outcome) if isinstance(outcome, Got) else 0.0
    return max(min(_FIRST_S * 2.0 ** (tries - 1), _LONGEST_S) * (1 + chance) / 2, asked * (1 + chance / 10))


def _retry_after(got: Got) -> float:
    """Seconds; a date counts from now. 0 where there is none, or none that can be read."""
    text = got.headers.get("retry-after", "")
    if text.isdecimal():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return max((at - datetime.now(UTC)).total_seconds(), 0.0) if at.tzinfo else 0.0
