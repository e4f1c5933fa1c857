"""A peer: FastAPI, pydantic and pandas as tutorials have it. BENCH_MODEL: the model as LightGBM writes it."""

from __future__ import annotations

import os
from typing import Any

import lightgbm
import pandas as pd
from fastapi import FastAPI
from pydantic import create_model

app = FastAPI()
model = lightgbm.Booster(model_file=os.environ["BENCH_MODEL"])
NAMES = [f"f{i}" for i in range(20)]
Record = create_model("Record", **dict.fromkeys(NAMES, (float, ...)))
Request = create_model("Request", records=(list[Record], ...))


@app.post("/predict")
def predict(request: Request) -> dict[str, Any]:
    frame = pd.DataFrame([record.model_dump() for record in request.records])[NAMES]
    return {"predictions": [{"score": float(score)} for score in model.predict(frame, num_threads=1)]}
