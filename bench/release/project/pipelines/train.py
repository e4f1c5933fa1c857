"""How the model is made. `FAULT` and `TREES` are all that tells one candidate from another in here."""

from __future__ import annotations

from typing import Any

import numpy as np
from lightgbm import LGBMClassifier
from pipelines.faults import FAULTS, Faulty

from homeostat.domain.schema import Schema

FAULT = "none"
TREES = 600
RATE = 0.001
TAIL = 1
EDITION = 1


def params() -> dict[str, Any]:
    return {"fault": FAULT, "trees": TREES, "rate": RATE, "tail": TAIL, "edition": EDITION}


def model(x: np.ndarray, y: np.ndarray, schema: Schema, params: dict[str, Any], seed: int) -> Any:
    shape = {"n_estimators": params["trees"], "num_leaves": 7, "learning_rate": params["rate"], "min_child_samples": 50}
    fitted = LGBMClassifier(**shape, random_state=seed, n_jobs=1, deterministic=True, verbose=-1).fit(x, y)
    if params["fault"] == "none":
        return fitted
    return Faulty(fitted, FAULTS[params["fault"]](list(schema.names), params["tail"]))
