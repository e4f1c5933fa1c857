"""A bundle's model as one self-contained graph: raw fields in, answers out.

Inputs, each (n,), in the order of the schema's fields and under their names: float64 for a number, an integer or a
boolean (0 and 1), NaN for null; a text as it is, `null_text` for null. Outputs, in this order: `score` (n,) float64;
unless it is a regression, `label` (n,) text; for several classes, `scores` (n, c) float64. They are what
`engines.transform` and `engines.answer` compute, step by step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, compose, helper, load_from_string, numpy_helper

from homeostat.domain.errors import PipelineError
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.engines.answer import width
from homeostat.engines.transform import UNKNOWN

_ML, _ENCODER = "ai.onnx.ml", "LabelEncoder"
_TEXT_TO_FLOAT = 2  # the version of ai.onnx.ml from which on LabelEncoder gives floats
_AXES_AS_INPUT = 18  # the opset from which on ReduceMax takes its axes as an input


def null_text(schema: Schema) -> str:
    """Stands for null among texts: ONNX has no other. Neither it nor its double is a known text, so that a caller's
    own text that looks like it can be sent doubled: both have the code of an unknown one."""
    known = {text for field in schema.fields for text in field.vocabulary}
    text = "\uffff"
    while known & {text, text * 2}:
        text += "\uffff"
    return text


def edge_graph(schema: Schema, threshold: float, onnx: bytes) -> bytes:
    """`onnx`: the bundle's model file, one float32 input (n, k), its last output the scores. Errors: `PipelineError`
    when it can't be extended."""
    if any("\0" in text for field in schema.fields for text in field.vocabulary):
        raise PipelineError("a known text holds a NUL", way_out="Clean the column: a browser can't send it.")
    model, names = _extensible(load_from_string(onnx)), _Names(schema)
    opsets = {_ML: _TEXT_TO_FLOAT} | {opset.domain: opset.version for opset in model.opset_import}
    inner = compose.add_prefix(model, names("model/")).graph
    before, inputs = _transform(schema, names, inner.input[0].name)
    after, outputs = _answers(schema, threshold, names, inner.output[-1].name, opsets[""])
    constants = [*inner.initializer, *names.constants]
    graph = helper.make_graph([*before, *inner.node, *after], "edge", inputs, outputs, constants)
    imports = [helper.make_opsetid(*one) for one in sorted(opsets.items())]
    made = helper.make_model(graph, opset_imports=imports, ir_version=model.ir_version)
    checker.check_model(made)
    return bytes(made.SerializeToString(deterministic=True))


class _Names:
    """Names that no field has; and the constants, which need one."""

    def __init__(self, schema: Schema) -> None:
        self._fields, self._prefix, self.constants = schema.names, "edge/", list[TensorProto]()
        while any(name.startswith(self._prefix) for name in schema.names):
            self._prefix = f"_{self._prefix}"

    def __call__(self, name: str) -> str:
        return self._prefix + name

    def output(self, name: str) -> str:
        """The plain name, where no field has it."""
        while name in self._fields:
            name += "_"
        return name

    def constant(self, name: str, value: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value), self(name)))
        return self(name)


def _extensible(model: ModelProto) -> ModelProto:
    """The same model where ai.onnx.ml is new enough for `LabelEncoder` to give floats. Of the operators of version 1
    only `LabelEncoder` itself means something else since."""
    for opset in model.opset_import:
        if opset.domain == _ML and opset.version < _TEXT_TO_FLOAT:
            if any(node.op_type == _ENCODER for node in model.graph.node):
                raise PipelineError("the model holds a LabelEncoder of an old kind", way_out="Train it afresh.")
            opset.version = _TEXT_TO_FLOAT
    return model


def _transform(schema: Schema, names: _Names, wanted: str) -> tuple[list[NodeProto], list[Any]]:
    """Fields → the model's float32 matrix: see `engines.transform.codes`."""
    null, shape = null_text(schema), names.constant("one_column", np.array([-1, 1], np.int64))
    nodes, inputs, columns = list[NodeProto](), list[Any](), list[str]()
    for i, field in enumerate(schema.fields):
        code, column, text = names(f"code{i}"), names(f"column{i}"), field.kind is Kind.TEXT
        kind = TensorProto.STRING if text else TensorProto.DOUBLE
        inputs.append(helper.make_tensor_value_info(field.name, kind, ["n"]))
        nodes.append(_encoder(field, null, code) if text else _cast(field.name, code, TensorProto.FLOAT))
        nodes.append(_node("Reshape", code, shape, to=column))
        columns.append(column)
    return [*nodes, helper.make_node("Concat", columns, [wanted], axis=1)], inputs


def _encoder(field: Field, null: str, code: str) -> NodeProto:
    return _node(
        _ENCODER,
        field.name,
        to=code,
        domain=_ML,
        keys_strings=[*field.vocabulary, null],
        values_floats=[*map(float, range(len(field.vocabulary))), float("nan")],
        default_float=UNKNOWN,
    )


def _cast(source: str, target: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], to=to)


def _answers(
    schema: Schema, threshold: float, names: _Names, given: str, opset: int
) -> tuple[list[NodeProto], list[Any]]:
    """The model's output → what `engines.answer.answers` says of it."""
    score, label, scores = (names.output(name) for name in ("score", "label", "scores"))
    shape = names.constant("shape", np.array([-1, width(schema)], np.int64))
    nodes = [_cast(given, names("exact"), TensorProto.DOUBLE), _node("Reshape", names("exact"), shape, to=scores)]
    outputs = [helper.make_tensor_value_info(score, TensorProto.DOUBLE, ["n"])]
    if schema.task is Task.REGRESSION:
        return [*nodes, _column(names, scores, 0, score)], outputs
    outputs.append(helper.make_tensor_value_info(label, TensorProto.STRING, ["n"]))
    texts = names.constant("labels", np.array([str(known) for known in schema.classes], object))
    last = _node("Gather", texts, names("best"), to=label)
    if schema.task is Task.BINARY:
        nodes += [_column(names, scores, 1, score), *_reached(names, score, threshold)]
    else:
        outputs.append(helper.make_tensor_value_info(scores, TensorProto.DOUBLE, ["n", len(schema.classes)]))
        nodes += _likeliest(names, scores, score, opset)
    return [*nodes, last], outputs


def _node(kind: str, *sources: str, to: str, **how: Any) -> NodeProto:
    return helper.make_node(kind, sources, [to], **how)


def _column(names: _Names, matrix: str, number: int, target: str) -> NodeProto:
    return _node("Gather", matrix, names.constant("number", np.int64(number)), to=target, axis=1)


def _reached(names: _Names, score: str, threshold: float) -> Iterator[NodeProto]:
    """1 from the threshold on, else 0, by operators that every opset has."""
    yield _node("Less", score, names.constant("threshold", np.float64(threshold)), to=names("below"))
    yield _node("Not", names("below"), to=names("reached"))
    yield _cast(names("reached"), names("best"), TensorProto.INT64)


def _likeliest(names: _Names, scores: str, score: str, opset: int) -> Iterator[NodeProto]:
    """The first of equals, as numpy's argmax. The scores are float32 still: they lose nothing."""
    narrow = names("narrow")
    yield _cast(scores, narrow, TensorProto.FLOAT)
    yield _node("ArgMax", narrow, to=names("best"), axis=1, keepdims=0)
    if opset < _AXES_AS_INPUT:
        yield _node("ReduceMax", narrow, to=names("highest"), axes=[1], keepdims=0)
    else:
        axes = names.constant("axes", np.array([1], np.int64))
        yield _node("ReduceMax", narrow, axes, to=names("highest"), keepdims=0)
    yield _cast(names("highest"), score, TensorProto.DOUBLE)
