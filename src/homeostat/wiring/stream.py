"""Streams by the scheme of their address."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Event

from homeostat.adapters.address import Address, parse
from homeostat.adapters.clock import SystemClock
from homeostat.domain.errors import UsageError
from homeostat.domain.policy import Policy
from homeostat.ports import Stream
from homeostat.stream import Loop, Metrics
from homeostat.wiring.plane import data_plane

_EXTRAS = {"kafka": "kafka", "redis": "redis", "rediss": "redis"}


def open_stream(source: str, sink: str, dead: str, group: str, environment: Mapping[str, str]) -> Stream:
    """A consumer of `group` from the address `source` to the address `sink`; `dead` is the topic of the dead letters
    beside the sink, SOURCE.dead where it is "". Errors: `UsageError`, `ConfigError`, `Unavailable`."""
    taken, given = parse(source, environment), parse(sink, environment)
    if _EXTRAS[taken.scheme] != _EXTRAS[given.scheme]:
        raise UsageError("source and sink must be of one kind", where=f"{taken} and {given}")
    letters = replace(given, topic=dead or f"{taken.topic}.dead")
    if len({(taken.server, taken.topic), (given.server, given.topic), (letters.server, letters.topic)}) < 3:
        raise UsageError("source, sink and dead letters must be three topics", where=f"{taken}, {given} and {letters}")
    return _opened(taken, given, letters, group)


def stream_loop(
    root: Path, policy: Policy, stream: Stream, model: str, stop: Event, show: Callable[[Metrics], None]
) -> Loop:
    """The stream through the data plane of the project in folder `root`."""
    return Loop(data_plane(root, policy, "stream"), stream, model, SystemClock(), stop, show)


def _opened(source: Address, sink: Address, dead: Address, group: str) -> Stream:
    """The client's package is imported only here: it is an extra."""
    extra = _EXTRAS[source.scheme]
    try:
        if extra == "kafka":
            from homeostat.adapters.kafka import KafkaStream

            return KafkaStream(source, sink, dead, group)
        from homeostat.adapters.redis_stream import RedisStream

        return RedisStream(source, sink, dead, group)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{source.scheme}:// needs the package {error.name}", way_out=f"pip install 'homeostat[{extra}]'"
        ) from None
