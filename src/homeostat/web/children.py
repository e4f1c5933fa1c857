"""Processes that are kept alive: started again when they die, ended with their parent."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

GRACE_S = 12.0
CRASHES, SHORT_S, KILLED_S = 5, 30.0, 3.0
"""So many lives in a row that end so soon are a crash loop; `KILLED_S` where a signal ended them."""
_log = logging.getLogger("homeostat.up")


@dataclass
class Child:
    """A process `homeostat ARGUMENTS`. Whatever ends its parent ends it too: its standard input is a pipe that closes
    then. A crash loop ends it for good, with `reason`."""

    name: str
    arguments: Sequence[str]
    reason: str = ""
    _child: subprocess.Popen[bytes] | None = None
    _started_s: float = 0.0
    _short: int = 0

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        return self._child.pid if self._child is not None and self._child.returncode is None else None

    def tend(self) -> None:
        """Start it, or start it again."""
        if self.reason or (self._child is not None and self._child.poll() is None):
            return
        if self._child is not None:
            code = self._child.returncode
            lived_s = time.monotonic() - self._started_s
            self._short = self._short + 1 if lived_s < (KILLED_S if code < 0 else SHORT_S) else 0
            if self._short == CRASHES:
                self.reason = f"the {self.name} ended {CRASHES} times soon after its start, with code {code}"
                return
            _log.warning("the %s ended with code %s; it is started again", self.name, code)
        command = [sys.executable, "-m", "homeostat", *self.arguments, "--until-stdin-closes"]
        self._child, self._started_s = subprocess.Popen(command, stdin=subprocess.PIPE), time.monotonic()

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
