from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from homeostat.adapters.runtime import KeptModels, OnnxRuntime
from homeostat.domain.errors import Corrupt
from homeostat.ports import Model


def doubled(columns: int | None) -> bytes:
    """y = 2 x, of shape (n, columns) or (n,)."""
    shape = ["n", 1]
    nodes = [helper.make_node("Add", ["x", "x"], ["z"])]
    one = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    nodes.append(
        helper.make_node("Squeeze", ["z", "axes"], ["y"])
        if columns is None
        else helper.make_node("Identity", ["z"], ["y"])
    )
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    target = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"] if columns is None else shape)
    graph = helper.make_graph(nodes, "doubled", [source], [target], [one] if columns is None else [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("columns", [None, 1])
@pytest.mark.parametrize("rows", [0, 1, 2, 7])
def test_values_come_as_one_column(columns: int | None, rows: int) -> None:
    x = np.arange(rows, dtype=np.float32).reshape(rows, 1)
    output = OnnxRuntime().load(doubled(columns))(x)
    assert (output.dtype, output.shape) == (np.float64, (rows, 1))
    assert output.tolist() == (2 * x).tolist()


def test_what_is_not_a_model() -> None:
    with pytest.raises(Corrupt, match="can't be loaded"):
        OnnxRuntime().load(b"nonsense")


class Counted:
    """A runtime whose files are names: it notes what it loads."""

    def __init__(self) -> None:
        self.loaded: list[bytes] = []

    def load(self, onnx: bytes) -> Model:
        if onnx == b"bad":
            raise Corrupt("no model")
        self.loaded.append(onnx)
        return lambda x: x.astype(np.float64) * len(onnx)


@pytest.mark.parametrize("limits", [{"most": 2}, {"room": 8}])
def test_the_models_asked_for_last_are_kept_where_there_is_room(limits: dict[str, int]) -> None:
    runtime = Counted()
    kept = KeptModels(runtime, **limits)
    assert kept.load(b"one") is kept.load(b"one")
    kept.load(b"two")
    kept.load(b"one")
    kept.load(b"six")
    assert runtime.loaded == [b"one", b"two", b"six"]
    kept.load(b"one")
    kept.load(b"two")
    assert runtime.loaded == [b"one", b"two", b"six", b"two"]


def test_a_model_larger_than_the_room_is_not_kept() -> None:
    runtime = Counted()
    kept = KeptModels(runtime, room=8)
    for _ in range(2):
        assert kept.load(b"too large")(np.ones((1, 1), np.float32)).tolist() == [[9.0]]
    assert runtime.loaded == 2 * [b"too large"]


def test_what_is_not_a_model_is_not_kept() -> None:
    kept = KeptModels(Counted())
    for _ in range(2):
        with pytest.raises(Corrupt, match="no model"):
            kept.load(b"bad")
