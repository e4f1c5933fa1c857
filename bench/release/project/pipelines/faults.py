"""Models that pass every test on the history, and fail on rows that the history does not hold.

Each is a LightGBM model blended with 2 % of a second score, an ONNX graph made by hand. It is that graph that throws,
gives NaN, takes long, or takes memory. skl2onnx asks an `OnnxOperatorMixin` for its graph itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from skl2onnx.algebra.onnx_operator_mixin import OnnxOperatorMixin
from sklearn.base import BaseEstimator

from homeostat.adapters.convert import OnnxConverter

BLEND = np.float32(0.02)
OPSET = 17


@dataclass
class Graph:
    """Nodes that make `second` (n, 1) from `x` (n, k)."""

    nodes: list[Any]
    constants: dict[str, np.ndarray]


class Fault:
    """A second score by the column of one field."""

    field: str

    def __init__(self, names: list[str], tail: int) -> None:
        self.at, self.tail, self.names = names.index(self.field), tail, names

    def score(self, x: np.ndarray) -> np.ndarray:
        """(n, k) → (n,)"""
        raise NotImplementedError

    def graph(self) -> Graph:
        raise NotImplementedError

    def column(self, name: str, at: int | None = None) -> tuple[Any, dict[str, np.ndarray]]:
        """A node that makes the field's column `name` (n,)."""
        index = np.int64(self.at if at is None else at)
        return helper.make_node("Gather", ["x", f"{name}_at"], [name], axis=1), {f"{name}_at": np.asarray(index)}


class Throws(Fault):
    """A rate by country. A country that is not given has the number after the last, and the table no row for it."""

    field = "country"
    table = np.array([0.2, 0.4, 0.6, 0.3], np.float32)

    def score(self, x: np.ndarray) -> np.ndarray:
        code = x[:, self.at]
        return self.table[np.where(np.isnan(code), len(self.table), code).astype(np.int64)]

    def graph(self) -> Graph:
        column, constants = self.column("code")
        nodes = [
            column,
            helper.make_node("IsNaN", ["code"], ["absent"]),
            helper.make_node("Where", ["absent", "after_last", "code"], ["place"]),
            helper.make_node("Cast", ["place"], ["index"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "index"], ["second"]),
        ]
        return Graph(nodes, {**constants, "table": self.table, "after_last": np.float32(len(self.table))})


class Nan(Fault):
    """The mean amount of earlier orders: 0 / 0 for who never ordered."""

    field = "spent"

    def score(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return 1 / (1 + np.exp(-(x[:, self.at] / x[:, self.names.index("orders")] / 50)))

    def graph(self) -> Graph:
        (spent, one), (orders, other) = self.column("spent"), self.column("orders", self.names.index("orders"))
        nodes = [
            spent,
            orders,
            helper.make_node("Div", ["spent", "orders"], ["mean"]),
            helper.make_node("Div", ["mean", "fifty"], ["scaled"]),
            helper.make_node("Sigmoid", ["scaled"], ["second"]),
        ]
        return Graph(nodes, {**one, **other, "fifty": np.float32(50)})


class Slow(Fault):
    """Large amounts are looked at by a second, large model; it takes `tail` rounds."""

    field = "amount"
    large = np.float32(95)
    side = 96

    def score(self, x: np.ndarray) -> np.ndarray:
        return np.where(x[:, self.at] > self.large, np.float32(0.5), np.float32(0.25))

    def graph(self) -> Graph:
        column, constants = self.column("amount")
        side = np.full((self.side, self.side), 1 / self.side, np.float32)
        nodes = [
            column,
            helper.make_node("Greater", ["amount", "large"], ["is_large"]),
            helper.make_node("Cast", ["is_large"], ["flags"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMax", ["flags"], ["flag"], keepdims=0),
            helper.make_node("Cast", ["flag"], ["any"], to=TensorProto.BOOL),
            helper.make_node("If", ["any"], ["deep"], then_branch=self._deep(), else_branch=_constant("shallow", 0.5)),
            helper.make_node("Where", ["is_large", "deep", "quarter"], ["second"]),
        ]
        named = {"large": self.large, "quarter": np.float32(0.25), "side": side, "rounds": np.asarray(self.tail)}
        return Graph(nodes, {**constants, **named, "half": np.full((self.side, self.side), 0.5, np.float32)})

    def _deep(self) -> Any:
        """Rounds of a matrix product that keeps every entry at a half."""
        shape, kind = [self.side, self.side], TensorProto.FLOAT
        body = helper.make_graph(
            [
                helper.make_node("MatMul", ["state", "side"], ["next"]),
                helper.make_node("Identity", ["go_on"], ["still"]),
            ],
            "round",
            [
                helper.make_tensor_value_info("i", TensorProto.INT64, []),
                helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
                helper.make_tensor_value_info("state", kind, shape),
            ],
            [
                helper.make_tensor_value_info("still", TensorProto.BOOL, []),
                helper.make_tensor_value_info("next", kind, shape),
            ],
        )
        nodes = [
            helper.make_node("Loop", ["rounds", "", "half"], ["last"], body=body),
            helper.make_node("ReduceMean", ["last"], ["deep_out"], keepdims=0),
        ]
        return helper.make_graph(nodes, "deep", [], [helper.make_tensor_value_info("deep_out", kind, [])])


class Leaks(Fault):
    """Every 40th visit builds a table with a row for each visit before. The runtime keeps what it once took."""

    field = "visits"
    every, width = np.float32(40), 4_096

    def score(self, x: np.ndarray) -> np.ndarray:
        return np.full(len(x), 0.5, np.float32)

    def graph(self) -> Graph:
        column, constants = self.column("visits")
        nodes = [
            column,
            helper.make_node("Mod", ["visits", "every"], ["rest"], fmod=1),
            helper.make_node("Equal", ["rest", "nought"], ["due"]),
            helper.make_node("Where", ["due", "visits", "nought"], ["counted"]),
            helper.make_node("ReduceMax", ["counted"], ["most"], keepdims=1),
            helper.make_node("Cast", ["most"], ["rows"], to=TensorProto.INT64),
            helper.make_node("Concat", ["rows", "width"], ["shape"], axis=0),
            helper.make_node("ConstantOfShape", ["shape"], ["table"]),
            helper.make_node("ReduceSum", ["table"], ["sum"], keepdims=0),
            helper.make_node("Sigmoid", ["sum"], ["half"]),
            helper.make_node("Mul", ["visits", "nought"], ["blank"]),
            helper.make_node("Add", ["blank", "half"], ["second"]),
        ]
        named = {"every": self.every, "nought": np.float32(0), "width": np.array([self.width], np.int64)}
        return Graph(nodes, {**constants, **named})


FAULTS = {"throws": Throws, "nan": Nan, "slow": Slow, "leaks": Leaks}


class Faulty(BaseEstimator, OnnxOperatorMixin):
    """(1 - BLEND) of a fitted model's probability and BLEND of the fault's score."""

    def __init__(self, fitted: Any, fault: Fault) -> None:
        self.fitted, self.fault = fitted, fault

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        p = (1 - BLEND) * self.fitted.predict_proba(x)[:, 1] + BLEND * self.fault.score(x)
        return np.stack([1 - p, p], axis=1)

    def to_onnx(self, name: str | None = None, **_: Any) -> Any:
        base = onnx.load_from_string(OnnxConverter()(self.fitted, len(self.fault.names)))
        graph = self.fault.graph()
        constants = {"blend": BLEND, "rest_of": 1 - BLEND, "one": np.float32(1), "second_at": np.asarray(1)}
        constants |= {"upright": np.array([-1, 1])} | graph.constants
        nodes = [
            *base.graph.node,
            *graph.nodes,
            helper.make_node("Gather", [base.graph.output[-1].name, "second_at"], ["first"], axis=1),
            helper.make_node("Mul", ["first", "rest_of"], ["mine"]),
            helper.make_node("Mul", ["second", "blend"], ["its"]),
            helper.make_node("Add", ["mine", "its"], ["p_flat"]),
            helper.make_node("Reshape", ["p_flat", "upright"], ["p"]),
            helper.make_node("Sub", ["one", "p"], ["not_p"]),
            helper.make_node("Concat", ["not_p", "p"], ["both"], axis=1),
        ]
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, len(self.fault.names)])]
        outputs = [helper.make_tensor_value_info("both", TensorProto.FLOAT, [None, 2])]
        kept = [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()]
        made = helper.make_graph(nodes, name or "model", inputs, outputs, [*base.graph.initializer, *kept])
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", 3)]
        return helper.make_model(made, opset_imports=opsets, ir_version=8)


def _constant(name: str, value: float) -> Any:
    out = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, [])
    node = helper.make_node("Constant", [], [f"{name}_out"], value_float=value)
    return helper.make_graph([node], name, [], [out])
