"""The workers of the data plane: as many as the load asks for, all on one port, a dead one back at once.

Nothing heavy is imported here: whoever keeps workers has little to do.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from homeostat.serving.sockets import hold
from homeostat.web.children import Child

LOOK_S = 0.2
HIGH, HIGH_S = 0.8, 10.0
"""Share of a core that every worker uses, over so long, when one more is started."""
LOW, LOW_S = 0.5, 120.0
"""One is ended when the others would stay below this, over so long."""
_log = logging.getLogger("homeostat.load")


def wanted(workers: int, least: int, most: int, lately: float, long: float) -> tuple[int, str]:
    """How many workers there should be, and why. `lately` and `long`: cores that they used together, over `HIGH_S`
    and over `LOW_S`."""
    if workers < most and lately > HIGH * workers:
        return workers + 1, f"{lately:.2f} cores used over {HIGH_S:.0f} s"
    if workers > least and long < LOW * (workers - 1):
        return workers - 1, f"{long:.2f} cores used over {LOW_S:.0f} s"
    return workers, ""


class Usage:
    """CPU time of processes that come and go, as cores used over a stretch of time."""

    def __init__(self) -> None:
        self._last: dict[int, float] = {}
        self._spent: deque[tuple[float, float]] = deque()  # at, CPU seconds since the look before

    def look(self, now: float, cpu_s: dict[int, float]) -> None:
        """`cpu_s`: CPU seconds of each process by now. One that was not there before counts from now on."""
        spent = sum(used - self._last.get(pid, used) for pid, used in cpu_s.items())
        self._last = cpu_s
        self._spent.append((now, spent))
        while self._spent[0][0] < now - LOW_S - 1:
            self._spent.popleft()

    def cores(self, over_s: float) -> float | None:
        """None: not watched for so long yet."""
        end = self._spent[-1][0]
        if end - self._spent[0][0] < over_s:
            return None
        return sum(spent for at, spent in self._spent if at > end - over_s) / over_s

    def forget(self) -> None:
        """Begin anew: another number of workers."""
        self._spent.clear()


class Workers(threading.Thread):
    """`arguments` start one; each gets its own `--worker` name. `give_up` is called when one dies again and again:
    then see `reason`."""

    def __init__(self, arguments: Sequence[str], least: int, most: int, give_up: Callable[[], None]) -> None:
        super().__init__(name="workers", daemon=True)
        self._arguments, self._give_up = arguments, give_up
        self._least, self._most = least, most or os.cpu_count() or 1
        self._children: list[Child] = []
        self._usage, self._ended = Usage(), threading.Event()
        self.reason = ""

    def run(self) -> None:
        self._size(self._least)
        while not self._ended.wait(LOOK_S):
            for child in self._children:
                child.tend()
            self.reason = next((child.reason for child in self._children if child.reason), "")
            if self.reason:
                self._give_up()
                return
            self._follow()

    def end(self) -> None:
        self._ended.set()
        if self.is_alive():
            self.join()
        self._size(0)

    def _size(self, workers: int) -> None:
        while len(self._children) < workers:
            name = f"worker-{len(self._children) + 1}"
            self._children.append(Child(name, [*self._arguments, "--worker", name]))
            self._children[-1].tend()
        leaving = self._children[workers:]
        del self._children[workers:]
        for child in leaving:
            child.end()
        self._usage.forget()

    def _follow(self) -> None:
        """The number of workers follows the load."""
        self._usage.look(time.monotonic(), {pid: used for pid, used in map(_cpu, self._children) if pid})
        lately, long = self._usage.cores(HIGH_S), self._usage.cores(LOW_S)
        if lately is None:
            return
        now = len(self._children)
        then, why = wanted(now, self._least, self._most, lately, now if long is None else long)
        if then != now:
            _log.info("workers: %d, %d before: %s", then, now, why)
            self._size(then)


def _cpu(child: Child) -> tuple[int, float]:
    """(pid, CPU seconds); pid 0 where it does not run."""
    try:
        times = psutil.Process(child.pid or 0).cpu_times() if child.pid else None
    except psutil.NoSuchProcess:
        times = None
    return (child.pid or 0, times.user + times.system) if times else (0, 0.0)


def serve_many(
    root: Path,
    host: str,
    port: int,
    started: Callable[[int], None],
    grpc_port: int | None = None,
    bounds: tuple[int, int] | None = None,
    others: Sequence[Path] = (),
) -> str:
    """Workers in processes of their own, as many as `bounds` (or the policy) says and the load asks for; `started` is
    told the port when the first one listens. → why it ended by itself, "" when it was asked to. Errors: as `serve`."""
    tell_load()
    with hold(host, port) as bound:
        port = int(bound.getsockname()[1])
        least, most = bounds or _bounds(root)
        ended = threading.Event()
        workers = Workers(arguments(root, host, port, grpc_port, others), least, most, ended.set)
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: ended.set())
        workers.start()
        while not ended.wait(LOOK_S / 4):
            if _answers(host, port):
                started(port)
                break
        ended.wait()
        workers.end()
    return workers.reason


def _answers(host: str, port: int) -> bool:
    """Somebody listens there."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def arguments(root: Path, host: str, port: int, grpc_port: int | None, others: Sequence[Path] = ()) -> Sequence[str]:
    """Of the command that starts one worker."""
    told = ["serve", "--project", str(root), "--host", host, "--port", str(port)]
    for other in others:
        told += ["--with", str(other)]
    return [*told, "--grpc-port", str(grpc_port)] if grpc_port else told


def tell_load() -> None:
    """What follows the load says so on standard error."""
    log = logging.getLogger("homeostat.load")
    log.setLevel(logging.INFO)
    if not log.handlers:
        log.addHandler(logging.StreamHandler(sys.stderr))


def _bounds(root: Path) -> tuple[int, int]:
    from homeostat.config import read_policy  # 30 MB that only this needs

    return read_policy(root).serving.workers
