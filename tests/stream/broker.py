"""A Kafka broker over TCP: librdkafka's own test broker, in a process that lives until its standard input closes.
Prints where it listens, then obeys: a line `down` or `up`, answered by itself. A topic has four partitions; the newest
5 MB of each are kept.

python broker.py REBALANCE_MS: how long a new group waits for its first members (a real broker's default is 3,000).
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import confluent_kafka

_PRODUCER = 0
_ERROR_SPACE = 512


def library() -> ctypes.CDLL:
    """The librdkafka that came with confluent_kafka. Its `rdkafka_mock.h` says what is called here."""
    home = Path(confluent_kafka.__file__).parent.with_suffix(".libs")
    found = ctypes.CDLL(str(next(home.glob("librdkafka-*.so*"))))
    for name in ("rd_kafka_new", "rd_kafka_conf_new", "rd_kafka_mock_cluster_new"):
        getattr(found, name).restype = ctypes.c_void_p
    found.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    return found


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(rebalance_ms: int) -> None:
    lib = library()
    error = ctypes.create_string_buffer(_ERROR_SPACE)
    conf = ctypes.c_void_p(lib.rd_kafka_conf_new())
    owner = ctypes.c_void_p(lib.rd_kafka_new(_PRODUCER, conf, error, _ERROR_SPACE))
    assert owner, error.value
    cluster = ctypes.c_void_p(lib.rd_kafka_mock_cluster_new(owner, 1))
    lib.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, ctypes.c_int32(rebalance_ms))
    say(lib.rd_kafka_mock_cluster_bootstraps(cluster).decode())
    orders = {"down": lib.rd_kafka_mock_broker_set_down, "up": lib.rd_kafka_mock_broker_set_up}
    for line in sys.stdin:
        orders[line.strip()](cluster, ctypes.c_int32(1))
        say(line.strip())


if __name__ == "__main__":
    main(int(sys.argv[1]))
