"""`homeostat serve`: the data plane of a project in this process, until SIGTERM."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable

from homeostat.domain.errors import Refused
from homeostat.project import Project
from homeostat.serving.http import Limits
from homeostat.serving.server import listen
from homeostat.serving.server import serve as run
from homeostat.wiring import project_system


def serve(project: Project, host: str, port: int, started: Callable[[int], None]) -> None:
    """`port` 0 takes a free one; `started` is told which. Errors: `Refused` when the port is taken."""
    try:
        bound = listen(host, port)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise Refused(f"can't listen on {host}:{port}: {why}", way_out="Choose another --port.") from None
    engine = project_system(project.root, project.policy, "plane").engine
    taken = int(bound.getsockname()[1])
    run(engine, bound, Limits(max_body=project.policy.serving.max_body), lambda: started(taken))


def until_stdin_closes() -> None:
    """End this process with SIGTERM when the pipe on its standard input closes: its parent is gone."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1):  # not sys.stdin.buffer: its lock would be held when the process ends
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()
