"""How slow "slow" is here: rounds of the slow candidate's second model, so that a large amount takes `TIMES` the
champion's 99th percentile."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import polars as pl
from onnx import TensorProto, helper, numpy_helper

import homeostat
from bench.release.callers import FIELDS
from bench.release.project.pipelines.faults import OPSET, Slow
from homeostat.adapters.runtime import OnnxRuntime
from homeostat.domain.prediction import Role

TIMES = 3
ROUNDS = 400


def rounds(root: Path) -> int:
    """By all answers of the champion so far: as a release that starts now takes its limit."""
    system = homeostat.load(root).system
    champion = system.stores.router.read().routes[system.policy.name].champion.version
    log = system.stores.log.read(system.policy.name, 0, 2**62)
    mine = log.filter((pl.col("role") == Role.ANSWER.value) & (pl.col("version") == champion))
    return max(round(TIMES * float(np.quantile(mine["model_us"].to_numpy(), 0.99)) / _round_us()), 1)


def _round_us() -> float:
    """Microseconds that one round takes on this machine."""
    graph = Slow(list(FIELDS), ROUNDS).graph()
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, len(FIELDS)])]
    outputs = [helper.make_tensor_value_info("second", TensorProto.FLOAT, [None])]
    kept = [numpy_helper.from_array(np.asarray(value), name) for name, value in graph.constants.items()]
    made = helper.make_graph(graph.nodes, "slow", inputs, outputs, kept)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    call = OnnxRuntime().load(model.SerializeToString())
    x, took = np.full((1, len(FIELDS)), 1_000, np.float32), []
    for _ in range(9):
        started = time.perf_counter()
        call(x)
        took.append(time.perf_counter() - started)
    return min(took) * 1e6 / ROUNDS
