"""A Redis stream, read by a consumer group. The outputs and the acknowledgement are one MULTI: both happen, or
neither."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from homeostat.adapters.address import Address
from homeostat.domain.errors import HomeostatError, Unavailable, UsageError
from homeostat.domain.message import Message, Output, Standing
from homeostat.domain.units import duration_ms

DATA = b"data"
"""The field of an entry that holds the record."""
RECLAIM_AFTER = "30s"
_CLAIM_EVERY_S = 1.0
_CONNECT_S, _ANSWER_S = 5, 30
_START = b"0-0"


class RedisStream:
    """`ports.Stream`, for Redis 7 or newer. Entries that another consumer has held for `reclaim_after` without
    settling them are taken over."""

    def __init__(self, source: Address, sink: Address, dead: Address, group: str) -> None:
        """A group that is new starts at the oldest entry. Errors: `UsageError`; `Unavailable`."""
        if not source.server == sink.server == dead.server:
            raise UsageError("source and sink must be on one Redis server and database", where=f"{source} and {sink}")
        settings = dict(source.settings)
        self._idle_ms = _duration(settings.pop("reclaim_after", RECLAIM_AFTER))
        self._source, self._sink, self._dead, self._group = source.topic, sink.topic, dead.topic, group
        self._place = str(source)
        self._me = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._cursor, self._claim_at = _START, 0.0
        self._reclaimed = 0
        self._client = _client(source, settings)
        self._call: Callable[..., Any] = self._client.execute_command
        self._join()

    def take(self, limit: int, wait_s: float) -> Sequence[Message]:
        with self._troubles():
            left = self._left_behind(limit)
            if left:
                return self._messages(left)
            wait_ms = max(round(1_000 * wait_s), 1)  # 0 would be for ever
            given = self._call(
                "XREADGROUP", "GROUP", self._group, self._me, "COUNT", limit, "BLOCK", wait_ms,
                "STREAMS", self._source, ">",
            )  # fmt: skip
            return self._messages(given[0][1]) if given else ()

    def settle(self, taken: Sequence[Message], outputs: Sequence[Output]) -> None:
        topics = (self._sink, self._dead)
        with self._troubles(), self._client.pipeline(transaction=True) as pipe:
            queue: Callable[..., Any] = pipe.execute_command
            for one in outputs:
                queue("XADD", topics[one.dead], "*", "id", one.id, DATA, one.body)
            queue("XACK", self._source, self._group, *(one.mark for one in taken))
            pipe.execute()

    def rest(self, wait_s: float) -> None:
        time.sleep(wait_s)

    def standing(self) -> Standing:
        """The lag counts what nobody has taken and what somebody has in hand."""
        with self._troubles():
            groups = (_pairs(row) for row in self._call("XINFO", "GROUPS", self._source))
            mine = next((group for group in groups if group[b"name"] == self._group.encode()), {})
        ahead = mine.get(b"lag")
        return Standing(None if ahead is None else ahead + mine[b"pending"], 0, self._reclaimed)

    def close(self) -> None:
        """The consumer's name is taken off the group unless it still holds entries: they would be lost with it."""
        with self._troubles():
            held = self._call("XPENDING", self._source, self._group, "-", "+", 1, self._me)
            if not held:
                self._call("XGROUP", "DELCONSUMER", self._source, self._group, self._me)
            self._client.close()

    def _join(self) -> None:
        """Errors: `UsageError` also where a target is no stream: a MULTI would acknowledge all that it can't write."""
        with self._troubles():
            for topic in (self._sink, self._dead):
                kind = bytes(self._call("TYPE", topic)).decode()
                if kind not in ("none", "stream"):
                    raise UsageError(f"{topic} is no stream but a {kind}", where=self._place, way_out="Name another.")
        try:
            with self._troubles():
                self._call("XGROUP", "CREATE", self._source, self._group, "0", "MKSTREAM")
        except HomeostatError as error:
            if "BUSYGROUP" not in error.what:
                raise

    def _left_behind(self, limit: int) -> Sequence[Any]:
        """Entries taken over from consumers that let them lie; looked for once a second, and on while there are."""
        if time.monotonic() < self._claim_at:
            return ()
        entries: Sequence[Any]
        self._cursor, entries, _gone = self._call(
            "XAUTOCLAIM", self._source, self._group, self._me, self._idle_ms, self._cursor, "COUNT", limit
        )
        if self._cursor == _START:
            self._claim_at = time.monotonic() + _CLAIM_EVERY_S
        self._reclaimed += len(entries)
        return entries

    def _messages(self, entries: Sequence[Any]) -> list[Message]:
        source = self._source
        return [Message(f"{source}-{mark.decode()}", _body(fields), mark) for mark, fields in entries]

    @contextmanager
    def _troubles(self) -> Iterator[None]:
        """Redis' errors in our words."""
        try:
            yield
        except redis.AuthenticationError:
            raise HomeostatError("Redis refuses the user or the password", where=self._place) from None
        except (redis.ConnectionError, redis.TimeoutError, redis.OutOfMemoryError, redis.ReadOnlyError) as error:
            raise Unavailable(f"Redis does not answer: {error}", where=self._place) from None
        except redis.ResponseError as error:
            if str(error).startswith("NOGROUP"):  # the stream was deleted, or the server came back empty
                self._join()
                raise Unavailable("the group is made again", where=self._place) from None
            raise HomeostatError(f"Redis says: {error}", where=self._place) from None


def _client(address: Address, settings: dict[str, str]) -> redis.Redis:
    """Replies as they come, in bytes and lists."""
    url = f"{address.scheme}://{address.hosts}/{address.path}?{urlencode(settings)}"
    timeouts = {"socket_connect_timeout": _CONNECT_S, "socket_timeout": _ANSWER_S}
    try:
        client = redis.Redis.from_url(
            url,
            username=address.user or None,
            password=address.password or None,
            protocol=2,
            retry=Retry(NoBackoff(), 0),  # the loop sees to that
            **timeouts,
        )
        client.connection_pool.make_connection()  # here it looks at the settings
    except (ValueError, TypeError) as error:
        raise UsageError(f"not a Redis address: {error}", where=str(address)) from None
    client.response_callbacks.clear()
    return client


def _duration(text: str) -> int:
    try:
        return int(str(duration_ms(text)))
    except ValueError as error:
        raise UsageError(f"reclaim_after: {error}") from None


def _pairs(flat: Sequence[Any]) -> dict[Any, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _body(fields: Sequence[bytes]) -> bytes:
    """The record; nothing where the entry has none."""
    if fields[0] == DATA:
        return fields[1]
    return bytes(_pairs(fields).get(DATA, b""))
