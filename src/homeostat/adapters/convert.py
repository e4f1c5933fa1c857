"""A fitted estimator as an ONNX model: one float input, probabilities (or the value) as its last output."""

from __future__ import annotations

import re
import warnings
from copy import copy
from typing import Any

import numpy as np

from homeostat.adapters.runtime import ROWWISE
from homeostat.domain.errors import PipelineError

_NAME = "model"  # the converters' own names are random: the same model must give the same bytes
_THRESHOLDS = re.compile(r"^threshold=(.*)$", re.MULTILINE)
_ROWWISE = frozenset({"TreeEnsembleClassifier", "TreeEnsembleRegressor", "Identity", "Cast", "Mul", "Add", "Sub"})
"""Operators that take a row at a time: no sum of theirs goes over rows, nor is it ordered by how many there are."""
_SIZES = re.compile(r"^tree_sizes=.*\n", re.MULTILINE)  # bytes a tree; LightGBM finds the trees without them too


class OnnxConverter:
    """`ports.Converter`: LightGBM through onnxmltools, scikit-learn through skl2onnx."""

    def __call__(self, estimator: Any, features: int) -> bytes:
        family = type(estimator).__module__.split(".")[0]
        convert = _lightgbm if family == "lightgbm" else _sklearn
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the converters' own calls to deprecated functions
                return convert(estimator, features)
        except Exception as error:  # any failure of a converter is a property of the user's model
            raise PipelineError(
                f"{type(estimator).__name__} can't be converted to ONNX: {str(error).strip().splitlines()[0]}",
                way_out="Use a LightGBM or a scikit-learn estimator that skl2onnx knows.",
            ) from error


def _lightgbm(estimator: Any, features: int) -> bytes:
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    shape = [("x", FloatTensorType([None, features]))]
    extra = {"zipmap": False} if hasattr(estimator, "classes_") else {}
    model = convert_lightgbm(_in_float32(estimator), name=_NAME, initial_types=shape, **extra)
    return canonical(_with_open_batch(model))


def _in_float32(estimator: Any) -> Any:
    """The same model with each threshold rounded down to a float32: a float32 is at most the one exactly when it is at
    most the other. ONNX holds thresholds as float32, and would round them to the nearest, up as often as down."""
    from lightgbm import Booster

    text = _SIZES.sub("", _THRESHOLDS.sub(_rounded, estimator.booster_.model_to_string()))
    twin = copy(estimator)
    twin._Booster = Booster(model_str=text)
    return twin


def _rounded(line: re.Match[str]) -> str:
    exact = np.array([float(one) for one in line[1].split()])
    near = exact.astype(np.float32)
    down = np.where(near > exact, np.nextafter(near, np.float32(-np.inf)), near)
    return "threshold=" + " ".join(f"{one:.17g}" for one in down.astype(np.float64).tolist())


def _sklearn(estimator: Any, features: int) -> bytes:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    options = {id(estimator): {"zipmap": False}} if hasattr(estimator, "classes_") else None
    model = to_onnx(estimator, name=_NAME, initial_types=[("x", FloatTensorType([None, features]))], options=options)
    return canonical(model)


def _with_open_batch(model: Any) -> Any:
    """onnxmltools declares the label's shape as [1]; without the declaration onnxruntime takes any batch quietly."""
    for output in model.graph.output:
        for dimension in output.type.tensor_type.shape.dim[:1]:
            dimension.Clear()
    return model


def canonical(model: Any) -> bytes:
    """The same in every process: the converters list the operator sets that a model needs in the order of a set of
    texts, which each process of Python hashes anew, and some of them twice. Says of itself whether it is `ROWWISE`."""
    from onnx.helper import set_model_props

    needed = {one.domain: one for one in sorted(model.opset_import, key=lambda one: one.version)}
    del model.opset_import[:]
    model.opset_import.extend(needed[domain] for domain in sorted(needed))
    if all(node.op_type in _ROWWISE for node in model.graph.node):
        set_model_props(model, {ROWWISE: "true"})
    return bytes(model.SerializeToString())
