"""Calls in Python processes of their own, for work on several cores that shares nothing.

`multiprocessing` would run the caller's script again in each of them, unless it says `if __name__ == "__main__"`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from itertools import islice
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Generic, TypeVar

from homeostat.domain.errors import ServiceError
from homeostat.ports import Progress

T = TypeVar("T")
_CHILD = """
import sys
from multiprocessing.connection import Connection
pipe = Connection(int(sys.argv[1]))
sys.path[:] = pipe.recv()
from homeostat.wiring import apart
apart.child(pipe)
"""
_DOING, _MADE, _FAILED = "doing", "made", "failed"
_STDERR = 2
_is_child = False


def cores() -> int:
    """How many this process may use: one, where it stands beside others itself."""
    if _is_child:
        return 1
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class Apart(Generic[T]):
    """`function(*arguments, progress)` in a process of its own, begun now. The function is one of a module; what it
    takes, returns and raises can be pickled; what it prints goes to standard error. The end of the `with` block ends
    it, the end of this process does with its next word of progress; Ctrl-C is for this one alone."""

    def __init__(self, function: Callable[..., T], *arguments: Any) -> None:
        self._pipe, theirs = Pipe()
        command, fds = [sys.executable, "-c", _CHILD, str(theirs.fileno())], [theirs.fileno()]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=_STDERR, pass_fds=fds, start_new_session=True
        )
        theirs.close()
        self._pipe.send(sys.path)
        self._pipe.send((function, arguments))

    def __enter__(self) -> Apart[T]:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        self._pipe.close()

    def result(self, progress: Progress) -> T:
        """Wait for it. Errors: what the function raises; `ServiceError` when something else ended its process."""
        while True:
            self._pipe.poll(None)  # Ctrl-C ends it, and would not end a read: Polars lets those go on after a signal
            try:
                kind, said = self._pipe.recv()
            except (EOFError, ConnectionError):
                raise ServiceError(
                    f"a process of this command ended with code {self._process.wait()}",
                    way_out="Does the memory suffice? On one core (taskset -c 0) there is no other process.",
                ) from None
            if kind == _FAILED:
                raise said
            if kind == _MADE:
                made: T = said
                return made
            progress(*said)


def child(pipe: Connection) -> None:
    """The other process."""
    global _is_child
    _is_child = True
    function, arguments = pipe.recv()

    def progress(done: int, total: int, doing: str) -> None:
        if done * 100 // total > (done - 1) * 100 // total:  # a pipe that nobody reads yet holds no more
            pipe.send((_DOING, (done, total, doing)))

    try:
        told = _MADE, function(*arguments, progress)
    except Exception as error:  # whatever it is, the parent raises it
        told = _FAILED, error
    with suppress(ConnectionError):  # nobody is there any more
        pipe.send(told)


def side_by_side(calls: Mapping[str, tuple[Any, ...]], progress: Progress) -> dict[str, Any]:
    """name → (function, *arguments), each `Apart`, as many at a time as there are cores → name → result. Progress and
    errors are told in the order of the calls. One call, or one core: all here."""

    def of(name: str) -> Progress:
        return lambda done, total, doing: progress(done, total, f"{name}: {doing}")

    most = min(cores(), len(calls))
    if most == 1:
        return {name: function(*arguments, of(name)) for name, (function, *arguments) in calls.items()}
    begun, made = dict[str, Apart[Any]](), dict[str, Any]()
    with ExitStack() as stack:
        for name in calls:
            for other in islice(calls, len(begun), len(made) + most):
                begun[other] = stack.enter_context(Apart(*calls[other]))
            made[name] = begun[name].result(of(name))
    return made
