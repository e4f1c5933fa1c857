"""What the calls of a client give back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

from homeostat.domain.schema import Value

_SHOWN = 10


@dataclass(frozen=True, slots=True, repr=False)
class Prediction:
    """One answer. `value` for regression; `label`, and the `score` of the second class (binary) or of the answered
    class (multiclass, with the `scores` of all classes); None where it does not apply. `id` is what a label is sent
    for, and what `homeostat trace` takes. `explore`: not None where it is in the exploration slice: act as if this were
    the answer."""

    id: str
    release: str
    model_version: int
    value: float | None = None
    score: float | None = None
    label: Value = None
    scores: Mapping[str, float] | None = None
    explore: Value = None

    def __repr__(self) -> str:
        said = f"value={self.value:g}" if self.value is not None else f"label={self.label!r}, score={self.score:.4g}"
        return f"Prediction(id={self.id!r}, {said}, model_version={self.model_version})"


@dataclass(frozen=True, slots=True, repr=False)
class Predictions(Sequence[Prediction]):
    """The answers of one request, in its order."""

    release: str
    all: tuple[Prediction, ...]

    @overload
    def __getitem__(self, at: int) -> Prediction: ...

    @overload
    def __getitem__(self, at: slice) -> tuple[Prediction, ...]: ...

    def __getitem__(self, at: int | slice) -> Prediction | tuple[Prediction, ...]:
        return self.all[at]

    def __len__(self) -> int:
        return len(self.all)

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.all)

    def __repr__(self) -> str:
        lines = [f"{len(self.all)} predictions by release {self.release}"]
        lines += [f"  {one!r}" for one in self.all[:_SHOWN]]
        if len(self.all) > _SHOWN:
            lines.append(f"  and {len(self.all) - _SHOWN} more")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a model. `shape`: -1 is as many as there are rows."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Metadata:
    """A model as the Open Inference Protocol describes it. `versions` are those that serve now."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
