"""A control plane over the project in a folder, on a clock that its parent sets, for a test that kills it:
python killed_control.py FOLDER START_MS. Each line it reads is a time: it turns once and says so."""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

from homeostat.adapters.clock import SimulatedClock
from homeostat.adapters.code import ProjectCode
from homeostat.adapters.source import Source
from homeostat.config import read_policy
from homeostat.domain.dataset import EVENT_MS
from homeostat.serving import messages
from homeostat.wiring.stores import embedded
from homeostat.wiring.system import System


def system(root: Path, worker: str, start_ms: int) -> System:
    """Over the project's real stores; its own rows are those before the start."""
    policy = read_policy(root)
    before = Source(root, policy.data, policy.task)().filter(pl.col(EVENT_MS) < start_ms)
    clock, ids = SimulatedClock(start_ms), messages.ids(worker)
    return System(policy, ProjectCode(root), lambda: before, embedded(root, worker, policy), clock, ids)


if __name__ == "__main__":
    began_ms = int(sys.argv[2])
    made = system(Path(sys.argv[1]), "control", began_ms)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        made.clock.move_to(int(line))
        made.control.begin()
        made.control.turn()
        sys.stdout.write("done\n")
        sys.stdout.flush()
