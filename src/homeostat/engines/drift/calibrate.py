"""Ordinary life wobbles more than chance: how many independent rows a window is worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Worth:
    """Rows of the window and of the reference, each counted as the independent rows they are worth."""

    window: float
    reference: float

    @property
    def both(self) -> float:
        """The harmonic size m of a comparison of two samples: m = n N / (n + N)."""
        return self.window * self.reference / (self.window + self.reference)


def worth(rows: int, reference_rows: int, wobble: float, windows: int) -> Worth:
    """n* = n / (1 + n T) for the window; the reference's own wobble is averaged over its `windows`: T / windows."""
    return Worth(rows / (1 + rows * wobble), reference_rows / (1 + reference_rows * wobble / windows))


def wobble(tables: NDArray[np.int64]) -> float:
    """T, the chi-squared distance between one window and the others beyond what chance gives: mean over windows
    plus one standard error, at least 0.

    `tables` (w, b): rows of window w in bin b. For shares p of a window of n rows, q of the N others and r of all,
    d = sum (p - q)^2 / r has expectation sum r (1 - r) / r (1/n + 1/N) = (b - 1)(1/n + 1/N) when all rows are
    independent; T is the mean of d minus that. Fewer than two windows with rows tell nothing: 0.
    """
    tables = tables[tables.sum(axis=1) > 0]
    if len(tables) < 2:
        return 0.0
    total = tables.sum(axis=0)
    tables, total = tables[:, total > 0], total[total > 0]
    n = tables.sum(axis=1)
    others = total.sum() - n
    p, q = tables / n[:, None], (total - tables) / others[:, None]
    distance = np.sum((p - q) ** 2 / (total / total.sum()), axis=1)
    excess = distance - (len(total) - 1) * (1 / n + 1 / others)
    return max(0.0, float(excess.mean() + excess.std(ddof=1) / np.sqrt(len(excess))))
