"""A Kafka topic: hand-over between consumers, an outage, poison."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import flows
import kafkas
import pytest

from homeostat.domain.errors import Unavailable, UsageError
from homeostat.domain.message import Message, Output
from homeostat.ports import Stream
from homeostat.wiring.stream import open_stream

BATCH = 50
TRIES = 600
"""Of at most a tenth of a second each: a test that waits for more has failed."""
Join = Callable[[], Stream]


@pytest.fixture
def topics(kafka_hosts: str) -> list[str]:
    """Source, sink, dead letters: new ones."""
    return kafkas.topics(kafka_hosts, "requests", "predictions", "dead")


@pytest.fixture
def join(kafka_hosts: str, topics: list[str]) -> Join:
    """A new consumer of the group."""
    source, sink, dead = topics

    def one() -> Stream:
        at = f"kafka://{kafka_hosts}"
        return open_stream(f"{at}/{source}?{kafkas.SESSION}", f"{at}/{sink}", dead, source, {})

    return one


def echoed(taken: list[Message]) -> list[Output]:
    return [Output(one.place, one.body) for one in taken]


def turn(stream: Stream, seen: Counter[str]) -> int:
    """One batch. → how many messages it had."""
    taken = list(stream.take(BATCH, 0.1))
    if taken:
        stream.settle(taken, echoed(taken))
    seen.update(one.place for one in taken)
    return len(taken)


def test_a_share_is_handed_over_in_good_order(kafka_hosts: str, topics: list[str], join: Join) -> None:
    """A second consumer comes, the first one goes: every message is seen. Repeated is at most the batch whose commit
    the group did not let through while it shared out its partitions, each time."""
    writer, seen = kafkas.Writer(kafka_hosts, topics[0]), Counter[str]()
    first = join()
    fed = writer.write([b"%d" % i for i in range(400)])
    assert any(turn(first, seen) for _ in range(TRIES))
    second = join()
    shared = False
    for _ in range(TRIES):
        turn(first, seen)
        shared = turn(second, seen) > 0 or shared
        if not shared:
            fed += writer.write([b"more"] * 40)
        elif len(seen) == len(fed):
            break
    assert shared
    assert first.standing().rebalances >= 2  # given all, then half taken away
    assert second.standing().rebalances >= 1
    first.close()
    fed += writer.write([b"late"] * 400)
    for _ in range(TRIES):
        turn(second, seen)
        if len(seen) == len(fed):
            break
    assert second.standing().lag == 0
    second.close()
    assert set(seen) == set(fed)
    assert seen.total() - len(fed) <= 2 * BATCH
    assert kafkas.lag(kafka_hosts, topics[0], topics[0]) == 0


def test_an_outage_is_waited_out(kafka_broker: kafkas.Broker, kafka_hosts: str, topics: list[str], join: Join) -> None:
    """Nothing is committed before it is confirmed; and nothing is sent twice for that."""
    stream = join()
    fed = kafkas.Writer(kafka_hosts, topics[0]).write([b"%d" % i for i in range(40)])
    taken: list[Message] = []
    while len(taken) < len(fed):
        taken += stream.take(100, 0.1)
    outputs = echoed(taken)
    kafka_broker.order("down")
    try:
        with pytest.raises(Unavailable):
            stream.settle(taken, outputs)
    finally:
        kafka_broker.order("up")
    assert kafkas.lag(kafka_hosts, topics[0], topics[0]) == len(fed)
    assert any(settled(stream, taken, outputs) for _ in range(TRIES))
    stream.close()
    assert kafkas.lag(kafka_hosts, topics[0], topics[0]) == 0
    reader = kafkas.reader(kafka_hosts, topics[1])
    written: list[str] = []
    while len(written) < len(fed):
        written += [(one.key() or b"").decode() for one in kafkas.read(reader)]
    assert sorted(written) == sorted(fed)


def settled(stream: Stream, taken: list[Message], outputs: list[Output]) -> bool:
    try:
        stream.settle(taken, outputs)
    except Unavailable:
        stream.rest(0.1)
        return False
    return True


def test_answers_and_dead_letters_are_keyed_by_their_place(kafka_hosts: str, topics: list[str], join: Join) -> None:
    stream = join()
    good, bad = kafkas.Writer(kafka_hosts, topics[0]).write([flows.record(), b"poison"])
    world, seen = flows.world(), 0
    for _ in range(TRIES):
        metrics = flows.drain(world, stream)
        seen += metrics.answered_total + metrics.dead_total
        if seen == 2:
            break
    stream.close()
    (answer,) = kafkas.read(kafkas.reader(kafka_hosts, topics[1]))
    (letter,) = kafkas.read(kafkas.reader(kafka_hosts, topics[2]))
    assert ((answer.key() or b"").decode(), json.loads(answer.value() or b"")["id"]) == (good, good)
    assert ((letter.key() or b"").decode(), json.loads(letter.value() or b"")["place"]) == (bad, bad)
    assert {(row["id"], row["role"]) for row in world.rows()} == {(good, "answer"), (bad, "rejected")}


def test_resting_keeps_the_place_in_the_group(kafka_hosts: str, topics: list[str], join: Join) -> None:
    """While it rests it takes nothing, and loses nothing."""
    stream, seen = join(), Counter[str]()
    writer = kafkas.Writer(kafka_hosts, topics[0])
    fed = writer.write([b"before"])
    assert any(turn(stream, seen) for _ in range(TRIES))
    before = stream.standing().rebalances
    stream.rest(0.01)
    fed += writer.write([b"meanwhile"] * 20)
    stream.rest(0.01)
    for _ in range(TRIES):
        turn(stream, seen)
        if len(seen) == len(fed):
            break
    assert seen == Counter(fed)
    assert stream.standing().rebalances == before
    stream.close()


def test_errors_of_kafka_say_what_and_where(kafka_hosts: str) -> None:
    with pytest.raises(Unavailable, match=r"Kafka says.*"):
        open_stream("kafka://127.0.0.1:1/a", "kafka://127.0.0.1:1/b", "", "g", {})
    with pytest.raises(UsageError, match="No such configuration property"):
        open_stream(f"kafka://{kafka_hosts}/a?nonsense=1", f"kafka://{kafka_hosts}/b", "", "g", {})
    with pytest.raises(UsageError, match=r"enable.auto.commit can't be set here"):
        open_stream(f"kafka://{kafka_hosts}/a?enable.auto.commit=true", f"kafka://{kafka_hosts}/b", "", "g", {})
    with pytest.raises(UsageError, match="of one kind"):
        open_stream(f"kafka://{kafka_hosts}/a", "redis://127.0.0.1/0/b", "", "g", {})
