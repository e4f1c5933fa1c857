"""Consumers of a Redis stream, killed while they work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import killing
import places
import pytest
import redis


class Ends:
    def __init__(self, client: redis.Redis) -> None:
        self._client, self._last = client, b"0-0"

    def feed(self, bodies: Sequence[bytes]) -> Sequence[str]:
        with self._client.pipeline(transaction=False) as pipe:
            for body in bodies:
                pipe.xadd("requests", {"data": body})
            return [f"requests-{entry.decode()}" for entry in pipe.execute()]

    def fetch(self) -> Sequence[tuple[str, bytes]]:
        given = self._client.execute_command(
            "XREAD", "COUNT", 1_000, "BLOCK", 60_000, "STREAMS", "predictions", self._last
        )
        assert given, "no answer for a minute"
        entries = given[0][1]
        self._last = entries[-1][0]
        return [(fields[b"id"].decode(), fields[b"data"]) for _, fields in entries]


@pytest.mark.slow
def test_every_input_has_one_answer(
    tmp_path: Path, linear_onnx: bytes, redis_client: redis.Redis, redis_server: str
) -> None:
    root = places.make(tmp_path / "flow", linear_onnx)
    address = f"redis://{redis_server}/0"

    def start() -> places.Consumer:
        return places.Consumer(root, f"{address}/requests?reclaim_after=1s", f"{address}/predictions", "--batch", "100")

    killing.survive(Ends(redis_client), root, linear_onnx, start)
    (group,) = redis_client.xinfo_groups("requests")
    assert (group["pending"], group["lag"]) == (0, 0), "nothing is stuck"
