"""python dying.py ENGINE FOLDER: squares on a cluster whose workers die of every third item, once each."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from homeostat.wiring.cluster import cluster


@dataclass(frozen=True)
class Dying:
    """`folder` remembers who has died."""

    folder: Path

    def __call__(self, item: int) -> int:
        mark = self.folder / str(item)
        if item % 3 == 0 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return item * item


if __name__ == "__main__":
    from dying import Dying as Known  # by a name that the workers can import

    found = cluster(sys.argv[1])
    assert found is not None
    sys.stdout.write(f"{sorted(found.each(Known(Path(sys.argv[2])), range(7)))}\n")
