"""The loop over a real Redis: poison, pauses, redelivery, a stop at any time."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import flows
import numpy as np
import pytest
import redis
import worlds
from numpy.typing import NDArray

from homeostat.domain.errors import HomeostatError, Unavailable, UsageError
from homeostat.domain.prediction import LogBatch
from homeostat.domain.schema import Task
from homeostat.ports import Stream
from homeostat.stores.memory_log import MemoryLog
from homeostat.stream import KEPT
from homeostat.wiring.stream import open_stream

Join = Callable[..., Stream]


@pytest.fixture
def join(redis_client: redis.Redis, redis_server: str) -> Join:
    """A new consumer of the group."""
    del redis_client  # emptied
    at = f"redis://{redis_server}/0"

    def one(reclaim_after: str = "1h") -> Stream:
        return open_stream(f"{at}/requests?reclaim_after={reclaim_after}", f"{at}/predictions", "", "g", {})

    return one


def add(client: redis.Redis, *bodies: bytes) -> list[str]:
    """→ the place of each."""
    return [f"requests-{client.xadd('requests', {'data': body}).decode()}" for body in bodies]


def read(client: redis.Redis, topic: str) -> list[dict[str, Any]]:
    return [json.loads(fields[b"data"]) for _, fields in client.xrange(topic)]


def waiting(client: redis.Redis) -> tuple[int, int]:
    """Messages in somebody's hands, and messages that nobody has taken."""
    (group,) = client.xinfo_groups("requests")
    return group["pending"], group["lag"]


def test_a_message_is_a_record_and_its_answer_an_object(join: Join, redis_client: redis.Redis) -> None:
    places = add(redis_client, flows.record(), flows.record(id="mine", key="k", amount=0.5))
    world = flows.world()
    metrics = flows.drain(world, join())
    assert read(redis_client, "predictions") == [
        {"id": places[0], "release": "R1", "model_version": 1, "score": 0.5, "label": "yes"},
        {"id": "mine", "release": "R1", "model_version": 1, "score": pytest.approx(4.54e-5, rel=1e-3), "label": "no"},
    ]
    assert [(row["id"], row["key"], row["role"]) for row in world.rows()] == [
        (places[0], None, "answer"),
        ("mine", "k", "answer"),
    ]
    assert (metrics.answered_total, metrics.dead_total, metrics.lag) == (2, 0, 0)


def test_answers_of_other_tasks(join: Join, redis_client: redis.Redis) -> None:
    value = worlds.World()
    value.route(value.bundle(lambda x: 2.0 * x[:, :1], worlds.Schema(worlds.FIELDS, Task.REGRESSION, "y")))
    (place,) = add(redis_client, flows.record())
    flows.drain(value, join())
    three = worlds.World()
    kinds = worlds.Schema(worlds.FIELDS, Task.MULTICLASS, "y", (1, 2, 3))
    three.route(three.bundle(lambda x: np.tile([0.25, 0.5, 0.25], (len(x), 1)), kinds))
    (other,) = add(redis_client, flows.record())
    flows.drain(three, join())
    both = {"release": "R1", "model_version": 1}
    assert read(redis_client, "predictions") == [
        {"id": place, "value": 21.0, **both},
        {"id": other, "score": 0.5, "label": 2, "scores": {"1": 0.25, "2": 0.5, "3": 0.25}, **both},
    ]


POISON: dict[str, tuple[bytes, dict[str, Any]]] = {
    "no JSON": (b"amount=3", {"rule": "json", "field": None}),
    "nothing": (b"", {"rule": "json", "field": None}),
    "two records": (flows.record() + b"," + flows.record(), {"rule": "json", "field": None}),
    "a list": (b"[" + flows.record() + b"]", {"rule": "type", "field": None}),
    "a wrong type": (flows.record(amount="much"), {"rule": "type", "field": "amount"}),
    "out of range": (flows.record(amount=-1), {"rule": "at least 0", "field": "amount"}),
    "an unknown field": (flows.record(extra=1), {"rule": "unknown", "field": "extra"}),
    "an unknown text": (flows.record(country="xx"), {"rule": "one of de, fr, pl", "field": "country"}),
}


@pytest.mark.parametrize("case", list(POISON))
def test_poison_goes_to_the_dead_letters_and_holds_nobody_up(join: Join, redis_client: redis.Redis, case: str) -> None:
    body, why = POISON[case]
    places = add(redis_client, flows.record(), body, flows.record())
    metrics = flows.drain(flows.world(), join())
    assert [one["id"] for one in read(redis_client, "predictions")] == [places[0], places[2]]
    (letter,) = read(redis_client, "requests.dead")
    assert {name: letter[name] for name in why} == why
    assert (letter["place"], letter["message"]) == (places[1], body.decode())
    assert letter["reason"]
    assert (metrics.answered_total, metrics.dead_total) == (2, 1)
    assert waiting(redis_client) == (0, 0)


def test_a_letter_keeps_bytes_that_are_no_text_and_the_beginning_of_what_is_long(
    join: Join, redis_client: redis.Redis
) -> None:
    add(redis_client, b"\xff\x00", b"x" * (KEPT + 1))
    redis_client.xadd("requests", {"other": "field"})
    flows.drain(flows.world(), join())
    binary, long, empty = read(redis_client, "requests.dead")
    assert base64.b64decode(binary["message_base64"]) == b"\xff\x00"
    assert (len(long["message"]), long["cut"]) == (KEPT, True)
    assert (empty["message"], empty["reason"]) == ("", "the body is not JSON")


def test_what_the_model_can_t_answer_is_poison_too(join: Join, redis_client: redis.Redis) -> None:
    def moody(x: NDArray[np.float32], /) -> NDArray[np.float64]:
        return np.where(x[:, :1] > 900, np.nan, worlds.logistic(x))

    world = worlds.World()
    world.route(world.bundle(moody))
    places = add(redis_client, flows.record(), flows.record(amount=901))
    flows.drain(world, join())
    assert [one["id"] for one in read(redis_client, "predictions")] == places[:1]
    assert [(one["place"], one["rule"]) for one in read(redis_client, "requests.dead")] == [(places[1], "model")]


def test_without_a_model_it_waits(join: Join, redis_client: redis.Redis) -> None:
    add(redis_client, flows.record())
    world = worlds.World()

    def release(rests: int) -> None:
        world.clock.ms += 1_000
        if rests == 3:
            world.route(world.bundle(worlds.logistic))

    metrics = flows.drain(world, join(), release)
    assert len(read(redis_client, "predictions")) == 1
    assert redis_client.xlen("requests.dead") == 0
    assert metrics.retried_total > 1
    assert metrics.waiting_for == ""


class Full(MemoryLog):
    """A log on a disk that is full for the first three batches."""

    left = 3

    def append(self, batch: LogBatch) -> None:
        self.left -= 1
        if self.left >= 0:
            raise OSError(28, "No space left on device")
        super().append(batch)


def test_without_a_log_it_waits(join: Join, redis_client: redis.Redis) -> None:
    places = add(redis_client, flows.record(), b"poison")
    world = worlds.World(log=Full())
    world.route(world.bundle(worlds.logistic))
    metrics = flows.drain(world, join())
    assert metrics.retried_total == 3
    assert [one["id"] for one in read(redis_client, "predictions")] == places[:1]
    assert [one["place"] for one in read(redis_client, "requests.dead")] == places[1:]
    assert [(row["id"], row["role"]) for row in world.rows()] == [(places[0], "answer"), (places[1], "rejected")]


def test_told_to_stop_while_it_waits_it_settles_nothing(join: Join, redis_client: redis.Redis) -> None:
    places = add(redis_client, flows.record())
    watched = flows.Watched(join(), lambda _: watched.stop.set())
    world = worlds.World()
    loop = flows.Loop(world.engine, watched, "fraud", world.clock, watched.stop, lambda _: None)
    assert loop.run(10).waiting_for == "no model is released yet"
    assert waiting(redis_client) == (1, 0)
    assert redis_client.xlen("requests.dead") == 0
    watched.close()
    assert flows.drain(flows.world(), join("0s")).reclaimed_total == 1
    assert [one["id"] for one in read(redis_client, "predictions")] == places


def test_what_a_dead_consumer_held_is_taken_over_under_the_same_ids(join: Join, redis_client: redis.Redis) -> None:
    places = add(redis_client, *[flows.record()] * 250)
    assert len(join().take(200, 1)) == 200  # and never settled
    metrics = flows.drain(flows.world(), join("0s"))
    assert sorted(one["id"] for one in read(redis_client, "predictions")) == sorted(places)
    assert (metrics.reclaimed_total, metrics.answered_total) == (200, 250)
    assert waiting(redis_client) == (0, 0)


def test_a_server_that_came_back_empty_gets_its_group_again(join: Join, redis_client: redis.Redis) -> None:
    stream = join()
    redis_client.flushall()
    places = add(redis_client, flows.record())
    flows.drain(flows.world(), stream)
    assert [one["id"] for one in read(redis_client, "predictions")] == places


def test_a_consumer_in_good_order_leaves_its_name_only_with_what_it_holds(
    join: Join, redis_client: redis.Redis
) -> None:
    add(redis_client, flows.record())
    idle, holding = join(), join()
    assert holding.take(1, 1)
    assert not idle.take(1, flows.QUICK_S)
    idle.close()
    holding.close()
    assert [one["pending"] for one in redis_client.xinfo_consumers("requests", "g")] == [1]


@pytest.mark.parametrize("target", ["predictions", "requests.dead"])
def test_what_can_not_be_written_to_loses_nothing(redis_client: redis.Redis, redis_server: str, target: str) -> None:
    at = f"redis://{redis_server}/0"
    redis_client.set(target, "a text")
    with pytest.raises(UsageError, match=f"{target} is no stream but a string"):
        open_stream(f"{at}/requests", f"{at}/predictions", "", "g", {})
    assert not redis_client.exists("requests")  # no group was made that could have taken anything


def test_errors_of_redis_say_what_and_where(redis_client: redis.Redis, redis_server: str, join: Join) -> None:
    redis_client.set("requests", "a text")
    with pytest.raises(HomeostatError, match="WRONGTYPE"):
        join()
    with pytest.raises(Unavailable, match="does not answer"):
        open_stream("redis://127.0.0.1:1/0/a", "redis://127.0.0.1:1/0/b", "", "g", {})
    with pytest.raises(UsageError, match="one Redis server"):
        open_stream(f"redis://{redis_server}/0/a", f"redis://{redis_server}/1/b", "", "g", {})
    with pytest.raises(UsageError, match="unexpected keyword argument 'nosuch'"):
        open_stream(f"redis://{redis_server}/0/a?nosuch=1", f"redis://{redis_server}/0/b", "", "g", {})
    with pytest.raises(HomeostatError, match="password"):
        secret = {"P": "wrong"}
        open_stream(f"redis://u:${{P}}@{redis_server}/0/a", f"redis://u:${{P}}@{redis_server}/0/b", "", "g", secret)
