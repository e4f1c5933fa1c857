"""python -m bench.judging [LABELS]

What a pass costs that judges a release with so many labels (a million): answers of 30 days, a tenth by the candidate,
each scored by the other version too, its label a day later. CPU seconds.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl

from homeostat.domain.bundle import Bundle
from homeostat.domain.prediction import Role
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.domain.units import DAY_MS
from homeostat.engines.judge import Judge, judge
from homeostat.engines.lanes import Case, Findings, Side

SCHEMA = Schema((Field("x", Kind.NUMBER),), Task.BINARY, "y", ("no", "yes"))
BUNDLE = Bundle("price", SCHEMA, 0.5, 1.0, {}, "run", 0, 0)
CASE = Case(Side(1, BUNDLE), Side(2, BUNDLE), 1_000, 400, 0.005, DAY_MS, 0)
PASS = 1_000


def life(n: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """→ log and labels, in order of time."""
    rng = np.random.default_rng(0)
    ids = pl.Series("id", [f"w-{i:x}" for i in range(n)])
    at, mine = np.arange(n) * (30 * DAY_MS // n), rng.random(n) < 0.1
    arm = np.where(mine, "candidate", "champion")
    sides = [
        pl.DataFrame({"id": ids, "at_ms": at, "arm": arm}).with_columns(
            key=pl.lit(None, pl.String),
            version=pl.lit(version, pl.Int64),
            role=pl.Series(np.where(answers, Role.ANSWER.value, Role.SHADOW.value)),
            weight=pl.lit(CASE.weight, pl.Int64),
            status=pl.Series(np.where(rng.random(n) < 0.001, "error", "ok")),
            model_us=pl.Series(rng.integers(50, 500, n)),
            score=pl.Series(rng.random(n)),
            scores=pl.lit(None, pl.List(pl.Float64)),
        )
        for version, answers in ((1, ~mine), (2, mine))
    ]
    told = np.where(rng.random(n) < 0.5, "yes", "no")
    labels = pl.DataFrame({"id": ids, "label": told, "at_ms": at + DAY_MS})
    return pl.concat(sides).sort("at_ms", maintain_order=True), labels


def say(name: str, work: Callable[[], Findings]) -> Findings:
    began = time.process_time()
    found = work()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(f"{name:40} {time.process_time() - began:6.2f} s, peak {memory:,.0f} MB\n")
    return found


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    log, labels = life(n)
    kept, every = Judge(), 30 * DAY_MS // n * PASS

    def one(judging: Callable[[Case, pl.DataFrame, pl.DataFrame], Findings], now_ms: int) -> Callable[[], Findings]:
        seen, told = log.filter(pl.col("at_ms") < now_ms), labels.filter(pl.col("at_ms") <= now_ms)
        return lambda: judging(replace(CASE, now_ms=now_ms), seen, told)

    end = 31 * DAY_MS
    say("all at once", one(judge, end))
    say("the first pass", one(kept.judge, end - 3 * every))
    for left in (2, 1, 0):
        found = say(f"a pass later, {PASS:,} labels more", one(kept.judge, end - left * every))
    assert found == judge(replace(CASE, now_ms=end), log, labels)


if __name__ == "__main__":
    main()
