"""What other rules would have done with the same callers: two fixed thresholds and a Mann-Whitney judge.

They look at the candidate's arm as a proxy sees it: an exception or a timeout is a 500, a NaN is a 200. They get the
prediction log of the release and, where Homeostat ended that, the rows that the same callers would have sent on, scored
by the same bundles at 10 %. An interval of `INTERVAL_S` stands for their minute (80 requests a second: 40 rows of the
candidate in each); `INTERVALS` of them are all they get.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import polars as pl

from bench.release.callers import FIELDS
from homeostat.adapters.clock import SystemClock
from homeostat.adapters.runtime import OnnxRuntime
from homeostat.domain.prediction import Role
from homeostat.engines.routing import assign
from homeostat.ports import Blobs
from homeostat.serving.bundles import Loaded, Shelf
from homeostat.serving.score import attempt, gather

INTERVAL_S = 5.0
INTERVALS = 30
WEIGHT = 1_000
SEEN_AS_500 = ("error", "timeout")
CALLS = pl.Schema({"at_s": pl.Float64, "candidate": pl.Boolean, "status": pl.String, "us": pl.Int64})


@dataclass(frozen=True)
class Verdict:
    """Of one rule. `after_s` None: it let the candidate through. `rows`: those that the candidate had got by then,
    `bad`: of which without a usable answer; nobody else answers them there."""

    after_s: float | None
    rows: int
    bad: int


def verdicts(calls: pl.DataFrame, limit_us: float) -> Mapping[str, Verdict]:
    """`calls`: columns `CALLS`, the whole time; `limit_us`: what a person would have written as the p99 to keep."""
    points = list(_points(calls))
    rules: Mapping[str, Callable[[Sequence[Point]], bool]] = {
        "Flagger": lambda seen: flagger(seen, limit_us),
        "Argo": argo,
        "Kayenta": kayenta,
    }
    return {name: _first(rule, points) for name, rule in rules.items()}


@dataclass(frozen=True)
class Point:
    """One interval: (candidate's, champion's) success rates, mean and p99 latency (us); rows so far."""

    end_s: float
    success: tuple[float, float]
    mean_us: tuple[float, float]
    p99_us: tuple[float, float]
    rows: int
    bad: int


def flagger(seen: Sequence[Point], limit_us: float) -> bool:
    """A check an interval: success at least 99 %, p99 at most the limit; the fifth that fails rolls back.
    Source: docs.flagger.app/usage/metrics (min: 99) and the canaries of its tutorials (interval: 1m, threshold: 5)."""
    return sum(point.success[0] < 0.99 or point.p99_us[0] > limit_us for point in seen) >= 5


def argo(seen: Sequence[Point]) -> bool:
    """Success at least 95 %; more failed measurements than `failureLimit: 3` abort.
    Source: argo-rollouts, docs/features/analysis.md, the first example."""
    return sum(point.success[0] < 0.95 for point in seen) > 3


def kayenta(seen: Sequence[Point]) -> bool:
    """A score of 100 times the share of metrics that pass; below 75 (marginal) the canary fails. A metric does not pass
    when the 98 % interval of the Hodges-Lehmann shift of its points lies beyond a quarter of its estimate.
    Source: spinnaker/kayenta, NetflixACAJudge and MannWhitneyClassifier. For success, mean and p99 of latency, in the
    direction that hurts."""
    metrics = [[(1 - a, 1 - b) for a, b in (point.success for point in seen)]]
    metrics += [[point.mean_us for point in seen], [point.p99_us for point in seen]]
    passed = [not _higher([mine for mine, _ in one], [theirs for _, theirs in one]) for one in metrics]
    return 100 * sum(passed) / len(passed) < 75


def _higher(mine: Sequence[float], theirs: Sequence[float], z: float = 2.326) -> bool:
    """The interval of the shift by the normal approximation of the rank sum (Hollander & Wolfe 1999, 4.3)."""
    n, m = len(mine), len(theirs)
    shifts = np.sort(np.subtract.outer(np.array(mine), np.array(theirs)), axis=None)
    place = int(np.floor(n * m / 2 - z * np.sqrt(n * m * (n + m + 1) / 12)))
    return bool(place >= 1 and shifts[place - 1] > 0.25 * abs(np.median(shifts)))


def _first(rule: Callable[[Sequence[Point]], bool], points: Sequence[Point]) -> Verdict:
    for i, point in enumerate(points):
        if rule(points[: i + 1]):
            return Verdict(point.end_s, point.rows, point.bad)
    last = points[-1]
    return Verdict(None, last.rows, last.bad)


def _points(calls: pl.DataFrame) -> Iterator[Point]:
    """Intervals in which both arms had rows."""
    rows = bad = 0
    for number in range(round(float(calls["at_s"].to_numpy().max(initial=0)) // INTERVAL_S) + 1):
        part = calls.filter((pl.col("at_s") // INTERVAL_S).cast(pl.Int64) == number)
        arms = [part.filter("candidate"), part.filter(~pl.col("candidate"))]
        rows += len(arms[0])
        bad += len(arms[0].filter(pl.col("status") != "ok"))
        if not (len(arms[0]) and len(arms[1])):
            continue
        success = [1 - float(np.mean(arm["status"].is_in(SEEN_AS_500).to_numpy())) for arm in arms]
        us = [arm["us"].to_numpy() for arm in arms]
        mean, p99 = [float(one.mean()) for one in us], [float(np.quantile(one, 0.99)) for one in us]
        end_s = (number + 1) * INTERVAL_S
        yield Point(end_s, (success[0], success[1]), (mean[0], mean[1]), (p99[0], p99[1]), rows, bad)


def recorded(log: pl.DataFrame, version: int, started_ms: int) -> pl.DataFrame:
    """Of the log of a release: what each arm was asked while both answered. A row that the candidate failed on counts
    as that, not as what the champion made of it."""
    split = log.filter(pl.col("weight").is_between(1, 9_999))
    tried = pl.col("role").is_in([Role.ANSWER.value, Role.FAILED.value]) & (pl.col("version") == version)
    others = (pl.col("role") == Role.ANSWER.value) & (pl.col("arm") == "champion")
    return (
        split.filter(tried | others)
        .select(
            at_s=(pl.col("at_ms") - started_ms) / 1_000,
            candidate=pl.col("version") == version,
            status="status",
            us="model_us",
        )
        .cast(dict(CALLS))
    )


def went_on(
    blobs: Blobs, bundles: tuple[str, str], rows: Iterator[dict[str, Any]], count: int, rate: float, begin_s: float
) -> pl.DataFrame:
    """What follows `begin_s`: the next `count` rows of the same callers, scored by (champion, candidate) at 10 %."""
    shelf = Shelf(blobs, OnnxRuntime())
    champion, candidate = (_loaded(shelf, bundle) for bundle in bundles)
    told = []
    for i, row in enumerate(islice(rows, round(begin_s * rate), round(begin_s * rate) + count)):
        mine = bool(assign("peers", [row["card"]])[0] < WEIGHT)
        status, us = _call(candidate if mine else champion, row)
        told.append((begin_s + i / rate, mine, status, us))
    return pl.DataFrame(told, CALLS, orient="row")


def _call(loaded: Loaded, row: dict[str, Any]) -> tuple[str, int]:
    batch = gather(loaded, [tuple(row[name] for name in loaded.schema.names)], ["p"], [None])
    made = attempt(loaded, np.arange(1), batch.x.__getitem__, SystemClock())
    return ("ok" if made.good.all() else made.status), made.us


def _loaded(shelf: Shelf, bundle: str) -> Loaded:
    loaded = shelf.load(bundle)
    assert loaded is not None, shelf.reason(bundle)
    assert set(loaded.schema.names) == set(FIELDS)
    return loaded
