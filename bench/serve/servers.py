"""Who takes part, and how each is started: as its own documents advise for production, so that the race is fair.

One worker on one core, then two workers in each one's own way. Batching stays as each has it by default (all: off): the
load is single rows, and the products' batchers wait for more. Access logs are off for all: printing them is not the
work at hand; ours writes its prediction log all the same, since that is part of an answer. uvloop and httptools are in
every environment, though MLflow and BentoML do not ask for them: uvicorn is quicker with them. Metrics stay on where
they are by default. OMP_NUM_THREADS is 1 for all: threads would fight for the one core.

MLflow: `mlflow models serve` with a signature (without one it warns, and checks nothing); `inputs`, which was quicker
here than `dataframe_split` and `dataframe_records`. MLServer: its LightGBM runtime, V2 JSON; as it comes, with a pool
of one process beside the one that speaks HTTP, and (`mlserver0`) without the pool, which is quicker on one core, and
keeps it to one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.serve.environments import PEERS, programs
from bench.serve.measure import Server, Unable
from bench.serve.world import NAMES, ROW, World

_RECORDS = json.dumps({"records": [dict(zip(NAMES, ROW, strict=True))]})
_ROWS = json.dumps({"rows": [ROW]})
_INPUTS = json.dumps({"inputs": {name: [value] for name, value in zip(NAMES, ROW, strict=True)}})
_V2 = json.dumps({"inputs": [{"name": "x", "shape": [1, len(ROW)], "datatype": "FP32", "data": ROW}]})
_OURS = "/v1/models/bench/predict"


def _score(said: Any) -> float:
    return float(said["predictions"][0]["score"])


def _echo(*_: object) -> Server:
    command = [sys.executable, "-m", "bench.serve.echo", "{port}", "{workers}"]
    return Server("echo", command, "/", _RECORDS, None)


def _ours(world: World, _: Path) -> Server:
    command = [sys.executable, "-m", "homeostat", "serve", "-p", str(world.root), "--port", "{port}"]
    return Server("ours", [*command, "--workers", "{workers}"], _OURS, _RECORDS, _score)


def _unlogged(world: World, _: Path) -> Server:
    command = [sys.executable, "-m", "bench.serve.unlogged", str(world.root), "{port}"]
    return Server("unlogged", command, _OURS, _RECORDS, _score)


def _hand(world: World, _: Path) -> Server:
    env = {"BENCH_MODEL": str(world.onnx)}
    return Server("hand", _uvicorn("hand"), "/predict", _RECORDS, _score, env)


def _tutorial(world: World, _: Path) -> Server:
    env = {"BENCH_MODEL": str(world.text)}
    return Server("tutorial", _uvicorn("tutorial"), "/predict", _RECORDS, _score, env)


def _uvicorn(module: str) -> list[str]:
    quiet = ["--log-level", "error", "--no-access-log"]
    return [
        sys.executable,
        "-m",
        "uvicorn",
        f"bench.serve.{module}:app",
        "--port",
        "{port}",
        "--workers",
        "{workers}",
        *quiet,
    ]


def _mlflow(world: World, folder: Path) -> Server:
    bin_, model = programs("mlflow"), folder / "mlflow-model"
    saved = [bin_ / "python", PEERS / "mlflow_model.py", world.text, model]
    done = subprocess.run(saved, capture_output=True, text=True, check=False, env=_env(bin_))
    if done.returncode:
        raise Unable(f"it can't save the model: {done.stderr[-300:]}")
    command = [str(bin_ / "mlflow"), "models", "serve", "-m", str(model), "-h", "127.0.0.1", "-p", "{port}"]
    command += ["--env-manager", "local", "-w", "{workers}"]
    env = _env(bin_) | {"UVICORN_ACCESS_LOG": "false", "UVICORN_LOG_LEVEL": "error"}
    return Server("mlflow", command, "/invocations", _INPUTS, lambda said: float(said["predictions"][0]), env)


def _bentoml(world: World, _: Path) -> Server:
    bin_ = programs("bentoml")
    command = [str(bin_ / "bentoml"), "serve", "bento_service:Scorer", "--working-dir", str(PEERS)]
    command += ["--host", "127.0.0.1", "--port", "{port}"]
    env = _env(bin_) | {"BENCH_MODEL": str(world.onnx), "BENCH_WORKERS": "{workers}", "BENTOML_DO_NOT_TRACK": "true"}
    return Server("bentoml", command, "/predict", _ROWS, lambda said: float(said[0]), env)


def _litserve(world: World, _: Path) -> Server:
    bin_ = programs("litserve")
    command = [str(bin_ / "python"), str(PEERS / "lit_server.py"), "{port}"]
    env = _env(bin_) | {"BENCH_MODEL": str(world.onnx), "BENCH_WORKERS": "{workers}"}
    return Server("litserve", command, "/predict", _RECORDS, _score, env)


def _mlserver(world: World, folder: Path) -> Server:
    home = folder / "mlserver"
    home.mkdir(exist_ok=True)
    parameters = {"uri": str(world.text), "version": "1"}
    implementation = "mlserver_lightgbm.LightGBMModel"
    settings = {"name": "bench", "implementation": implementation, "parameters": parameters}
    (home / "model-settings.json").write_text(json.dumps(settings))
    bin_ = programs("mlserver")
    env = _env(bin_) | {
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_HTTP_PORT": "{port}",
        "MLSERVER_GRPC_PORT": "{other}",
        "MLSERVER_METRICS_PORT": "{third}",
        "MLSERVER_METRICS_DIR": str(home),
        "MLSERVER_PARALLEL_WORKERS": "{workers}",
        "MLSERVER_DEBUG": "false",
    }
    command = [str(bin_ / "mlserver"), "start", str(home)]
    return Server("mlserver", command, "/v2/models/bench/infer", _V2, _tensor, env)


def _mlserver_inline(world: World, folder: Path) -> Server:
    pooled = _mlserver(world, folder)
    env = {**pooled.env, "MLSERVER_PARALLEL_WORKERS": "0"}
    return replace(pooled, key="mlserver0", env=env)


def _tensor(said: Any) -> float:
    return float(said["outputs"][0]["data"][0])


def _env(bin_: Path) -> dict[str, str]:
    """What belongs to our interpreter is not for theirs."""
    return {"PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": "", "MLFLOW_DISABLE_TELEMETRY": "true"}


SERVERS: Mapping[str, Callable[[World, Path], Server]] = {
    "echo": _echo,
    "ours": _ours,
    "unlogged": _unlogged,
    "hand": _hand,
    "tutorial": _tutorial,
    "mlflow": _mlflow,
    "bentoml": _bentoml,
    "litserve": _litserve,
    "mlserver": _mlserver,
    "mlserver0": _mlserver_inline,
}
"""How to make each ready: it gets the model and a folder of its own. Errors: `Unable`."""

TITLES = {
    "echo": "echo on our stack",
    "ours": "ours",
    "unlogged": "ours, its log dropped",
    "hand": "FastAPI + onnxruntime, by hand",
    "tutorial": "FastAPI + pydantic + pandas",
    "mlflow": "MLflow",
    "bentoml": "BentoML + onnxruntime",
    "litserve": "LitServe + onnxruntime",
    "mlserver": "MLServer",
    "mlserver0": "MLServer, no pool",
}

PRODUCTS = ("tutorial", "mlflow", "bentoml", "litserve", "mlserver")
"""`best_peer` is the quickest of these: the products as they ship, and the framework server that tutorials show.
MLServer with its pool switched off (`TUNED`) and the skilled hand's are compared by themselves."""
TUNED = "mlserver0"
