"""Windows of normal numbers, drawn as counts of cells instead of row by row: a window of a million rows costs as much
as one of a thousand. Independent rows fall into cells as a multinomial draw does, so only the chances of the cells have
to be known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from homeostat.engines.drift.counts import CELLS, NumberLayout, Numbers

Array = NDArray[np.float64]
LAYOUT = NumberLayout(0.0, 1.349)
"""That of a standard normal column: its median, and its interquartile range."""
_ZERO = CELLS // 2
_LEAST, _MOST = 0x3400, 0x4200
"""High bits of 2^-23, nearer to the centre than any row comes, and of 32, farther away."""


def _halves() -> tuple[NDArray[np.int64], Array]:
    """→ cells (c,) in the order of their numbers, and where each but the last ends (c - 1,), in standard deviations."""
    bits = np.arange(_LEAST, _MOST, dtype=np.uint32)
    above = (bits << 16).view(np.float32).astype(np.float64) * LAYOUT.scale
    cells = np.concatenate([_ZERO - 1 - bits[::-1].astype(np.int64), [_ZERO], _ZERO + bits.astype(np.int64)])
    return cells, np.concatenate([-above[::-1], above])


_CELLS, _ENDS = _halves()


@dataclass(frozen=True, slots=True)
class Normal:
    """A column of normal numbers, of deviation 1; a share `missing` of the rows has none."""

    mean: float = 0.0
    missing: float = 0.0

    def chances(self) -> Array:
        """(c,) of each cell that is ever drawn, that a row which has a number falls into it."""
        below = np.concatenate([[0.0], ndtr(_ENDS - self.mean), [1.0]])
        return np.diff(below)

    def draw(self, rng: np.random.Generator, n: int) -> Numbers:
        """The counts of n rows."""
        missing = int(rng.binomial(n, self.missing))
        counts = rng.multinomial(n - missing, self.chances())
        held = counts > 0
        return Numbers(_CELLS[held], counts[held], missing)


def chances(column: Normal) -> Array:
    """(65,536,) of all cells."""
    every = np.zeros(CELLS)
    every[_CELLS] = column.chances()
    return every
