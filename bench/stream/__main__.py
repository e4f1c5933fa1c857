"""python -m bench.stream [--quick] [--json]

Messages a second from a full topic to another: `homeostat stream` with everything on (checks, routing, a LightGBM model
of 20 fields, the log, confirmed outputs), and a bare batch loop of the same client library, which is the limit. Redis
is a real server; Kafka is librdkafka's own test broker over TCP. Each in a process of its own, one after the other.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

ROOT = Path(__file__).parents[2]
FEATURES, BATCH = 20, 1_000
BODY = json.dumps({f"f{i}": round(0.1 * i - 1, 3) for i in range(FEATURES)}).encode()
"""Of 20 fields, the same each time: nothing here depends on what they hold."""


@dataclass(frozen=True)
class Topic:
    """Two topics on a server: `fill` writes to the source, `count` says how much is on the sink by now."""

    fill: Callable[[int], None]
    count: Callable[[], int]
    address: str


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.stream", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="40,000 messages instead of 200,000")
    parser.add_argument("--json", action="store_true", help="one line of JSON on standard output")
    given = parser.parse_args()
    messages = 40_000 if given.quick else 200_000
    if shutil.which("redis-server") is None:
        sys.exit("redis-server is needed: apt-get install redis-server")
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        project = _project(Path(folder))
        for kind, topic in (("redis", _redis), ("kafka", _kafka)):
            found[kind] = {
                "ours": _rate(topic, messages, lambda t: _ours(project, t)),
                "bare": _rate(topic, messages, lambda t, kind=kind: _bare(kind, t)),
            }
    _show(found, given.json)


def _ours(project: Path, topic: Topic) -> list[str]:
    ends = [f"{topic.address}/requests", f"{topic.address}/predictions"]
    return [sys.executable, "-m", "homeostat", "stream", *ends, "-p", str(project), "--batch", str(BATCH)]


def _bare(kind: str, topic: Topic) -> list[str]:
    server = topic.address.split("/")[2]
    return [sys.executable, "-m", "bench.stream.bare", kind, server, str(BATCH)]


def _rate(opened: Callable[[], Topic], messages: int, command: Callable[[Topic], Sequence[str]]) -> float:
    """Messages a second on a fresh server, from the first output to the last: without the start of the process."""
    with opened() as topic:
        topic.fill(messages)
        with subprocess.Popen(command(topic), stderr=subprocess.DEVNULL) as process:
            try:
                return _timed(topic, messages, process)
            finally:
                process.kill()


def _timed(topic: Topic, messages: int, process: subprocess.Popen[bytes]) -> float:
    first = begun = 0.0
    while (seen := topic.count()) < messages:
        if process.poll() is not None:
            sys.exit(f"{process.args} ended")
        if seen and not begun:
            first, begun = seen, time.monotonic()
        time.sleep(0.01)
    return (messages - first) / (time.monotonic() - begun)


@contextmanager
def _redis() -> Iterator[Topic]:
    import redis

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    options = ("--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no")
    with subprocess.Popen(["redis-server", *options], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        next(line for line in server.stdout if "Ready to accept connections" in line)
        client = redis.Redis("127.0.0.1", port)

        def fill(messages: int) -> None:
            for _ in range(0, messages, BATCH):
                with client.pipeline(transaction=False) as pipe:
                    for _ in range(BATCH):
                        pipe.xadd("requests", {"data": BODY})
                    pipe.execute()

        try:
            yield Topic(fill, lambda: client.xlen("predictions"), f"redis://127.0.0.1:{port}/0")
        finally:
            server.terminate()


@contextmanager
def _kafka() -> Iterator[Topic]:
    """The test broker keeps little of a topic: the input is compressed, of the output only the end is asked."""
    from confluent_kafka import Consumer, Producer, TopicPartition

    command = [sys.executable, str(ROOT / "tests" / "stream" / "broker.py"), "100"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as broker:
        assert broker.stdout is not None
        hosts = broker.stdout.readline().strip()
        producer = Producer({"bootstrap.servers": hosts, "linger.ms": 5, "compression.codec": "lz4"})
        consumer = Consumer({"bootstrap.servers": hosts, "group.id": "reader"})

        def fill(messages: int) -> None:
            producer.list_topics("predictions", timeout=10)
            for i in range(messages):
                producer.produce("requests", BODY, str(i))
                if i % 10_000 == 0:
                    producer.flush()
            producer.flush()

        def count() -> int:
            partitions = (TopicPartition("predictions", one) for one in range(4))
            return sum(consumer.get_watermark_offsets(one, 10)[1] for one in partitions)

        yield Topic(fill, count, f"kafka://{hosts}")


def _project(folder: Path) -> Path:
    """→ a project whose first version is released: LightGBM, 100 trees of 31 leaves."""
    import homeostat
    from homeostat import scaffold

    rng = np.random.default_rng(1)
    x = rng.normal(size=(5_000, FEATURES))
    frame = pl.DataFrame({f"f{i}": x[:, i] for i in range(FEATURES)})
    frame = frame.with_columns(pl.Series("y", (x[:, 0] + x[:, 1] * x[:, 2] + rng.normal(size=len(x)) > 0).astype(int)))
    frame.write_parquet(folder / "rows.parquet")
    root = folder / "bench"
    scaffold.init(root, scaffold.Options(folder / "rows.parquet", "y"))
    train = root / "pipelines" / "train.py"
    train.write_text(train.read_text().replace('"num_leaves": 15', '"num_leaves": 31'))
    project = homeostat.load(root)
    assert project.run().version is not None
    system = project.system
    system.plane = system.engine
    system.control.begin()
    system.control.settle()
    return root


def _show(found: dict[str, dict[str, float]], as_json: bool) -> None:
    if as_json:
        summary = {kind: {**one, "ours_vs_bare": one["ours"] / one["bare"]} for kind, one in found.items()}
        sys.stdout.write(json.dumps(summary) + "\n")
        return
    for kind, one in found.items():
        share = 100 * one["ours"] / one["bare"]
        sys.stdout.write(
            f"{kind:6} ours {one['ours']:>8,.0f} messages/s   bare loop {one['bare']:>8,.0f}   {share:.0f} %\n"
        )


if __name__ == "__main__":
    main()
