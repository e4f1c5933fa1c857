"""python -m bench.batch [--quick] [--json]

Five million rows of 20 columns in one Parquet file, scored by `homeostat predict`, beside the limit: the same model on
rows that are in memory already, onnxruntime alone, 1,024 rows a call, a thread a core. In turns; the median counts.
Memory at a fifth of the rows tells whether it is flat. `--quick`: a tenth of the rows, one turn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl

from bench.serve.world import FEATURES, NAMES, make

ROWS, TURNS, AT_ONCE = 5_000_000, 3, 1_024
_CHUNK = 500_000
_WATCHED = """
import atexit, re, runpy, sys, time
told, module, sys.argv = sys.argv[1], sys.argv[2], sys.argv[2:]
def tell():
    peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
    open(told, "w").write(f"{time.process_time()} {peak}")
atexit.register(tell)
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
"""The kernel's own count for a finished child begins with the memory of its parent."""


@dataclass(frozen=True)
class Ran:
    """One process: wall and CPU time in seconds, peak resident memory in MB."""

    seconds: float
    cpu_s: float
    peak_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.batch", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, one turn")
    parser.add_argument("--json", action="store_true", help="one line of JSON on standard output")
    parser.add_argument("--limit", nargs=2, metavar=("ONNX", "ROWS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.limit:
        return _limit(Path(given.limit[0]), int(given.limit[1]))
    rows, turns = (ROWS // 10, 1) if given.quick else (ROWS, TURNS)
    with tempfile.TemporaryDirectory() as folder:
        found = _measured(Path(folder), rows, turns)
    _show(found, given.json)
    return None


def _measured(folder: Path, rows: int, turns: int) -> dict[str, object]:
    world = make(folder)
    for name, n in (("all", rows), ("fifth", rows // 5)):
        _write(folder / f"{name}.parquet", n)
    limit, ours = [], []
    for turn in range(turns):
        limit.append(_run("bench.batch", "--limit", world.onnx, rows))
        ours.append(_predict(world.root, folder / "all.parquet", folder / f"out-{turn}"))
    fifth = _predict(world.root, folder / "fifth.parquet", folder / "out-fifth")
    delta = _predict(world.root, folder / "all.parquet", f"delta://{folder}/out-delta")
    log = _predict(world.root, folder / "fifth.parquet", folder / "out-log", "--log")
    seconds = [statistics.median(ran.seconds for ran in several) for several in (limit, ours)]
    cpu = [statistics.median(ran.cpu_s for ran in several) for several in (limit, ours)]
    return {
        "rows": rows,
        "limit_s": seconds[0],
        "ours_s": seconds[1],
        "ours_vs_limit": round(seconds[1] / seconds[0], 3),
        "cpu_vs_limit": round(cpu[1] / cpu[0], 3),
        "rows_per_second": round(rows / seconds[1]),
        "peak_mb": max(ran.peak_mb for ran in ours),
        "peak_mb_at_a_fifth": fifth.peak_mb,
        "a_fifth": asdict(fifth),
        "to_delta": asdict(delta),
        "a_fifth_logged": asdict(log),
    }


def _write(path: Path, rows: int) -> None:
    """A chunk at a time: making the rows must not need more memory than scoring them."""
    rng = np.random.default_rng(7)

    def chunk(n: int) -> pl.DataFrame:
        return pl.DataFrame({name: rng.normal(size=n) for name in NAMES})

    parts = path.with_suffix("")
    parts.mkdir()
    for start in range(0, rows, _CHUNK):
        chunk(min(_CHUNK, rows - start)).write_parquet(parts / f"{start:09d}.parquet")
    pl.scan_parquet(parts / "*.parquet").sink_parquet(path)


def _predict(root: Path, source: Path, out: Path | str, *options: str) -> Ran:
    return _run("homeostat", "predict", source, out, "-p", root, *options)


def _run(*arguments: object) -> Ran:
    started = time.perf_counter()
    with tempfile.NamedTemporaryFile("r") as told:
        command = [sys.executable, "-c", _WATCHED, told.name, *map(str, arguments)]
        if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
            sys.exit(f"failed: {' '.join(map(str, arguments))}")
        cpu, peak = told.read().split()
    return Ran(round(time.perf_counter() - started, 2), round(float(cpu), 2), round(int(peak) / 1_024, 1))


def _limit(onnx: Path, rows: int) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(onnx.read_bytes(), options, providers=["CPUExecutionProvider"])
    given, wanted = session.get_inputs()[0].name, [session.get_outputs()[-1].name]
    x = np.random.default_rng(7).normal(size=(200 * AT_ONCE, FEATURES)).astype(np.float32)

    def call(number: int) -> None:
        start = number * AT_ONCE % len(x)
        session.run(wanted, {given: x[start : start + AT_ONCE]})

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(call, range(rows // AT_ONCE)):
            pass


def _show(found: dict[str, object], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(found) + "\n")
    for name, value in () if as_json else found.items():
        sys.stdout.write(f"{name:20} {value}\n")


if __name__ == "__main__":
    main()
