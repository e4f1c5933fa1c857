"""A process that ends with the one that started it."""

from __future__ import annotations

import os
import signal
import sys
import threading


def until_stdin_closes() -> None:
    """End this process with SIGTERM when the pipe on its standard input closes: its parent is gone."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1):  # not sys.stdin.buffer: its lock would be held when the process ends
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()
