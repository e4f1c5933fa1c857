"""Validation as arrays: ranges, finiteness and allowed texts of a whole tick at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import le

import numpy as np
from numpy.typing import NDArray

from homeostat.domain.schema import Field, Schema, Value

_LISTED = 10
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Fault:
    """The first rule that a row breaks."""

    field: str
    rule: str
    message: str


def every(flags: NDArray[np.bool_]) -> bool:
    """`flags.all()`, in a fifth of the time where they are few."""
    return b"\0" not in flags.tobytes()


class Limits:
    """What the schema allows, prepared for `faults`."""

    def __init__(self, schema: Schema) -> None:
        self._fields = schema.fields
        self._low = np.array([-np.inf if field.low is None else field.low for field in schema.fields])
        self._high = np.array([np.inf if field.high is None else field.high for field in schema.fields])
        self._floor, self._ceiling = np.maximum(self._low, -_LARGEST), np.minimum(self._high, _LARGEST)
        self._least, self._most = self._floor.tolist(), self._ceiling.tolist()
        self._texts = {field: frozenset((*field.values, None)) for field in schema.fields if field.values is not None}

    def sound(self, x: NDArray[np.float64]) -> bool:
        """No null, and no number that breaks a rule: so it is nearly always. `x`: see `faults`."""
        if len(x) == 1:  # a third of the time
            row = x[0].tolist()
            return all(map(le, self._least, row)) and all(map(le, row, self._most))
        return every((x >= self._floor) & (x <= self._ceiling))

    def kept(self, texts: Mapping[str, Sequence[Value]], columns: Sequence[NDArray[np.float64]]) -> bool:
        """No row of many breaks a rule: a look at the smallest and largest number of each of the k columns, and at
        the `texts` that a column has. What it leaves open `faults` says row by row."""
        low, high = (np.array([extreme.reduce(column) for column in columns]) for extreme in (np.fmin, np.fmax))
        with np.errstate(over="ignore"):
            finite = not np.isinf(np.array([low, high], np.float32)).any()
        within = not ((low < self._low) | (high > self._high)).any()
        return finite and within and all(allowed.issuperset(texts[one.name]) for one, allowed in self._texts.items())

    def faults(
        self,
        columns: Mapping[str, Sequence[Value]],
        x: NDArray[np.float64],
        narrow: NDArray[np.float32],
        sound: bool = False,
    ) -> dict[int, Fault]:
        """Row → its first fault. `x` is (n, k) as exact as sent, `narrow` the same as the model sees it: a number too
        big for it is infinite there. NaN stands for null, which decoding has allowed already. `sound`: see there."""
        found: dict[int, Fault] = {}
        if not sound:
            bad = np.isinf(narrow) | (x < self._low) | (x > self._high)
            for row, column in zip(*(axis.tolist() for axis in np.nonzero(bad)), strict=True):
                found.setdefault(row, _number_fault(self._fields[column], float(x[row, column])))
        for field, allowed in self._texts.items():
            if not allowed.issuperset(columns[field.name]):
                for row, value in enumerate(columns[field.name]):
                    if value not in allowed:
                        found.setdefault(row, _fault(field, rules(field)["values"]))
        return found


def rules(field: Field) -> dict[str, str]:
    """What may be sent, in words, as far as it is bounded: `low`, `high`, `values`."""
    told = {}
    if field.low is not None:
        told["low"] = f"at least {field.low:g}"
    if field.high is not None:
        told["high"] = f"at most {field.high:g}"
    if field.values is not None:
        told["values"] = f"one of {', '.join(_listed(field.values))}"
    return told


def _number_fault(field: Field, value: float) -> Fault:
    bound = "low" if field.low is not None and value < field.low else "high"
    beyond = bound == "low" or (field.high is not None and value > field.high)
    return _fault(field, rules(field)[bound] if beyond else "finite")


def _fault(field: Field, rule: str) -> Fault:
    return Fault(field.name, rule, f"{field.name} must be {rule}")


def _listed(values: Sequence[str]) -> Iterator[str]:
    texts = sorted(set(values))
    yield from texts[:_LISTED]
    if len(texts) > _LISTED:
        yield f"{len(texts) - _LISTED} more"
