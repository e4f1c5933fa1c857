"""Bad candidates under load, on real processes: each is stopped by what should stop it, and no caller notices."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from bench.release.peers import CALLS, INTERVAL_S, INTERVALS, Verdict, verdicts

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_bad_candidates_are_stopped_and_an_identical_one_is_promoted() -> None:
    command = [sys.executable, "-m", "bench.release", "--quick", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 releases ended as they should" in done.stderr
    throws, nan, identical = json.loads(done.stdout)
    assert (throws["stopped_by"], nan["stopped_by"], identical["status"]) == ("errors", "hard stop", "promoted")
    assert [one["caller_errors"] for one in (throws, nan, identical)] == [0, 0, 0]
    assert throws["rescued"] > 0
    assert nan["answered"] + throws["answered"] < identical["answered"]
    assert set(identical["peers"]) == {"Flagger", "Argo", "Kayenta"}
    assert identical["peers"]["Argo"]["after_s"] is None


def arms(bad: str, share: float, times: float) -> pl.DataFrame:
    """A tenth of 80 calls a second to a candidate that is `bad` on a share, and takes so many times as long."""
    rng, n = np.random.default_rng(1), round(80 * INTERVALS * INTERVAL_S)
    candidate = rng.random(n) < 0.1
    status = np.where(candidate & (rng.random(n) < share), bad, "ok")
    us = (rng.gamma(20, 10, n) * np.where(candidate, times, 1)).astype(np.int64)
    return pl.DataFrame({"at_s": np.arange(n) / 80, "candidate": candidate, "status": status, "us": us}, CALLS)


@pytest.mark.parametrize(
    ("calls", "stopped"),
    [
        (arms("ok", 0, 1), set()),
        (arms("error", 0.2, 1), {"Flagger", "Argo", "Kayenta"}),
        (arms("nonfinite", 0.2, 1), set()),  # a 200
        (arms("ok", 0, 3), {"Flagger", "Kayenta"}),
    ],
)
def test_what_the_rules_of_others_see(calls: pl.DataFrame, stopped: set[str]) -> None:
    found = verdicts(calls, 500)
    assert {name for name, verdict in found.items() if verdict.after_s is not None} == stopped
    mine = calls.filter("candidate")
    for verdict in found.values():
        until = mine.filter(pl.col("at_s") < (verdict.after_s or INTERVALS * INTERVAL_S))
        assert verdict == Verdict(verdict.after_s, len(until), len(until.filter(pl.col("status") != "ok")))
