"""A project whose model a stream can ask, and consumers of it in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from homeostat import codec
from homeostat.adapters.runtime import OnnxRuntime
from homeostat.domain.bundle import Bundle
from homeostat.domain.rollout import Arm, Route, Routing
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.stores.blobs import FileBlobs
from homeostat.stores.routing import FileRouter
from homeostat.wiring.plane import STATE

NAMES = tuple(f"f{i}" for i in range(20))
SCHEMA = Schema(tuple(Field(name, Kind.NUMBER) for name in NAMES), Task.BINARY, "y", ("no", "yes"))
POLICY = """
name: flow
task: binary
data: {source: rows.parquet, time: at, target: y, label_horizon: 1d}
checks: checks.schema:Rows
train: {metric: roc_auc, window: 20d, holdout: 3d}
"""


def make(root: Path, onnx: bytes) -> Path:
    """Write a project whose first version serves. → its folder."""
    root.mkdir()
    (root / "homeostat.yaml").write_text(POLICY)
    blobs = FileBlobs(root / STATE / "blobs")
    bundle = Bundle("flow", SCHEMA, 0.5, 1.0, {"model.onnx": blobs.put(onnx)}, "run", 1, 0)
    route = Route("R1", Arm(1, blobs.put(codec.encode(bundle))), None, salt="salt")
    FileRouter(root / STATE / "routing.json").publish(Routing(1, {"flow": route}))
    return root


def rows(n: int) -> NDArray[np.float64]:
    """(n, 20), no two alike, as exact in JSON as in float32."""
    return np.random.default_rng(5).integers(-2_000, 2_000, (n, len(NAMES))) / 1_024


def bodies(x: NDArray[np.float64]) -> list[bytes]:
    """One record a row."""
    return [json.dumps(dict(zip(NAMES, row, strict=True))).encode() for row in x.tolist()]


def scores(onnx: bytes, x: NDArray[np.float64]) -> Sequence[float]:
    """What the model says of them, asked by itself."""
    return OnnxRuntime().load(onnx)(x.astype(np.float32))[:, 1].tolist()


def score(answer: bytes) -> float:
    return float(json.loads(answer)["score"])


class Consumer:
    """`homeostat stream` in a process of its own."""

    def __init__(self, root: Path, source: str, sink: str, *options: str, **environment: str) -> None:
        command = (sys.executable, "-m", "homeostat", "stream", source, sink, "-p", str(root), "--json", *options)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def stop(self) -> Mapping[str, object]:
        """End it in good order, once it has begun. → its last metrics."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline()
        self.process.send_signal(signal.SIGTERM)
        said, _ = self.process.communicate()
        assert self.process.returncode == 0
        last: Mapping[str, object] = json.loads(said.splitlines()[-1])
        return last
