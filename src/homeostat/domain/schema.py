"""What a model takes in and what it answers: the contract of every request and every training row."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

Value = str | int | float | bool | None
NO_VALUE = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")
"""Texts that stand for null in a column of numbers or booleans."""


class Kind(StrEnum):
    """The type of a field, as a request must send it."""

    NUMBER = "number"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    TEXT = "text"


class Task(StrEnum):
    """What the model answers: the probability of the second class, a probability a class, or a number."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    REGRESSION = "regression"


@dataclass(frozen=True, slots=True)
class Field:
    """One input. `low` and `high` bound a number, both inclusive; `values` lists what a text may be (None: any).

    `vocabulary` (text only) fixes the code of each known text in the model's input matrix.
    """

    name: str
    kind: Kind
    nullable: bool = False
    low: float | None = None
    high: float | None = None
    values: tuple[str, ...] | None = None
    vocabulary: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Schema:
    """The inputs in the order of the model's columns, and the target.

    `classes` are the target's values in the order of the model's probabilities, () for regression; they keep
    the type that the data has (1, "yes", true).
    """

    fields: tuple[Field, ...]
    task: Task
    target: str
    classes: tuple[Value, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.fields)
