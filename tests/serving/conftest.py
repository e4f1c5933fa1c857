"""Real models, made once."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))


def _data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2_000, 20)).astype(np.float32)
    return x, (x[:, 0] + x[:, 1] * x[:, 2] + rng.normal(size=2_000) > 0).astype(int)


@pytest.fixture(scope="session")
def lightgbm_onnx() -> bytes:
    """100 trees over 20 features, two classes."""
    import lightgbm
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType

    x, y = _data()
    model = lightgbm.LGBMClassifier(n_estimators=100, n_jobs=1, verbose=-1, random_state=1).fit(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        onnx = onnxmltools.convert_lightgbm(model, initial_types=[("x", FloatTensorType([None, 20]))], zipmap=False)
    return bytes(onnx.SerializeToString())


@pytest.fixture(scope="session")
def linear_onnx() -> bytes:
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.linear_model import LogisticRegression

    x, y = _data()
    model = LogisticRegression().fit(x, y)
    types = [("x", FloatTensorType([None, 20]))]
    onnx = skl2onnx.convert_sklearn(model, initial_types=types, options={"zipmap": False})
    return bytes(onnx.SerializeToString())
