"""The data plane of a project, embedded in its state folder."""

from __future__ import annotations

import secrets
from pathlib import Path

from homeostat.adapters.clock import SystemClock
from homeostat.adapters.runtime import OnnxRuntime
from homeostat.serving import messages
from homeostat.serving.tick import Engine
from homeostat.stores.blobs import FileBlobs
from homeostat.stores.predictions import SegmentLabels, SegmentLog
from homeostat.stores.routing import FileRouter
from homeostat.stores.tables import DeltaTables

STATE = ".homeostat"


def data_plane(root: Path) -> Engine:
    """It reads bundles and the routing document, and writes its own log segments; it knows no database."""
    state = root / STATE
    tables = DeltaTables(state / "tables")
    log, labels = SegmentLog(state / "log", "plane", tables), SegmentLabels(state / "log", "plane", tables)
    ids = messages.ids(secrets.token_hex(5))
    router = FileRouter(state / "routing.json")
    return Engine(FileBlobs(state / "blobs"), OnnxRuntime(), log, labels, SystemClock(), router, ids)
