"""`homeostat serve`: the data plane of a project in this process, until SIGTERM."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from homeostat.config import read_policy
from homeostat.domain.errors import Refused, UsageError
from homeostat.serving.http import Limits
from homeostat.serving.server import Door, listen
from homeostat.serving.server import serve as run
from homeostat.wiring.plane import data_plane


def serve(root: Path, host: str, port: int, started: Callable[[int], None], grpc_port: int | None = None) -> None:
    """The project in folder `root`. `port` 0 takes a free one; `started` is told which. Errors: `ConfigError`;
    `Refused` when a port is taken; `UsageError` when `grpc_port` is given and gRPC not installed."""
    door = nullcontext if grpc_port is None else _grpc(host, grpc_port)
    limits = Limits(max_body=read_policy(root).serving.max_body)
    try:
        bound = listen(host, port)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise Refused(f"can't listen on {host}:{port}: {why}", way_out="Choose another --port.") from None
    taken = int(bound.getsockname()[1])
    run(data_plane(root), bound, limits, lambda: started(taken), door)


def _grpc(host: str, port: int) -> Door:
    """Imported late: most data planes speak HTTP alone."""
    try:
        from homeostat.serving.grpc.server import door
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{error.name} is not installed", way_out="Install it: pip install 'homeostat[grpc]'"
        ) from None
    return partial(door, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def until_stdin_closes() -> None:
    """End this process with SIGTERM when the pipe on its standard input closes: its parent is gone."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1):  # not sys.stdin.buffer: its lock would be held when the process ends
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()
