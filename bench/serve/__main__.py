"""python -m bench.serve [--quick] [--json]

Each server alone on one core, wrk on the other: the limit (an echo on our own stack), ours with everything on, and two
peers. `--quick` measures 64 connections only.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

HERE = Path(__file__).parent
FEATURES = 20
LEVELS = (1, 8, 64, 256)
LUA = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.body = [==[%s]==]
"""


@dataclass(frozen=True)
class Server:
    """How to start one (the port is put in), where it answers, and what it is asked."""

    name: str
    command: Sequence[str]
    path: str
    body: str


@dataclass(frozen=True)
class Measured:
    """Requests a second; 50th and 99th percentile of the latency in ms; CPU microseconds a request; MB; seconds."""

    rps: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    memory_mb: float
    start_s: float
    errors: int


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.serve", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="64 connections, 3 seconds each")
    parser.add_argument("--json", action="store_true", help="one line of JSON on standard output")
    parser.add_argument("--seconds", type=int, default=0, help="of each measurement: 3 with --quick, else 8")
    given = parser.parse_args()
    seconds, levels = given.seconds or (3 if given.quick else 8), (64,) if given.quick else LEVELS
    if shutil.which("wrk") is None:
        sys.exit("wrk is needed: apt-get install wrk")
    with tempfile.TemporaryDirectory() as folder:
        servers = list(_servers(Path(folder)))
        found = {server.name: _measured(server, levels, seconds, Path(folder)) for server in servers}
    _show(found, given.json)


def _servers(folder: Path) -> Iterator[Server]:
    """The model is trained once, by a project of ours; the peers get the same one."""
    project, onnx, native = _project(folder)
    record = {f"f{i}": round(0.1 * i - 1, 3) for i in range(FEATURES)}
    body = json.dumps({"records": [record]})
    python = sys.executable
    yield Server("echo on our stack", [python, "-m", "bench.serve.echo", "{port}"], "/", body)
    ours = [python, "-m", "homeostat", "serve", "-p", str(project), "--port", "{port}"]
    yield Server("ours", ours, "/v1/models/bench/predict", body)
    hand = [python, "-m", "bench.serve.hand", "{port}", str(onnx)]
    yield Server("FastAPI + onnxruntime, by hand", hand, "/predict", body)
    tutorial = [python, "-m", "bench.serve.tutorial", "{port}", str(native)]
    yield Server("FastAPI + pydantic + pandas", tutorial, "/predict", body)


def _project(folder: Path) -> tuple[Path, Path, Path]:
    """→ the project, whose first version is released; its ONNX file; the native model, pickled."""
    import homeostat
    from homeostat import scaffold

    rng = np.random.default_rng(1)
    x = rng.normal(size=(5_000, FEATURES))
    frame = pl.DataFrame({f"f{i}": x[:, i] for i in range(FEATURES)})
    frame = frame.with_columns(pl.Series("y", (x[:, 0] + x[:, 1] * x[:, 2] + rng.normal(size=len(x)) > 0).astype(int)))
    frame.write_parquet(folder / "rows.parquet")
    root = folder / "bench"
    scaffold.init(root, scaffold.Options(folder / "rows.parquet", "y"))
    train = root / "pipelines" / "train.py"
    train.write_text(train.read_text().replace('"num_leaves": 15', '"num_leaves": 31'))
    opened = homeostat.load(root)
    version = opened.run().version
    assert version is not None
    system = opened.system
    system.plane = system.engine
    system.control.begin()
    system.control.settle()
    manifest = system.bundles.load(version.bundle)
    onnx, native = folder / "model.onnx", folder / "model.pickle"
    onnx.write_bytes(system.bundles.file(manifest, "model.onnx"))
    import pandas as pd
    from lightgbm import LGBMClassifier

    names = [f"f{i}" for i in range(FEATURES)]
    rows = pd.DataFrame({name: frame[name].to_numpy() for name in names})
    fitted = LGBMClassifier(n_estimators=100, num_leaves=31, verbose=-1, n_jobs=1).fit(rows, frame["y"].to_numpy())
    native.write_bytes(pickle.dumps(fitted))
    return root, onnx, native


def _measured(server: Server, levels: Sequence[int], seconds: int, folder: Path) -> dict[int, Measured]:
    script = folder / "ask.lua"
    script.write_text(LUA % server.body)
    with _running(server) as (process, port, start_s):
        _wrk(port, server.path, script, 64, 1)  # warm
        return {level: _level(process, server, port, script, level, seconds, start_s) for level in levels}


def _level(
    process: subprocess.Popen[bytes], server: Server, port: int, script: Path, level: int, seconds: int, start_s: float
) -> Measured:
    before = _cpu_s(process.pid)
    said = _wrk(port, server.path, script, level, seconds)
    spent = _cpu_s(process.pid) - before
    count, rps = int(_found(r"(\d+) requests in", said)), float(_found(r"Requests/sec:\s+([\d.]+)", said))
    memory = int(_found(r"VmRSS:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())) / 1024
    errors = sum(map(int, re.findall(r"(?:responses:|connect|read|write|timeout) (\d+)", said)))
    return Measured(rps, _ms(said, "50%"), _ms(said, "99%"), 1e6 * spent / count, memory, start_s, errors)


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        sys.exit(f"nothing like {pattern} in:\n{text}")
    return match[1]


def _ms(said: str, percentile: str) -> float:
    value = _found(rf"{percentile}\s+([\d.]+[mu]?s)", said)
    unit = value.lstrip("0123456789.")
    return float(value.removesuffix(unit)) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def _wrk(port: int, path: str, script: Path, connections: int, seconds: int) -> str:
    address = f"http://127.0.0.1:{port}{path}"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), address]
    return subprocess.run(_on_core(1, command), capture_output=True, text=True, check=True).stdout


def _on_core(core: int, command: Sequence[str]) -> list[str]:
    alone = (os.cpu_count() or 1) > 1 and shutil.which("taskset") is not None
    return ["taskset", "-c", str(core), *command] if alone else list(command)


@contextmanager
def _running(server: Server) -> Iterator[tuple[subprocess.Popen[bytes], int, float]]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = _on_core(0, [part.replace("{port}", str(port)) for part in server.command])
    begun = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _until_it_answers(process, server, port)
            yield process, port, time.monotonic() - begun
        finally:
            process.kill()


def _until_it_answers(process: subprocess.Popen[bytes], server: Server, port: int) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{server.path}", server.body.encode(), {"content-type": "application/json"}
    )
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                response.read()
            return
        except OSError:
            time.sleep(0.02)
    sys.exit(f"{server.name} does not answer")


def _cpu_s(pid: int) -> float:
    parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")


def _show(found: dict[str, dict[int, Measured]], as_json: bool) -> None:
    at = {name: levels[64].rps for name, levels in found.items()}
    peers = {name: rps for name, rps in at.items() if name not in ("ours", "echo on our stack")}
    best = max(peers, key=lambda name: peers[name])
    summary = {
        "ours_rps": at["ours"],
        "best_peer": best,
        "ours_vs_best_peer": at["ours"] / peers[best],
        "ours_vs_echo": at["ours"] / at["echo on our stack"],
        "levels": {name: {level: vars(one) for level, one in levels.items()} for name, levels in found.items()},
    }
    if as_json:
        sys.stdout.write(json.dumps(summary) + "\n")
        return
    names = ("conns", "req/s", "p50 ms", "p99 ms", "CPU us", "MB", "start s", "errors")
    lines = [" " * 32 + "".join(f"{name:>9}" for name in names)]
    for name, levels in found.items():
        for level, one in levels.items():
            row = f"{level:>9}{one.rps:>9,.0f}{one.p50_ms:>9.2f}{one.p99_ms:>9.2f}{one.cpu_us:>9.1f}"
            lines.append(f"{name:32}{row}{one.memory_mb:>9.0f}{one.start_s:>9.2f}{one.errors:>9}")
    lines.append(
        f"ours is {summary['ours_vs_best_peer']:.1f} x {best} and {100 * summary['ours_vs_echo']:.0f} % of echo, "
        "at 64 connections"
    )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
