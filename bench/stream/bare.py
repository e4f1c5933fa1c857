"""The limit: a batch loop of the client library alone, which answers with a fixed text and checks nothing.

python -m bench.stream.bare redis|kafka HOST:PORT BATCH
"""

from __future__ import annotations

import sys
from collections.abc import Callable

ANSWER = b'{"id":"requests-1700000000000-0","release":"R1","model_version":1,"score":0.27107131481170654,"label":"no"}'
GROUP = "bench"


def redis_loop(server: str, batch: int) -> None:
    import redis

    host, _, port = server.partition(":")
    client = redis.Redis(host, int(port), protocol=2)
    client.xgroup_create("requests", GROUP, "0", mkstream=True)
    while True:
        given = client.xreadgroup(GROUP, "one", {"requests": ">"}, count=batch, block=1_000)
        with client.pipeline(transaction=True) as pipe:
            for entry, _ in given[0][1] if given else ():
                pipe.xadd("predictions", {"id": entry, "data": ANSWER})
                pipe.xack("requests", GROUP, entry)
            pipe.execute()


def kafka_loop(hosts: str, batch: int) -> None:
    from confluent_kafka import Consumer, Producer

    consumer = Consumer(
        {
            "bootstrap.servers": hosts,
            "group.id": GROUP,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    producer = Producer({"bootstrap.servers": hosts, "enable.idempotence": True, "linger.ms": 5})
    consumer.subscribe(["requests"])
    while True:
        taken = consumer.consume(batch, 0.1)
        for one in taken:
            producer.produce("predictions", ANSWER, f"{one.topic()}-{one.partition()}-{one.offset()}")
        producer.flush()
        if taken:
            consumer.commit(asynchronous=False)


LOOPS: dict[str, Callable[[str, int], None]] = {"redis": redis_loop, "kafka": kafka_loop}

if __name__ == "__main__":
    LOOPS[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
