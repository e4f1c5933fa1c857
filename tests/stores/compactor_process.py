"""A compactor in a process of its own, for tests that kill it: python compactor_process.py FOLDER.

A line on standard input is a number of milliseconds: a child is made, which compacts and tidies, and is killed after
that time (SIGKILL) unless it has ended; 0 lets it end. The answer is its exit status, -9 when it was killed. The
modules are loaded once, before the first child: fifty of them cost a few seconds.
"""

from __future__ import annotations

import os
import signal
import sys
from datetime import date
from pathlib import Path

from homeostat.stores.archive import SegmentArchive
from homeostat.stores.days import DayTables

TODAY = date(1970, 1, 3)


def work(root: Path) -> None:
    archive = SegmentArchive(root / "log", DayTables(root / "tables"), group=2_000)
    archive.compact()
    archive.tidy(TODAY)


def main(root: Path) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    for line in sys.stdin:
        child = os.fork()
        if not child:
            work(root)
            os._exit(0)
        wait = float(line) / 1_000
        if wait:
            signal.sigtimedwait([signal.SIGCHLD], wait)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        while signal.sigtimedwait([signal.SIGCHLD], 0):
            pass  # of this child
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
