"""The stores of a project, in its folder or in memory."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from homeostat.adapters.tracking import MlflowTracker
from homeostat.domain.figures import LogFigures
from homeostat.domain.policy import Policy
from homeostat.ports import (
    Blobs,
    Counted,
    Journal,
    LabelLog,
    PredictionLog,
    Rollouts,
    Router,
    StepCache,
    Tables,
    Tracker,
)
from homeostat.services.leader import Leader
from homeostat.stores import sql
from homeostat.stores.blobs import FileBlobs
from homeostat.stores.cache import FileCache
from homeostat.stores.days import DayTables
from homeostat.stores.health import figures, troubles
from homeostat.stores.memory import MemoryJournal, MemoryRollouts, MemoryRouter
from homeostat.stores.memory_data import MemoryBlobs, MemoryCache, MemoryTables
from homeostat.stores.memory_log import MemoryCounts, MemoryLabels, MemoryLog
from homeostat.stores.memory_tracker import MemoryTracker
from homeostat.stores.routing import FileRouter
from homeostat.stores.tables import DeltaTables
from homeostat.stores.tallies import SegmentCounts, Tallies
from homeostat.wiring import STATE
from homeostat.wiring.plane import database, logs


@dataclass(frozen=True)
class Stores:
    """Where everything is kept. `leader`: of a control plane. `troubles`: what is wrong with the log itself, cause →
    evidence; `counted`: what was counted of the log; `log_figures`: how the log stands."""

    tables: Tables
    blobs: Blobs
    cache: StepCache
    log: PredictionLog
    labels: LabelLog
    journal: Journal
    rollouts: Rollouts
    router: Router
    tracker: Tracker
    counted: Counted = field(default_factory=MemoryCounts)
    leader: Leader | None = None
    troubles: Callable[[], Mapping[str, str]] = dict
    log_figures: Callable[[], LogFigures] = LogFigures


def embedded(root: Path, worker: str, policy: Policy, leads: bool = False) -> Stores:
    """In the project's state folder: SQLite, local Delta tables, files. `worker` names the writer of log segments.
    With `leads` journal, records and routing document are written only while this process leads."""
    state = root / STATE
    state.mkdir(mode=0o700, exist_ok=True)
    log, labels = logs(state, worker, policy)
    control = sql.connect(database(state, policy))
    leader = Leader(sql.SqlLeases(control), policy.name, _here(), _monotonic_ms) if leads else None
    term = leader.term if leader else None
    return Stores(
        tables=DeltaTables(state / "tables"),
        blobs=FileBlobs(state / "blobs"),
        cache=FileCache(state / "cache"),
        log=log,
        labels=labels,
        journal=sql.SqlJournal(control, term),
        rollouts=sql.SqlRollouts(control, term),
        router=FileRouter(state / "routing.json", term),
        tracker=MlflowTracker(f"sqlite:///{state / 'mlflow.db'}", state / "mlflow"),
        counted=SegmentCounts(Tallies(state / "tables", DayTables(state / "tables")), log.waits),
        leader=leader,
        troubles=partial(troubles, state / "log"),
        log_figures=partial(figures, state / "log"),
    )


def _here() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def in_memory() -> Stores:
    """For a rehearsal: it touches nothing that production uses."""
    return Stores(
        tables=MemoryTables(),
        blobs=MemoryBlobs(),
        cache=MemoryCache(),
        log=MemoryLog(),
        labels=MemoryLabels(),
        journal=MemoryJournal(),
        rollouts=MemoryRollouts(),
        router=MemoryRouter(),
        tracker=MemoryTracker(),
    )
