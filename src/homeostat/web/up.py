"""`homeostat up`: control loop, control API, data plane and compactor of the log in one command.

The workers of the data plane are processes of their own: they answer while a model is trained, and are started again
should they die. The compactor is another. They end with the control plane, whatever ends that one: their standard input
is a pipe that closes then.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import uvicorn

from homeostat.domain.errors import Refused
from homeostat.project import Project
from homeostat.serving.sockets import alone, hold
from homeostat.web import api
from homeostat.web.children import Child
from homeostat.web.control import Loop
from homeostat.web.metrics import Scrape
from homeostat.web.workers import Workers, arguments, tell_load
from homeostat.wiring import STATE
from homeostat.wiring.system import project_system


class _Server(uvicorn.Server):
    """uvicorn without its handling of signals, which ends in killing the process: there is more to close here."""

    def leave(self, *_: object) -> None:
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {name: signal.signal(name, self.leave) for name in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)


def up(project: Project, host: str, port: int, started: Callable[[], None], grpc_port: int | None = None) -> str:
    """Run until SIGTERM or SIGINT. → why it ended by itself, "" when it was asked to. Errors: `Refused` when the
    project is up already, or a port is taken."""
    (project.root / STATE).mkdir(mode=0o700, exist_ok=True)
    with _alone(project.root / STATE / "control.lock"), alone(host, port) as bound, hold(host, port + 1):
        if grpc_port is not None:
            alone(host, grpc_port).close()
        app = api.create(project)
        server = _Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        worker = arguments(project.root, host, port + 1, grpc_port)
        plane = Workers(worker, *project.policy.serving.workers, server.leave)
        compactor = Child("compactor", ["compact", "--project", str(project.root), "--follow"])
        # without the compactor nothing is lost, and an alert says so
        loop = Loop(project_system(project.root, project.policy, "control", leads=True), compactor.tend)
        scrape = Scrape(
            project.policy.name,
            lambda: project_system(project.root, project.policy, "scrape").gauges,
            loop,
            lambda: {"control": os.getpid(), "compactor": compactor.pid},
        )
        app.add_route("/metrics", scrape.answer, include_in_schema=False)
        tell_load()
        plane.start()
        loop.start()
        started()
        try:
            server.run(sockets=[bound])
        finally:
            loop.end()
            plane.end()
            compactor.end()
        return plane.reason


@contextmanager
def _alone(path: Path) -> Iterator[IO[str]]:
    """One of these for a folder; the lock goes with the process. Others in reserve are `homeostat control`."""
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused("this project is up already", where=str(path.parent.parent)) from None
        yield lock
