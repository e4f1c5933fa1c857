"""A peer: FastAPI, pydantic and pandas as tutorials have it, with the native model."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import uvicorn
from fastapi import FastAPI
from pydantic import create_model

app = FastAPI()
model = pickle.loads(Path(sys.argv[2]).read_bytes())  # written by the benchmark itself
NAMES = [f"f{i}" for i in range(20)]
Record = create_model("Record", **dict.fromkeys(NAMES, (float, ...)))
Request = create_model("Request", records=(list[Record], ...))


@app.post("/predict")
def predict(request: Request) -> dict[str, Any]:
    frame = pd.DataFrame([record.model_dump() for record in request.records])[NAMES]
    return {"predictions": [{"score": float(row[1])} for row in model.predict_proba(frame)]}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False)
