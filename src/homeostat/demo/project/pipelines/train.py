"""How the model is made. A function's name is what it makes, its parameters are what it needs."""

from typing import Any

import numpy as np
import polars as pl
from lightgbm import LGBMClassifier

HALF_LIFE_DAYS = 1.0
DAY_MS = 86_400_000


def params() -> dict[str, Any]:
    return {"n_estimators": 60, "learning_rate": 0.1, "num_leaves": 7}


def weights(train: pl.DataFrame) -> np.ndarray:
    """Newer payments count more: fraud changes its ways."""
    age_days = (train["__event_ms"][-1] - train["__event_ms"].to_numpy()) / DAY_MS
    return np.asarray(np.power(0.5, age_days / HALF_LIFE_DAYS))


def model(x: np.ndarray, y: np.ndarray, weights: np.ndarray, params: dict[str, Any], seed: int) -> LGBMClassifier:
    made = LGBMClassifier(**params, random_state=seed, n_jobs=1, deterministic=True, verbose=-1)
    return made.fit(x, y, sample_weight=weights)
