"""Where a model fails, how much that matters, and what would help."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from homeostat.domain.gate import Measurement


class Help(StrEnum):
    """What data would help: rows like these, newer ones, or another input."""

    ROWS = "more rows like these"
    NEWER = "newer labels of rows like these"
    INPUT = "another input, or cleaner labels"


@dataclass(frozen=True, slots=True)
class Mode:
    """A group of rows on which the model loses more than elsewhere. `inside`, `outside`: the metric there; `excess`:
    how much larger the mean loss is than outside, in [0, 1], with its interval; `impact`: what that comes to over the
    `n` rows, in losses, or in the policy's value. `learned`: rows like these that it learned from, None where they are
    gone. `declared`: a segment of the policy; the others were found, on rows that they are not measured on.
    `examples`: prediction ids, the largest loss first."""

    segment: str
    fields: tuple[str, ...]
    declared: bool
    n: int
    share: float
    inside: Measurement
    outside: Measurement
    excess: float
    low: float
    high: float
    impact: float
    learned: int | None
    learned_share: float
    examples: tuple[str, ...]
    help: Help
    because: str


@dataclass(frozen=True, slots=True)
class Failures:
    """`modes`: the heaviest first; `looked_at`: how many groups were measured; `fault`: why there is nothing to say."""

    modes: tuple[Mode, ...]
    looked_at: int
    rows: int
    loss: float
    unit: str = "losses"
    fault: str = ""
