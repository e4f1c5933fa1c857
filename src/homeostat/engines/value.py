"""What answers were worth, as the policy says it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from homeostat.domain.gate import Measurement
from homeostat.domain.schema import Schema
from homeostat.engines import metrics
from homeostat.engines.answer import decided

Array = NDArray[np.float64]


def worth(schema: Schema, threshold: float, y: Array, output: Array, values: Mapping[str, float]) -> Array:
    """(n,) the value of each answer: y (n,) the truth, output (n, c); `values` as `domain.policy.VALUED` names them for
    the task, 0 for those that are not named."""
    said = dict(values)
    if "unit_of_error" in said:
        return np.asarray(said["unit_of_error"] * np.abs(output[:, 0] - y))
    _, answered = decided(schema, threshold, output)
    right = answered == y
    if said.keys() <= {"right", "wrong"}:
        return np.where(right, said.get("right", 0.0), said.get("wrong", 0.0))
    positive = np.where(right, said.get("true_positive", 0.0), said.get("false_positive", 0.0))
    negative = np.where(right, said.get("true_negative", 0.0), said.get("false_negative", 0.0))
    return np.where(answered == 1, positive, negative)


def mean(values: Array) -> Measurement:
    """A mean a row, with its 95 % interval; rows in order of time."""
    return metrics.interval("value", lambda rows: float(values[rows].mean()), len(values))
