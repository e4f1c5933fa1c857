"""Save the model for MLflow, with a signature, as it advises. Arguments: LightGBM's text file, the folder to make."""

from __future__ import annotations

import sys

import lightgbm
import mlflow
import pandas as pd

if __name__ == "__main__":
    booster = lightgbm.Booster(model_file=sys.argv[1])
    rows = pd.DataFrame([[0.5] * 20], columns=[f"f{i}" for i in range(20)])
    booster.params["num_threads"] = 1
    signature = mlflow.models.infer_signature(rows, booster.predict(rows))
    mlflow.lightgbm.save_model(booster, sys.argv[2], signature=signature, pip_requirements=["lightgbm", "mlflow"])
