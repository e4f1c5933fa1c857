"""Why a metric moved."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """A segment's part in the move of the mean loss, in units of the loss, with a 95 % interval [low, high] of `mix` +
    `within`. `mix`: its share of the rows changed; `within`: its rows became worse, or better. `n`: rows of the window
    in it; `fields`: what it is cut by; `example`: the prediction id of its largest loss."""

    segment: str
    fields: tuple[str, ...]
    n: int
    share_before: float
    share: float
    loss_before: float
    loss: float
    mix: float
    within: float
    low: float
    high: float
    example: str = ""

    @property
    def total(self) -> float:
        return self.mix + self.within


@dataclass(frozen=True, slots=True)
class Ranked:
    """`kind`: "within" or "mix" of a segment, "drift" of an input, or a "change" that somebody made. `size`: what it
    accounts for, in units of the loss; of drift, at most; of a change, 0: it is only near in time."""

    kind: str
    subject: str
    size: float
    text: str
    example: str = ""


@dataclass(frozen=True, slots=True)
class Explained:
    """The mean loss of a window beside that of the model when it was made, both on rows that the segments were not
    found on; NaN of no rows. The parts add up to the move. `share`: of the window's ids,
    if it is too large to be read whole."""

    start_ms: int
    end_ms: int
    version: int
    before: float
    now: float
    reference_rows: int
    rows: int
    parts: tuple[Part, ...]
    causes: tuple[Ranked, ...]
    share: float = 1.0

    @property
    def move(self) -> float:
        return self.now - self.before
