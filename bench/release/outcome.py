"""What became of each candidate, put together from the record of its release, the log, and what callers heard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import homeostat
from bench.release import peers, rows
from bench.release.callers import Callers
from bench.release.candidates import CANDIDATES, QUICK, SLOW, UNFORESEEN, Candidate, project, train
from bench.release.foreseen import Foreseen, foresee
from bench.release.live import RATE, Ended, Up, calling, running
from bench.release.tail import rounds
from homeostat.domain.prediction import Role
from homeostat.wiring.system import System

WARM_S = 5.0
RECORD_S = 20.0
"""So long requests and labels are recorded, for the backtests."""
MOST_S = 1_500.0
"""For all of it."""


@dataclass(frozen=True)
class Outcome:
    """`stopped_by`: the lane or "hard stop", "" when it was promoted. `answered`: rows that callers got from the
    candidate; `rescued`: rows that it failed on, and the champion answered; `caller_errors`: requests that got no
    usable answer, but for `shed`: refused because too many were waiting."""

    candidate: str
    expected: str
    version: int
    status: str
    stopped_by: str
    reason: str
    after_s: float
    answered: int
    rescued: int
    caller_errors: int
    first_errors: tuple[str, ...]
    shed: int
    tail_ratio: float
    foreseen: Foreseen
    peers: Mapping[str, peers.Verdict]
    as_it_should: bool

    @property
    def foretold(self) -> bool:
        """The backtest named the culprit before; of what it can't know it says so."""
        if self.candidate == UNFORESEEN:
            return any("memory" in line for line in self.foreseen.cannot_know)
        return self.expected in self.foreseen.harm if self.expected else not self.foreseen.harm

    def json(self) -> dict[str, Any]:
        return asdict(self)


async def all_of(folder: Path, quick: bool, tell: Callable[[str], None]) -> list[Outcome]:
    """Train, release, look. `tell`: what happens meanwhile."""
    root = project(folder, "4s" if quick else "8s")
    chosen = [one for one in CANDIDATES if one.name in QUICK or not quick]
    intervals = peers.INTERVALS // 3 if quick else peers.INTERVALS
    async with running(root) as up, calling(up, MOST_S) as callers:
        callers.labels = False  # what was labelled would be learned from, and the faults found in training
        await asyncio.sleep(WARM_S)
        versions = {one.name: await asyncio.to_thread(train, root, one) for one in chosen if one.name != SLOW}
        callers.labels = True
        await asyncio.sleep(RECORD_S)
        lived = [await _released(up, callers, one, versions, seed, tell) for seed, one in enumerate(chosen)]
    system = homeostat.load(root).system
    seen = enumerate(zip(chosen, lived, strict=True))
    return [_outcome(system, one, *life, seed, intervals) for seed, (one, life) in seen]


async def _released(
    up: Up, callers: Callers, candidate: Candidate, versions: Mapping[str, int], seed: int, tell: Callable[[str], None]
) -> tuple[Foreseen, Ended]:
    """Backtested, then released. The slow one is made at the last moment: how slow it has to be depends on how busy
    the machine is."""
    if candidate.name == SLOW:
        tail = {"TAIL": await asyncio.to_thread(rounds, up.root)}
        sized = replace(candidate, settings={**candidate.settings, **tail})
        version = await asyncio.to_thread(train, up.root, sized)
    else:
        version = versions[candidate.name]
    foreseen = await asyncio.to_thread(foresee, up.root, version)
    ended = await up.release(version, callers, seed)
    tell(f"{candidate.name}: {ended.record['status']} after {ended.took_s:.1f} s")
    if candidate.lane and ended.record["status"] == "promoted":
        await up.take_back(ended.record["id"])  # so that the next ones meet the same champion
    return foreseen, ended


def _outcome(
    system: System, candidate: Candidate, foreseen: Foreseen, ended: Ended, seed: int, intervals: int
) -> Outcome:
    record = ended.record
    log = system.stores.log.read("cards", record["started_ms"], record["ended_ms"] + 60_000)
    log = log.filter(pl.col("release") == record["id"])
    version, stopped = record["candidate"]["number"], record["status"] != "promoted"
    by = _lane(record["reason"]) if stopped else ""
    mine = log.filter(pl.col("version") == version)
    as_it_should = by == candidate.lane and candidate.says in record["reason"] and not ended.heard.wrong
    return Outcome(
        candidate.name,
        candidate.lane,
        version,
        record["status"],
        by,
        record["reason"],
        ended.took_s,
        len(mine.filter((pl.col("role") == Role.ANSWER.value) & (pl.col("status") == "ok"))),
        len(mine.filter(pl.col("role") == Role.FAILED.value)),
        len(ended.heard.wrong),
        ended.heard.wrong[:3],
        ended.heard.shed,
        _tails(log, version),
        foreseen,
        _peers(system, ended, log, seed, intervals),
        as_it_should and (stopped == bool(candidate.lane)),
    )


def _lane(reason: str) -> str:
    """The first lane that the reason names, else it was a hard stop."""
    name = reason.partition(":")[0]
    return name if name in ("errors", "slow", "quality", "segments") else "hard stop"


def _tails(log: pl.DataFrame, version: int) -> float:
    """The candidate's 99th percentile over the champion's, of calls that answered while both did."""
    calls = log.filter((pl.col("role") == Role.ANSWER.value) & pl.col("weight").is_between(1, 9_999))
    mine, theirs = (calls.filter((pl.col("version") == version) == own)["model_us"].to_numpy() for own in (True, False))
    return float(np.quantile(mine, 0.99) / np.quantile(theirs, 0.99)) if len(mine) and len(theirs) else float("nan")


def _peers(system: System, ended: Ended, log: pl.DataFrame, seed: int, intervals: int) -> Mapping[str, peers.Verdict]:
    record = ended.record
    known = peers.recorded(log, record["candidate"]["number"], record["started_ms"])
    bundles = record["champion"]["bundle"], record["candidate"]["bundle"]
    begin_s = float(known["at_s"].to_numpy().max(initial=0.0))
    count = round((intervals * peers.INTERVAL_S - begin_s) * RATE)
    more = peers.went_on(system.stores.blobs, bundles, rows.live(seed), max(count, 0), RATE, begin_s)
    champion = known.filter(~pl.col("candidate"))["us"].to_numpy()
    limit_us = 2 * float(np.quantile(champion, 0.99)) if len(champion) else float("inf")
    return peers.verdicts(pl.concat([known, more]), limit_us)
