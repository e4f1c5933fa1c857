"""A peer: FastAPI and onnxruntime by a skilled hand; arrays, one session, no pandas. BENCH_MODEL: the ONNX file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime
from fastapi import Body, FastAPI

app = FastAPI()
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(Path(os.environ["BENCH_MODEL"]).read_bytes(), options)
source, wanted = session.get_inputs()[0].name, [session.get_outputs()[-1].name]
NAMES = [f"f{i}" for i in range(20)]


@app.post("/predict")
async def predict(body: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
    rows = np.array([[record[name] for name in NAMES] for record in body["records"]], np.float32)
    scores = session.run(wanted, {source: rows})[0][:, 1]
    return {"predictions": [{"score": float(score)} for score in scores]}
