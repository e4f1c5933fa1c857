"""python -m bench.passes PROJECT [ROWS]

What the control loop's readers of log and labels cost with so many predictions (a million), all of them labelled a day
later: 30 days of them in a project's own inputs, in tables as the compactor leaves them. CPU seconds.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from homeostat.adapters.clock import SimulatedClock
from homeostat.adapters.code import ProjectCode
from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.prediction import LabelBatch, LogBatch
from homeostat.domain.units import DAY_MS, HOUR_MS
from homeostat.project import Project
from homeostat.services.evidence_log import EvidenceLog
from homeostat.serving import messages
from homeostat.stores.archive import SegmentArchive
from homeostat.stores.days import DayTables
from homeostat.stores.predictions import SegmentLabels, SegmentLog
from homeostat.wiring.stores import in_memory
from homeostat.wiring.system import System

DAYS, BATCH = 30, 1_000


def system(project: Project, folder: Path) -> tuple[System, SimulatedClock]:
    """The project's first champion, over logs on disk."""
    tables = DayTables(folder / "tables")
    log, labels = SegmentLog(folder / "log", "worker", tables), SegmentLabels(folder / "log", "worker", tables)
    clock = SimulatedClock(int(project.data()[EVENT_MS][-1]) + 2 * project.policy.data.label_horizon)
    stores = replace(in_memory(), log=log, labels=labels)
    made = System(project.policy, ProjectCode(project.root), project.data, stores, clock, messages.ids("bench"))
    made.control.begin()
    made.control.settle()
    return made, clock


def live(made: System, n: int, start_ms: int) -> None:
    """Random scores, and labels that agree with them."""
    champion, rng = made.champions.now(), np.random.default_rng(0)
    assert champion is not None
    schema = champion.bundle.schema
    inputs = made.source().tail(BATCH).select(schema.names).to_dict(as_series=False)
    for first in range(0, n, BATCH):
        at, ids = start_ms + first * DAYS * DAY_MS // n, [f"w-{i:x}" for i in range(first, first + BATCH)]
        score = rng.random(BATCH)
        said = [str(schema.classes[int(one >= 0.5)]) for one in score]
        told = [str(schema.classes[int(one)]) for one in rng.random(BATCH) < score]
        batch = LogBatch(
            model=made.policy.name,
            at_ms=at,
            release="R1",
            weight=0,
            id=ids,
            key=[None] * BATCH,
            version=[1] * BATCH,
            arm=["champion"] * BATCH,
            role=["answer"] * BATCH,
            status=["ok"] * BATCH,
            model_us=[50] * BATCH,
            score=score.tolist(),
            label=said,
            scores=[None] * BATCH,
            inputs=inputs,
        )
        made.stores.log.append(batch)
        made.stores.labels.append(LabelBatch(ids, told, [at + DAY_MS - HOUR_MS] * BATCH))


def say(name: str, work: Callable[[], object]) -> None:
    began = time.process_time()
    work()
    sys.stdout.write(f"{name:50} {time.process_time() - began:6.2f}\n")
    sys.stdout.flush()


def main() -> None:
    project, n = Project.open(Path(sys.argv[1])), int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    with TemporaryDirectory() as name:
        made, clock = system(project, Path(name))
        start_ms = clock.now_ms()
        live(made, n, start_ms)
        for log in (made.stores.log, made.stores.labels):
            assert isinstance(log, SegmentLog | SegmentLabels)
            log.close()
        SegmentArchive(Path(name) / "log", DayTables(Path(name) / "tables")).compact()
        now, model = start_ms + DAYS * DAY_MS, made.policy.name
        clock.move_to(now)
        evidence = EvidenceLog(model, made.stores.log, made.judged)
        say("all labels that count", lambda: made.labels.read(start_ms, now + 1))
        say("rows and labels of a release of 30 days, first", lambda: evidence.read("R1", start_ms, now))
        time.sleep(60)  # what came within a minute is read again
        evidence.read("R1", start_ms, now + 1)
        say("the same a pass later", lambda: evidence.read("R1", start_ms, now + 2))
        say("performance, first", made.performances.now)
        clock.move_to(now + DAY_MS)
        say("performance, a day later", made.performances.now)
        say("label sources judged, first", made.suspicions.turn)
        clock.move_to(now + 2 * DAY_MS)
        say("label sources judged, a day later", made.suspicions.turn)
        say("predictions that rules look at", lambda: made.feedback._asked(start_ms, now))
    sys.stdout.write(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB\n")


if __name__ == "__main__":
    main()
