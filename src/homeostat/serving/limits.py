"""Validation as arrays: ranges, finiteness and allowed texts of a whole tick at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homeostat.domain.schema import Field, Schema, Value

_LISTED = 10


@dataclass(frozen=True, slots=True)
class Fault:
    """The first rule that a row breaks."""

    field: str
    rule: str
    message: str


class Limits:
    """What the schema allows, prepared for `faults`."""

    def __init__(self, schema: Schema) -> None:
        self._fields = schema.fields
        self._low = np.array([-np.inf if field.low is None else field.low for field in schema.fields])
        self._high = np.array([np.inf if field.high is None else field.high for field in schema.fields])
        self._texts = {f.name: frozenset((*f.values, None)) for f in schema.fields if f.values is not None}

    def faults(
        self, columns: Mapping[str, Sequence[Value]], x: NDArray[np.float64], narrow: NDArray[np.float32]
    ) -> dict[int, Fault]:
        """Row → its first fault. `x` is (n, k) as exact as sent, `narrow` the same as the model sees it: a number too
        big for it is infinite there. NaN stands for null, which decoding has allowed already."""
        bad = (x < self._low) | (x > self._high) | np.isinf(narrow)
        found: dict[int, Fault] = {}
        if bad.any():
            for row, column in zip(*(axis.tolist() for axis in np.nonzero(bad)), strict=True):
                found.setdefault(row, _number_fault(self._fields[column], float(x[row, column])))
        for name, allowed in self._texts.items():
            if not allowed.issuperset(columns[name]):
                for row, value in enumerate(columns[name]):
                    if value not in allowed:
                        found.setdefault(row, _text_fault(name, allowed))
        return found


def _number_fault(field: Field, value: float) -> Fault:
    if field.low is not None and value < field.low:
        rule = f"at least {field.low:g}"
    elif field.high is not None and value > field.high:
        rule = f"at most {field.high:g}"
    else:
        rule = "finite"
    return Fault(field.name, rule, f"{field.name} must be {rule}")


def _text_fault(name: str, allowed: frozenset[str | None]) -> Fault:
    rule = f"one of {', '.join(_listed(allowed))}"
    return Fault(name, rule, f"{name} must be {rule}")


def _listed(allowed: frozenset[str | None]) -> Iterator[str]:
    texts = sorted(text for text in allowed if text is not None)
    yield from texts[:_LISTED]
    if len(texts) > _LISTED:
        yield f"{len(texts) - _LISTED} more"
