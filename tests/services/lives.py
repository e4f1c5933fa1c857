"""The life of a small project whose concept turns round: what is served and labelled, and what is left of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import msgspec
import polars as pl

import projects
from homeostat.domain.bundle import Version
from homeostat.domain.dataset import ENTITY, EVENT_MS
from homeostat.domain.event import LOOK, Event
from homeostat.domain.rollout import Rollout, Route
from homeostat.domain.units import DAY_MS, HOUR_MS
from homeostat.serving.messages import Request
from homeostat.wiring.stores import Stores
from homeostat.wiring.system import System

WARMUP, DAYS, CHANGE, A_DAY = 10, 22, 13, 72
TURN_MS = 12 * HOUR_MS
START_MS = projects.START_MS + WARMUP * DAY_MS
TURNS_MS = range(START_MS, START_MS + (DAYS - WARMUP) * DAY_MS, TURN_MS)
CHANGES = {
    "margin: 0.05}": "margin: 0.5}",
    "max_hold: 3d": "max_hold: 3d, on_unknown: best_estimate, min_requests: 20",
    "10d}], cooldown: 4d": "2d}, {background: 5%}], cooldown: 1d, only_if_it_helps: true, remedies: [previous, refit]",
}
POLICY = (
    reduce(lambda text, change: text.replace(*change), CHANGES.items(), projects.POLICY) + "monitor: {rows: [100]}\n"
)


@dataclass(frozen=True)
class Outcome:
    """All that a life leaves behind, but for looks, which are told now and then."""

    journal: tuple[Event, ...]
    routes: Mapping[str, Route]
    releases: tuple[Rollout, ...]
    versions: tuple[Version, ...]

    def kinds(self) -> list[str]:
        return [event.kind for event in self.journal]


def outcome(stores: Stores, versions: Sequence[Version]) -> Outcome:
    events = tuple(event for event in stores.journal.read("cards") if event.kind != LOOK)
    return Outcome(events, stores.router.read().routes, tuple(stores.rollouts.all("cards")), tuple(versions))


def named(outcome: Outcome) -> list[str]:
    """Line by line, bundles by their runs: a bundle's report tells which steps were cached, so that its digest depends
    on a kill in the middle of the training; run, version and all that was decided do not."""
    lines = [*map(str, outcome.journal), str(outcome.routes), *map(str, outcome.releases), *map(str, outcome.versions)]
    for version in outcome.versions:
        for digest in (version.bundle, version.bundle[:12]):
            lines = [line.replace(digest, version.run) for line in lines]
    return lines


def serve(plane: System, rows: pl.DataFrame, now_ms: int) -> None:
    """The requests of half a day, each at its time, and the labels of those a day before."""
    served = rows.with_row_index("row").filter(pl.col(EVENT_MS).is_between(now_ms - TURN_MS, now_ms - 1))
    for row in served.drop(ENTITY, "fraud").iter_rows(named=True):
        plane.clock.move_to(row.pop(EVENT_MS))
        row["id"] = f"r{row.pop('row')}"
        body = {"records": [row]}
        answer = plane.engine.answer([Request("POST", "/v1/models/cards/predict", msgspec.json.encode(body))])[0]
        assert answer.status == 200, answer.body
        plane.engine.shadow()
    plane.clock.move_to(now_ms)
    until = now_ms - DAY_MS
    due = rows.with_row_index("row").filter(pl.col(EVENT_MS).is_between(until - TURN_MS, until - 1))
    labels = [{"id": f"r{row}", "label": label} for row, label in due.select("row", "fraud").iter_rows()]
    if labels:
        asked = Request("POST", "/v1/feedback", msgspec.json.encode({"labels": labels}))
        assert plane.engine.answer([asked])[0].status < 300
