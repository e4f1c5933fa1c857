"""What answers were worth, as the policy says."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.errors import PipelineError
from homeostat.domain.schema import Schema
from homeostat.engines.value import worth
from homeostat.ports import Code

Array = NDArray[np.float64]


def worths(
    value: Mapping[str, float] | str,
    code: Code,
    threshold: float,
    schema: Schema,
    frame: pl.DataFrame,
    y: Array,
    output: Array,
) -> Array | None:
    """(n,) from `monitor.value`, the inputs, the truth (n,) and the output (n, c); None where the policy does not say.
    Errors: `PipelineError`."""
    if not value or not len(y):
        return None
    if not isinstance(value, str):
        return worth(schema, threshold, y, output, value)
    module, _, name = value.partition(":")
    found = getattr(code.module(module), name, None)
    if found is None:
        where, way_out = "homeostat.yaml: monitor.value", "Write module:name."
        raise PipelineError(f"there is no {name!r} in {module}", where=where, way_out=way_out)
    try:
        with code.at_home():
            made = np.asarray(found(y, output, frame), np.float64)
    except Exception as error:  # whatever it raises is the user's to see
        what = f"{value} failed on {len(y):,} answers: {type(error).__name__}: {error}"
        raise PipelineError(what, where=code.place(error)) from error
    if made.shape != y.shape:
        raise PipelineError(f"{value} made {made.shape} values of {len(y)} answers", where=value)
    wrong = np.flatnonzero(~np.isfinite(made))
    if len(wrong):
        seen = ", ".join(f"{name} {of!r}" for name, of in frame.row(int(wrong[0]), named=True).items())
        raise PipelineError(f"{value} made {made[wrong[0]]} of an answer with {seen}", where=value)
    return made
