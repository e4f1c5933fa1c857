"""Processes that are kept alive: started again when they die, ended with their parent."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

GRACE_S = 12.0
CRASHES, CRASH_WINDOW_S = 5, 60.0
_log = logging.getLogger("homeostat.up")


@dataclass
class Child:
    """A process `homeostat ARGUMENTS`. Whatever ends its parent ends it too: its standard input is a pipe that closes
    then. Too many deaths in a minute end it for good, with `reason`."""

    name: str
    arguments: Sequence[str]
    reason: str = ""
    _child: subprocess.Popen[bytes] | None = None
    _deaths: list[float] = field(default_factory=list)

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        return self._child.pid if self._child is not None and self._child.returncode is None else None

    def tend(self) -> None:
        """Start it, or start it again."""
        if self.reason or (self._child is not None and self._child.poll() is None):
            return
        if self._child is not None:
            now = time.monotonic()
            self._deaths = [at for at in self._deaths if now - at < CRASH_WINDOW_S] + [now]
            _log.warning("the %s ended with code %s; it is started again", self.name, self._child.returncode)
            if len(self._deaths) >= CRASHES:
                self.reason = f"the {self.name} died {CRASHES} times within {CRASH_WINDOW_S:.0f} s"
                return
        command = [sys.executable, "-m", "homeostat", *self.arguments, "--until-stdin-closes"]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE)

    def end(self) -> None:
        """SIGTERM: it ends what is under way; then, if need be, SIGKILL."""
        if self._child is None:
            return
        self._child.terminate()
        try:
            self._child.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
