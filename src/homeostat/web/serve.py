"""`homeostat serve`: the data plane of a project, until SIGTERM: a worker in this process, or several in their own."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from homeostat.config import read_policy
from homeostat.domain.errors import Refused, UsageError
from homeostat.serving.http import Limits
from homeostat.serving.server import Door, listen
from homeostat.serving.server import serve as run
from homeostat.web.workers import Workers
from homeostat.wiring.plane import announced, data_plane

ALONE = "plane"
"""The name of a worker that has no others beside it."""


def serve(
    root: Path, host: str, port: int, started: Callable[[int], None], grpc_port: int | None = None, worker: str = ALONE
) -> None:
    """One worker of the project in folder `root`, in this process. `port` 0 takes a free one; `started` is told which.
    Errors: `ConfigError`; `Refused` when a port is taken; `UsageError` when `grpc_port` is given and gRPC not
    installed."""
    tell_load()
    door = nullcontext if grpc_port is None else _grpc(host, grpc_port)
    policy = read_policy(root)
    bound, own = taken(host, port), listen("127.0.0.1", 0)
    engine, limits = data_plane(root, policy, worker), Limits(max_body=policy.serving.max_body)
    with announced(root, worker, f"http://127.0.0.1:{own.getsockname()[1]}"):
        run(engine, [bound, own], limits, lambda: started(int(bound.getsockname()[1])), door)


def serve_many(
    root: Path,
    host: str,
    port: int,
    started: Callable[[int], None],
    grpc_port: int | None = None,
    bounds: tuple[int, int] | None = None,
) -> str:
    """Workers in processes of their own, as many as `bounds` (or the policy) says and the load asks for. → why it ended
    by itself, "" when it was asked to. Errors: as `serve`."""
    tell_load()
    with taken(host, port) as bound:  # bound, never listening: it keeps the port while workers come and go
        port = int(bound.getsockname()[1])
        least, most = bounds or read_policy(root).serving.workers
        ended = threading.Event()
        workers = Workers(arguments(root, host, port, grpc_port), least, most, ended.set)
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: ended.set())
        workers.start()
        started(port)
        ended.wait()
        workers.end()
    return workers.reason


def arguments(root: Path, host: str, port: int, grpc_port: int | None) -> Sequence[str]:
    """Of the command that starts one worker."""
    told = ["serve", "--project", str(root), "--host", host, "--port", str(port)]
    return [*told, "--grpc-port", str(grpc_port)] if grpc_port else told


def taken(host: str, port: int) -> socket.socket:
    """Errors: `Refused` when somebody else has it."""
    try:
        return listen(host, port)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise Refused(f"can't listen on {host}:{port}: {why}", way_out="Choose another --port.") from None


def tell_load() -> None:
    """What follows the load says so on standard error."""
    log = logging.getLogger("homeostat.load")
    log.setLevel(logging.INFO)
    if not log.handlers:
        log.addHandler(logging.StreamHandler(sys.stderr))


def _grpc(host: str, port: int) -> Door:
    """Imported late: most data planes speak HTTP alone."""
    try:
        from homeostat.serving.grpc.server import door
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{error.name} is not installed", way_out="Install it: pip install 'homeostat[grpc]'"
        ) from None
    return partial(door, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
