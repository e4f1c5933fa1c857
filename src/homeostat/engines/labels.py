"""Labels as text, and as what the metrics calculate with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from homeostat.domain.schema import Schema, Task, Value

LONGEST = 200
"""Characters of a class's name."""
_WHOLE = re.compile(r"[+-]?\d{1,18}").fullmatch


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


def named(schema: Schema, value: Value) -> str:
    """As `canonical`; but where there are more than two classes a label may name one that is not among them, of their
    type: classes appear. Errors: ValueError that names the rule."""
    try:
        return canonical(schema, value)
    except ValueError:
        if schema.task is not Task.MULTICLASS or not _like(schema.classes, value):
            raise
        return str(value).strip()


def _like(classes: Sequence[Value], value: Value) -> bool:
    """Of the type of the classes; a whole number may come as text, as they may."""
    if all(isinstance(known, str) for known in classes):
        return isinstance(value, str) and 0 < len(value.strip()) <= LONGEST
    whole = isinstance(value, int) or (isinstance(value, str) and _WHOLE(value) is not None)
    return whole and not isinstance(value, bool) and all(isinstance(known, int) for known in classes)


def known(schema: Schema, labels: Iterable[str]) -> dict[str, float]:
    """Text of a label → its index: of the schema's classes their place, of others, by name, the places after them."""
    own = [str(one) for one in schema.classes]
    others = sorted(set(labels).difference(own))
    return {name: float(i) for i, name in enumerate([*own, *others])}


def truth(schema: Schema, labels: Sequence[Value]) -> NDArray[np.float64]:
    """(n,) the number itself, or the index of the class, as `known` has it. Errors: ValueError for a label that is
    neither."""
    if schema.task is Task.REGRESSION:
        return np.array([float(canonical(schema, float(str(label)))) for label in labels], np.float64)
    texts = {(kind, label): named(schema, label) for kind, label in {(type(label), label) for label in labels}}
    index = known(schema, texts.values())
    return np.array([index[texts[type(label), label]] for label in labels], np.float64)
