"""Labels as text, and as what the metrics calculate with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from homeostat.domain.schema import Schema, Task, Value


def canonical(schema: Schema, value: Value) -> str:
    """The text under which a label is stored: `str` of the class it equals, or `repr` of a finite number.

    Errors: ValueError that names the rule.
    """
    if schema.task is Task.REGRESSION:
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise ValueError("a label must be a finite number")
        return repr(float(value))
    for known in schema.classes:
        if (known == value and isinstance(known, str) == isinstance(value, str)) or str(known) == value:
            return str(known)
    raise ValueError(f"a label must be one of {', '.join(map(str, schema.classes))}")


def truth(schema: Schema, labels: Sequence[Value]) -> NDArray[np.float64]:
    """(n,) the number itself, or the index of the class. Errors: ValueError for a label that is neither."""
    if schema.task is Task.REGRESSION:
        return np.array([float(canonical(schema, float(str(label)))) for label in labels], np.float64)
    index = {str(known): float(i) for i, known in enumerate(schema.classes)}
    return np.array([index[canonical(schema, label)] for label in labels], np.float64)
