"""`homeostat serve` with one worker: the data plane of a project in this process, until SIGTERM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path

from homeostat.config import read_policy
from homeostat.domain.errors import UsageError
from homeostat.serving.http import Limits
from homeostat.serving.server import Door
from homeostat.serving.server import serve as run
from homeostat.serving.sockets import listen
from homeostat.web.workers import tell_load
from homeostat.wiring.plane import announced, beside, data_plane


def serve(
    root: Path,
    host: str,
    port: int,
    started: Callable[[int], None],
    grpc_port: int | None = None,
    worker: str = "plane",
    others: Sequence[Path] = (),
) -> None:
    """One worker of the project in folder `root`, and of the `others`, in this process. `port` 0 takes a free one;
    `started` is told which. Errors: `ConfigError`; `Refused` when a port is taken; `UsageError` when `grpc_port` is
    given and gRPC not installed."""
    tell_load()
    door = nullcontext if grpc_port is None else _grpc(host, grpc_port)
    policy = read_policy(root)
    bound, own = listen(host, port), listen("127.0.0.1", 0)
    theirs = {other: read_policy(other) for other in others}
    engine, limits = data_plane(root, policy, worker, theirs), Limits(max_body=policy.serving.max_body)
    url = f"http://127.0.0.1:{own.getsockname()[1]}"
    with ExitStack() as told:
        told.enter_context(announced(root, worker, url))
        for other in others:
            told.enter_context(announced(other, beside(policy, worker), url))
        run(engine, [bound, own], limits, lambda: started(int(bound.getsockname()[1])), door)


def _grpc(host: str, port: int) -> Door:
    """Imported late: most data planes speak HTTP alone."""
    try:
        from homeostat.serving.grpc.server import door
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{error.name} is not installed", way_out="Install it: pip install 'homeostat[grpc]'"
        ) from None
    return partial(door, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
