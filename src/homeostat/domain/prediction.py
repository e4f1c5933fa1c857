"""The record of an answer, and the columns of the frames it is read back as."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from homeostat.domain.schema import Value
from homeostat.domain.units import MINUTE_MS


class Role(StrEnum):
    """ANSWER: what the caller saw. SHADOW: scored beside it, seen by nobody. FAILED: a candidate's attempt that
    failed and was answered by the champion instead. REJECTED: a row refused with a 4xx before any model saw it. SHED: a
    request refused unread, because too many were waiting; it has no inputs."""

    ANSWER = "answer"
    SHADOW = "shadow"
    FAILED = "failed"
    REJECTED = "rejected"
    SHED = "shed"


EDGE = "edge:"
BATCH = "batch:"
UNRELEASED = (EDGE, BATCH)
"""Each begins the `release` of an answer that was given away from the data plane, on the edge or by a batch job; its
bundle's id follows."""

PINNED = "pinned:"
"""Begins the `release` of an answer whose caller chose the variant; the release in force follows. It is no evidence."""

LOG_COLUMNS = (
    "id",  # text: the prediction id, unique among the rows of one role
    "key",  # text, null: the entity; decides the arm, else the id does
    "at_ms",  # int: when it was answered
    "release",  # text: the release or experiment in force; `PINNED` and that; one of `UNRELEASED` and the bundle
    "version",  # int: the model version that this row's score is of
    "arm",  # text: the arm the row was assigned to: "champion", "candidate", "version N" (a further variant)
    "role",  # text: Role
    "weight",  # int: the candidate's weight in force for the row, basis points; 0 where a rule keeps the champion
    "status",  # text: "ok", "error", "nonfinite", "timeout", "memory", "rejected", "shed"
    "model_us",  # int: time of the model call that scored it, microseconds
    "score",  # float, null: probability of the second class, of the answered class (multiclass), or the value
    "label",  # text, null: the answered class; of a rejected row, what it broke: "amount: high", "json"
    "scores",  # list of float, null: multiclass probabilities
    "inputs",  # struct of the schema's fields, as served
)
"""Columns of `PredictionLog.read`, in order."""

SETTLED_MS = MINUTE_MS
"""A worker may still be writing rows that are younger than this: who reads on reads them again."""

LABEL_COLUMNS = (
    "id",  # text
    "label",  # text: a class as str() of its value, or repr() of a number
    "at_ms",  # int: when it was received, or when the sender says that it was known
    "source",  # text: who says so; "" where nobody is named
)
"""Columns of `LabelLog.read`, in order: one row an id, the last by the sender's time; of equal times the last received.
And of `LabelLog.received`: every label."""


SIGNAL_COLUMNS = (
    "id",  # text: the prediction id
    "name",  # text: what was measured: conversion, amount, rating
    "value",  # float, finite
    "at_ms",  # int: when it was received, or when the sender says that it was known
)
"""Columns of `LabelLog.signals`, in order: one row an id and name, the last by the sender's time."""

EVENT_COLUMNS = ("id", "key", "name", "value", "at_ms")
"""Columns of `LabelLog.events`: every signal as received. Where `id` is "", `key` names the entity it is about."""


class Inputs(Mapping[str, Sequence[Value]]):
    """Columns of inputs by name, those of numbers without a null in one `block` of doubles, column after column; the
    `others` each by itself. `places`: name → place in the block, None for one of the others."""

    __slots__ = ("_n", "block", "others", "places")

    def __init__(
        self, places: Mapping[str, int | None], block: memoryview[Any], n: int, others: Mapping[str, Sequence[Value]]
    ) -> None:
        self.places, self.block, self.others, self._n = places, block, others, n

    def __getitem__(self, name: str) -> Sequence[Value]:
        place = self.places[name]
        return self.others[name] if place is None else self.block[place * self._n : (place + 1) * self._n]

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


@dataclass(slots=True)  # a frozen one takes four times as long to make
class LogBatch:
    """What one turn of the event loop answered for one model, column by column; every sequence has n entries,
    except `inputs`: for each field of the schema its n values. Its fields are those of `LOG_COLUMNS`, and `trace`: the
    W3C trace id of the request of each row, () when none had one. A row is found by it, and not read back with it."""

    model: str
    at_ms: int
    release: str
    weight: int
    id: Sequence[str]
    key: Sequence[str | None]
    version: Sequence[int]
    arm: Sequence[str]
    role: Sequence[str]
    status: Sequence[str]
    model_us: Sequence[int]
    score: Sequence[float | None]
    label: Sequence[str | None]
    scores: Sequence[Sequence[float] | None]
    inputs: Mapping[str, Sequence[Value]]
    trace: Sequence[str | None] = ()


@dataclass(frozen=True, slots=True)
class LabelBatch:
    """Labels as received: late, repeated or corrected; the last by `at_ms` counts. `source` (): nobody is named."""

    id: Sequence[str]
    label: Sequence[str]
    at_ms: Sequence[int]
    source: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not self.source:
            object.__setattr__(self, "source", ("",) * len(self.id))


@dataclass(frozen=True, slots=True)
class SignalBatch:
    """What became of predictions in numbers, as received; of one id and name the last by `at_ms` counts. What is known
    of an entity, and not of a prediction, has the id "" and a `key`; (): there is none."""

    id: Sequence[str]
    name: Sequence[str]
    value: Sequence[float]
    at_ms: Sequence[int]
    key: Sequence[str | None] = ()

    def __post_init__(self) -> None:
        if not self.key:
            object.__setattr__(self, "key", (None,) * len(self.id))
