"""`homeostat serve`: the data plane of a project in this process, until SIGTERM."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from homeostat.config import read_policy
from homeostat.domain.errors import Refused
from homeostat.serving.http import Limits
from homeostat.serving.server import listen
from homeostat.serving.server import serve as run
from homeostat.wiring.plane import data_plane


def serve(root: Path, host: str, port: int, started: Callable[[int], None]) -> None:
    """The project in folder `root`. `port` 0 takes a free one; `started` is told which. Errors: `ConfigError`;
    `Refused` when the port is taken."""
    policy = read_policy(root)
    limits = Limits(max_body=policy.serving.max_body)
    try:
        bound = listen(host, port)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise Refused(f"can't listen on {host}:{port}: {why}", way_out="Choose another --port.") from None
    taken = int(bound.getsockname()[1])
    run(data_plane(root, policy), bound, limits, lambda: started(taken))
