"""A fitted estimator as an ONNX model: one float input, probabilities (or the value) as its last output."""

from __future__ import annotations

import warnings
from typing import Any

from homeostat.domain.errors import PipelineError


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
    model = convert_lightgbm(estimator, initial_types=shape, **extra)
    return bytes(_with_open_batch(model).SerializeToString())


def _sklearn(estimator: Any, features: int) -> bytes:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    options = {id(estimator): {"zipmap": False}} if hasattr(estimator, "classes_") else None
    model = to_onnx(estimator, initial_types=[("x", FloatTensorType([None, features]))], options=options)
    return bytes(model.SerializeToString())


def _with_open_batch(model: Any) -> Any:
    """onnxmltools declares the label's shape as [1]; without the declaration onnxruntime takes any batch quietly."""
    for output in model.graph.output:
        for dimension in output.type.tensor_type.shape.dim[:1]:
            dimension.Clear()
    return model
