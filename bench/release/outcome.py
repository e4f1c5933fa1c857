"""What became of each candidate, put together from the record of its release, the log, and what callers heard."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from onnx import TensorProto, helper, numpy_helper

import homeostat
from bench.release import candidates as all_candidates
from bench.release import peers, rows
from bench.release.callers import FIELDS, Callers
from bench.release.candidates import Candidate
from bench.release.live import RATE, Ended, Up, calling, running
from bench.release.project.pipelines.faults import Slow
from homeostat.adapters.runtime import OnnxRuntime
from homeostat.domain.prediction import Role
from homeostat.wiring.system import System

WARM_S = 5.0
ROUNDS = 400
TAIL = 3
"""Times the champion's p99: what the slow candidate takes for a large amount."""


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
    shed: int
    tail_ratio: float
    peers: Mapping[str, peers.Verdict]
    as_it_should: bool

    def json(self) -> dict[str, Any]:
        return asdict(self)


async def all_of(folder: Path, only: Collection[str] | None = None) -> list[Outcome]:
    """Train, release, look. `only`: names of candidates; None: all."""
    root = all_candidates.project(folder)
    async with running(root) as up, calling(up, 1_500) as callers:
        callers.labels = False  # so that no training learns from rows of the warm-up
        await asyncio.sleep(WARM_S)
        chosen = [one for one in _candidates(root) if only is None or one.name in only]
        versions = [await asyncio.to_thread(all_candidates.train, root, one) for one in chosen]
        callers.labels = True
        ended = [await up.release(version, callers, seed) for seed, version in enumerate(versions)]
    system = homeostat.load(root).system
    return [_outcome(system, one, end, i) for i, (one, end) in enumerate(zip(chosen, ended, strict=True))]


def _candidates(root: Path) -> tuple[Candidate, ...]:
    """With a slow one that is slow against this champion, here."""
    log = homeostat.load(root).system.stores.log.read("cards", 0, 2**62)
    p99 = float(np.quantile(log.filter(pl.col("role") == Role.ANSWER.value)["model_us"].to_numpy(), 0.99))
    return all_candidates.candidates(max(round(TAIL * p99 / round_us()), 1))


def round_us() -> float:
    """Microseconds that one round of the slow candidate takes on this machine."""
    fault = Slow(list(FIELDS), ROUNDS)
    graph = fault.graph()
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, len(FIELDS)])]
    outputs = [helper.make_tensor_value_info("second", TensorProto.FLOAT, [None])]
    kept = [numpy_helper.from_array(np.asarray(value), name) for name, value in graph.constants.items()]
    made = helper.make_graph(graph.nodes, "slow", inputs, outputs, kept)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    call = OnnxRuntime().load(model.SerializeToString())
    x, took = np.full((1, len(FIELDS)), 1_000, np.float32), []
    for _ in range(9):
        started = time.perf_counter()
        call(x)
        took.append(time.perf_counter() - started)
    return float(np.median(took)) * 1e6 / ROUNDS


def _outcome(system: System, candidate: Candidate, ended: Ended, seed: int) -> Outcome:
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
        ended.heard.shed,
        _tails(log, version),
        _peers(system, ended, log, seed),
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


def _peers(system: System, ended: Ended, log: pl.DataFrame, seed: int) -> Mapping[str, peers.Verdict]:
    record = ended.record
    known = peers.recorded(log, record["candidate"]["number"], record["started_ms"])
    bundles = record["champion"]["bundle"], record["candidate"]["bundle"]
    begin_s = float(known["at_s"].to_numpy().max(initial=0.0))
    asked = round(begin_s * RATE)
    more = peers.went_on(system.stores.blobs, bundles, rows.live(seed), asked, RATE, begin_s)
    champion = known.filter(~pl.col("candidate"))["us"].to_numpy()
    limit_us = 2 * float(np.quantile(champion, 0.99)) if len(champion) else float("inf")
    return peers.verdicts(pl.concat([known, more]), limit_us)
