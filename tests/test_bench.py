"""The race runs, and says of a peer that can't be installed why it is missing. Needs wrk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from needs import program

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_race_with_a_peer_that_cannot_be_installed(tmp_path: Path) -> None:
    program("wrk", "wrk")
    env = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    command = [sys.executable, "-m", "bench.serve", "--only", "echo", "ours", "litserve", "--quick", "--seconds", "1"]
    done = subprocess.run([*command, "--json"], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found["failed"]) == {"litserve"}
    assert "can't be installed" in found["failed"]["litserve"]
    assert set(found["levels"]) == {"echo", "ours"}
    for levels in found["levels"].values():
        assert levels["workers_1"]["64"]["errors"] == 0
    assert found["ours_rps"] == levels["workers_1"]["64"]["rps"] > 0
    assert found["best_peer"] is None
    assert found["stages"]["rows"] >= 1
    assert all(us > 0 for us in found["stages"]["us"].values())
