"""BentoML: onnxruntime behind an array input, its quickest form of JSON. No batching (its default), access log off."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import bentoml
import numpy as np
import onnxruntime
from bentoml.validators import DType, Shape

Rows = Annotated[np.ndarray, DType("float32"), Shape((-1, 20))]


@bentoml.service(workers=int(os.environ["BENCH_WORKERS"]), logging={"access": {"enabled": False}})
class Scorer:
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        model = Path(os.environ["BENCH_MODEL"]).read_bytes()
        self.session = onnxruntime.InferenceSession(model, options)
        self.source, self.wanted = self.session.get_inputs()[0].name, [self.session.get_outputs()[-1].name]

    @bentoml.api(route="/predict")
    async def predict(self, rows: Rows) -> np.ndarray:
        return self.session.run(self.wanted, {self.source: rows})[0][:, 1]  # a thread cost more here
