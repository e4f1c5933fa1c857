"""Topics of a broker, seen from outside."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

PARTITIONS = 4
SESSION = f"session.timeout.ms={6_000 if os.environ.get('KAFKA_BOOTSTRAP') else 1_500}&heartbeat.interval.ms=300"
"""Short, so that the dead are soon missed; a real broker's least is six seconds."""


@dataclass(frozen=True)
class Broker:
    """Where it is, and its process if it is ours to order about."""

    hosts: str
    process: subprocess.Popen[str] | None = None

    def order(self, what: str) -> None:
        """`down`: it is not to be reached; `up`: it is again."""
        if self.process is None:
            pytest.skip("the broker is not ours to switch off")
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline().strip() == what


def topics(hosts: str, *names: str) -> list[str]:
    """New topics with these names and something of their own behind. librdkafka's broker makes one when it is asked
    for, a real one has to be told."""
    made = [f"{name}-{secrets.token_hex(4)}" for name in names]
    if os.environ.get("KAFKA_BOOTSTRAP"):
        admin = AdminClient({"bootstrap.servers": hosts})
        for done in admin.create_topics([NewTopic(name, PARTITIONS) for name in made]).values():
            done.result()
    else:
        producer = Producer({"bootstrap.servers": hosts})
        for name in made:
            producer.list_topics(name, timeout=10)
    return made


class Writer:
    def __init__(self, hosts: str, topic: str) -> None:
        self._topic = topic
        self._producer = Producer({"bootstrap.servers": hosts, "linger.ms": 5, "compression.codec": "lz4"})

    def write(self, bodies: Sequence[bytes]) -> list[str]:
        """→ the place of each."""
        places = [""] * len(bodies)

        def put(i: int, error: KafkaError | None, sent: Message) -> None:
            assert error is None, error
            places[i] = f"{self._topic}-{sent.partition()}-{sent.offset()}"

        for i, body in enumerate(bodies):
            self._producer.produce(self._topic, body, str(i), on_delivery=lambda error, sent, i=i: put(i, error, sent))
        assert self._producer.flush(60) == 0
        return places


def reader(hosts: str, topic: str) -> Consumer:
    """From the beginning, outside of every group."""
    consumer = Consumer({"bootstrap.servers": hosts, "group.id": "reader", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, one, 0) for one in range(PARTITIONS)])
    return consumer


def read(consumer: Consumer) -> list[Message]:
    """What is new; waits for some."""
    first = consumer.poll(60)
    assert first is not None, "nothing came for a minute"
    given = [first, *consumer.consume(10_000, 0)]
    assert not any(one.error() for one in given)
    return given


def lag(hosts: str, topic: str, group: str) -> int:
    """Messages that the group has not committed."""
    consumer = Consumer({"bootstrap.servers": hosts, "group.id": group})
    ahead = 0
    for one in consumer.committed([TopicPartition(topic, n) for n in range(PARTITIONS)], 10):
        low, high = consumer.get_watermark_offsets(one, 10)
        ahead += high - (one.offset if one.offset >= 0 else low)
    consumer.close()
    return ahead
