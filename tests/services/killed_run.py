"""One run of the project in a folder, for a test that kills it: python killed_run.py FOLDER [RESULTS]. With RESULTS it
kills itself as soon as so many results of steps are kept."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from typing import Any

import homeostat
from homeostat.stores.cache import FileCache


class Dying(FileCache):
    """Kills its process after a write."""

    kept = itertools.count(1)

    def put(self, key: str, value: Any) -> None:
        super().put(key, value)
        if next(self.kept) == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    project = homeostat.load(sys.argv[1])
    if len(sys.argv) > 2:
        project.system.stores.cache.__class__ = Dying
    project.run()
