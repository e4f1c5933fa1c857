"""The data plane of a project, embedded in its state folder."""

from __future__ import annotations

import secrets
from pathlib import Path

from homeostat.adapters.clock import SystemClock
from homeostat.adapters.runtime import OnnxRuntime
from homeostat.domain.policy import Policy
from homeostat.engines.privacy import Mask
from homeostat.serving import messages
from homeostat.serving.tick import Engine
from homeostat.stores.blobs import FileBlobs
from homeostat.stores.days import DayTables
from homeostat.stores.files import secret
from homeostat.stores.predictions import SegmentLabels, SegmentLog
from homeostat.stores.routing import FileRouter
from homeostat.stores.segments import Rules

STATE = ".homeostat"


def data_plane(root: Path, policy: Policy) -> Engine:
    """It reads bundles and the routing document, and writes its own log segments; it knows no database."""
    state = root / STATE
    log, labels = logs(state, "plane", policy)
    ids = messages.ids(secrets.token_hex(5))
    router = FileRouter(state / "routing.json")
    return Engine(FileBlobs(state / "blobs"), OnnxRuntime(), log, labels, SystemClock(), router, ids)


def logs(state: Path, worker: str, policy: Policy) -> tuple[SegmentLog, SegmentLabels]:
    """Of predictions and of labels, as the policy wants them; `worker` names the folder of this process's segments."""
    rule, tables = policy.serving.log, DayTables(state / "tables")
    rules, segments = Rules(sync_ms=rule.sync), state / "log"
    mask = Mask(frozenset(rule.drop), frozenset(rule.hash), policy.data.key, secret(state / "keys" / "log"))
    log = SegmentLog(segments, worker, tables, rules, mask if rule.hidden else None, rule.strict)
    return log, SegmentLabels(segments, worker, tables, rules)
