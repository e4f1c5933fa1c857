"""Consumers of a Kafka topic, killed while they work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import kafkas
import killing
import places
import pytest


class Ends:
    def __init__(self, hosts: str, source: str, sink: str) -> None:
        self._source = kafkas.Writer(hosts, source)
        self._sink = kafkas.reader(hosts, sink)

    def feed(self, bodies: Sequence[bytes]) -> Sequence[str]:
        return self._source.write(bodies)

    def fetch(self) -> Sequence[tuple[str, bytes]]:
        given = kafkas.read(self._sink)
        return [((one.key() or b"").decode(), one.value() or b"") for one in given]


@pytest.mark.slow
def test_every_input_has_one_answer(tmp_path: Path, linear_onnx: bytes, kafka_hosts: str) -> None:
    root = places.make(tmp_path / "flow", linear_onnx)
    source, sink, dead = kafkas.topics(kafka_hosts, "requests", "predictions", "dead")

    def start() -> places.Consumer:
        where = (f"kafka://{kafka_hosts}/{source}?{kafkas.SESSION}", f"kafka://{kafka_hosts}/{sink}")
        return places.Consumer(root, *where, "--batch", "100", "--dead-letter", dead, "--group", source)

    killing.survive(Ends(kafka_hosts, source, sink), root, linear_onnx, start)
    assert kafkas.lag(kafka_hosts, source, source) == 0, "nothing is stuck"
