"""`homeostat stream`: the data plane of a project between two topics, in this process, until SIGTERM."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console

from homeostat import codec
from homeostat.config import read_policy
from homeostat.domain.errors import Unavailable
from homeostat.stream import Metrics
from homeostat.wiring.stream import open_stream, stream_loop


def stream(
    root: Path,
    source: str,
    sink: str,
    *,
    group: str,
    model: str,
    dead: str,
    batch: int,
    show: Callable[[Metrics], None],
) -> Metrics:
    """The project in folder `root`; `model` and `group` follow from its name where they are "". After SIGTERM or
    SIGINT the batch in hand is finished. Main thread only. Errors: `ConfigError`, `UsageError`, `Unavailable`."""
    policy = read_policy(root)
    name = model or policy.name
    stop = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: stop.set())
    opened = open_stream(source, sink, dead, group or f"homeostat-{name}", os.environ)
    try:
        return stream_loop(root, policy, opened, name, stop, show).run(batch)
    finally:
        with suppress(Unavailable):  # a server that is away misses this consumer by itself
            opened.close()


@contextmanager
def showing(as_json: bool) -> Iterator[Callable[[Metrics], None]]:
    """What shows the metrics: a line of JSON each time on standard output; one line that stays, where a person looks
    on; else a line when it begins to wait, or goes on."""
    console = Console(stderr=True, highlight=False)
    if as_json or not console.is_terminal:
        yield _emit if as_json else Changes()
        return
    with console.status("the stream begins") as status:
        yield lambda metrics: status.update(line(metrics))


class Changes:
    """For a log file: what it waits for, when that changes."""

    def __init__(self) -> None:
        self._waiting_for = ""

    def __call__(self, metrics: Metrics) -> None:
        if metrics.waiting_for != self._waiting_for:
            self._waiting_for = metrics.waiting_for
            sys.stderr.write(line(metrics) + "\n")


def _emit(metrics: Metrics) -> None:
    sys.stdout.write(codec.encode(metrics).decode() + "\n")
    sys.stdout.flush()


def line(metrics: Metrics) -> str:
    """`12,000 answered, 31,020 a second, lag 1,200, dead letters 3, rebalances 1`; what is zero is left out."""
    parts = [f"{metrics.answered_total:,} answered, {metrics.per_second:,.0f} a second"]
    parts += [f"lag {metrics.lag:,}"] if metrics.lag is not None else []
    counts = {
        "dead letters": metrics.dead_total,
        "reclaimed": metrics.reclaimed_total,
        "rebalances": metrics.rebalances_total,
        "retries": metrics.retried_total,
    }
    parts += [f"{what} {count:,}" for what, count in counts.items() if count]
    return ", ".join(parts) + (f"; waiting: {metrics.waiting_for}" if metrics.waiting_for else "")
