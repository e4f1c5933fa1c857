"""Everything behind one prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from homeostat.domain.rollout import Rollout
from homeostat.domain.run import RunRecord
from homeostat.domain.schema import Value


@dataclass(frozen=True, slots=True)
class Score:
    """What one version said of the row: to the caller (`role` answer), or unseen beside it."""

    version: int
    role: str
    status: str
    score: float | None
    label: str | None
    scores: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class Label:
    """The label of a prediction, and when it came."""

    value: str
    at_ms: int


@dataclass(frozen=True, slots=True, repr=False)
class Trace:
    """`release` and `version` answered; one given on the edge or by a batch job has no release, but one of
    `UNRELEASED` and its bundle. `run` tells how the version was made: data, code, parameters, gates; `environment` is
    every installed version then. `run` is None for a row that was refused before any model saw it.
    `others`: the ids of the other predictions, where it was looked for by the trace that its request belongs to.
    """

    id: str
    model: str
    key: str | None
    at_ms: int
    release: str
    weight: int
    arm: str
    inputs: Mapping[str, Value]
    scores: tuple[Score, ...]
    label: Label | None
    rollout: Rollout | None
    bundle: str
    run: RunRecord | None
    environment: str
    others: tuple[str, ...] = ()

    def __repr__(self) -> str:
        answer = next((one for one in self.scores if one.role == "answer"), None)
        said = f"{answer.label if answer.label is not None else answer.score}" if answer else "no answer"
        label = f"label {self.label.value}" if self.label else "no label yet"
        made = f"run {self.run.id}, data version {self.run.dataset.version}" if self.run else "no run"
        return f"Prediction {self.id} of {self.model}: {said}; {label}; release {self.release}, {made}"
