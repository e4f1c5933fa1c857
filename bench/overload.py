"""python -m bench.overload [--quick] [--json]

A model that takes long, on one worker and one core; requests at a fixed rate from the other (bench.flood). First what
it carries, then 80 % of that, then ten times that for two minutes (`--quick`: 15 s), then 80 % again. The promise:
answers are as quick as before (p99 at most doubled), the rest is refused at once, memory stays flat, and it is over in
seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.serve.measure import on_core
from bench.serve.world import FEATURES, ROW, released_project

TREES = 12_000
PATH = "/v1/models/bench/predict"
ROWS = 10  # a request: so that ten times the load is no more than the machine can refuse
BODY = json.dumps({"records": [{f"f{i}": ROW[i] for i in range(FEATURES)}] * ROWS})


@dataclass(frozen=True)
class Phase:
    """What a flood got: its rate; of each status the rate and latency; memory after it."""

    rate: float
    answered: dict[str, Any]
    refused: dict[str, Any]
    broken: int
    memory_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.overload", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="15 seconds instead of two minutes")
    parser.add_argument("--json", action="store_true", help="one line of JSON on standard output")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = released_project(Path(folder), TREES)
        with _running(root) as (pid, port):
            phases = _phases(pid, port, 15 if given.quick else 120)
    _show(phases, given.json)


def _phases(pid: int, port: int, seconds: int) -> dict[str, Phase]:
    carried = max(_flood(pid, port, rate, 4).answered.get("rate", 0.0) for rate in (250, 500, 1_000, 2_000))
    return {
        "80 % of what it carries": _flood(pid, port, 0.8 * carried, 15),
        "ten times what it carries": _flood(pid, port, 10 * carried, seconds),
        "80 % again": _flood(pid, port, 0.8 * carried, 15),
    }


def _flood(pid: int, port: int, rate: float, seconds: int) -> Phase:
    command = on_core(1, [sys.executable, "-m", "bench.flood", str(port), PATH, str(rate), str(seconds)])
    told = json.loads(subprocess.run(command, input=BODY, capture_output=True, text=True, check=True).stdout)
    memory = psutil.Process(pid).memory_info().rss / 2**20
    return Phase(rate, told.get("200", {}), told.get("503", {}), told["broken"] + told["unanswered"], memory)


@contextmanager
def _running(root: Path) -> Iterator[tuple[int, int]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "homeostat", "serve", "-p", str(root), "--port", str(port), "--workers", "1"]
    with subprocess.Popen(on_core(0, command), stderr=subprocess.DEVNULL, env=dict(os.environ)) as process:
        try:
            while not _ready(port) and process.poll() is None:
                time.sleep(0.05)
            yield process.pid, port
        finally:
            process.terminate()


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _show(phases: dict[str, Phase], as_json: bool) -> None:
    before, flood, after = phases.values()
    seconds = next((s for s, p99 in enumerate(after.answered["a_second"]) if p99 < 2 * before.answered["p99_ms"]), None)
    told = {
        "phases": {name: vars(phase) for name, phase in phases.items()},
        "p99_ratio": flood.answered["p99_ms"] / before.answered["p99_ms"],
        "refused_p99_ms": flood.refused["p99_ms"],
        "memory_growth_mb": flood.memory_mb - before.memory_mb,
        "recovered_after_s": seconds,
    }
    if as_json:
        sys.stdout.write(json.dumps(told) + "\n")
        return
    sys.stdout.write(f"{'':28}{'sent/s':>9}{'200/s':>9}{'p50 ms':>9}{'p99 ms':>9}{'503/s':>9}{'p99 ms':>9}{'MB':>7}\n")
    for name, phase in phases.items():
        said = f"{name:28}{phase.rate:>9,.0f}"
        for one in (phase.answered, phase.refused):
            said += f"{one.get('rate', 0):>9,.0f}"
            said += f"{one.get('p50_ms', 0):>9.1f}" if one is phase.answered else ""
            said += f"{one.get('p99_ms', 0):>9.1f}"
        sys.stdout.write(f"{said}{phase.memory_mb:>7.0f}\n")
    sys.stdout.write(
        f"p99 of answers {told['p99_ratio']:.2f} x that at 80 %; memory {told['memory_growth_mb']:+.0f} MB; "
        f"quick again after {told['recovered_after_s']} s; broken {sum(p.broken for p in phases.values())}\n"
    )


if __name__ == "__main__":
    main()
