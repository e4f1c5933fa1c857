"""A Redis server and a Kafka broker of the session's own, and a project whose model a stream can ask."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import kafkas
import numpy as np
import places
import pytest
import redis

from needs import lacking

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "serving"))  # worlds.py


@pytest.fixture(scope="session")
def linear_onnx() -> bytes:
    """Logistic regression over the 20 fields of `places`."""
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.linear_model import LogisticRegression

    x = places.rows(500).astype(np.float32)
    model = LogisticRegression().fit(x, x[:, 0] > x[:, 1])
    types = [("x", FloatTensorType([None, x.shape[1]]))]
    onnx = skl2onnx.convert_sklearn(model, initial_types=types, options={"zipmap": False})
    return bytes(onnx.SerializeToString())


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of an empty server that writes nothing to disk."""
    program = shutil.which("redis-server") or lacking("Redis is not installed: apt-get install redis-server")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    home = tmp_path_factory.mktemp("redis")
    options = ("--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(home))
    with subprocess.Popen([program, *options], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert any("Ready to accept connections" in line for line in server.stdout)
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()


@pytest.fixture
def redis_client(redis_server: str) -> Iterator[redis.Redis]:
    """Of the server, emptied."""
    host, _, port = redis_server.partition(":")
    with redis.Redis(host, int(port), protocol=2) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[kafkas.Broker]:
    """KAFKA_BOOTSTRAP where it is set, else librdkafka's test broker."""
    given = os.environ.get("KAFKA_BOOTSTRAP")
    if given:
        yield kafkas.Broker(given)
        return
    command = [sys.executable, str(HERE / "broker.py"), "100"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield kafkas.Broker(process.stdout.readline().strip(), process)  # leaving closes its standard input


@pytest.fixture
def kafka_hosts(kafka_broker: kafkas.Broker) -> str:
    return kafka_broker.hosts
