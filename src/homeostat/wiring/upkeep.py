"""The compactor of a project's logs, embedded in its state folder."""

from __future__ import annotations

from pathlib import Path

from homeostat.adapters.clock import SystemClock
from homeostat.compact import Compactor
from homeostat.domain.policy import Policy
from homeostat.services.bundles import Bundles
from homeostat.services.tallies import Tellers
from homeostat.services.upkeep import Upkeep
from homeostat.stores import sql
from homeostat.stores.archive import SegmentArchive
from homeostat.stores.blobs import FileBlobs
from homeostat.stores.days import DayTables
from homeostat.stores.health import COMPACTING, LARGE, Health
from homeostat.stores.routing import FileRouter
from homeostat.stores.tallies import Tallies
from homeostat.wiring import STATE
from homeostat.wiring.plane import database


def compactor(root: Path, policy: Policy) -> Compactor:
    state, clock = root / STATE, SystemClock()
    state.mkdir(mode=0o700, exist_ok=True)
    tables, blobs = DayTables(state / "tables"), FileBlobs(state / "blobs")
    census = Tellers(policy, FileRouter(state / "routing.json"), blobs, Bundles(blobs).load)
    archive = SegmentArchive(state / "log", tables, tallies=Tallies(state / "tables", tables), census=census)
    journal = sql.SqlJournal(sql.connect(database(state, policy)))
    failed, large = (Health(state / "log" / "compactor", cause) for cause in (COMPACTING, LARGE))
    return Compactor(Upkeep(policy, archive, journal, clock), failed.told, large.told, clock)
