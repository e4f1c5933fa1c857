"""How long labels take to come, learned from those that came and those that did not yet.

The share S(t) of predictions without a label at age t: at each delay that was seen it falls by the labels that came
then, over the predictions that were old enough to be asked and had none (Kaplan & Meier 1958). A prediction whose
label has not come says that its delay is longer than its age, no more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LEAST = 50
"""Labels; fewer make no law."""
KNOTS = 200


@dataclass(frozen=True, slots=True)
class Law:
    """By the age `ages` (k,), ms, the share `shares` (k,) of predictions has its label. `labels` came for `predictions`
    predictions."""

    ages: tuple[int, ...]
    shares: tuple[float, ...]
    labels: int
    predictions: int

    @property
    def known(self) -> bool:
        return self.labels >= LEAST

    @property
    def ever(self) -> float:
        """The share that has a label at the greatest age that was seen."""
        return self.shares[-1] if self.shares else 0.0

    def share(self, age_ms: float) -> float:
        """Of the labels that will come, those that are there at this age."""
        place = int(np.searchsorted(self.ages, age_ms, side="right"))
        return self.shares[place - 1] / self.ever if place else 0.0

    def mature(self, start_ms: int, end_ms: int, now_ms: int) -> float:
        """The share of the labels of a window's predictions that is expected to be there, if they were made evenly."""
        moments = np.linspace(start_ms, end_ms, 49)[:-1] + (end_ms - start_ms) / 96
        return float(np.mean([self.share(now_ms - moment) for moment in moments]))

    def age(self, share: float) -> int | None:
        """The age at which this share of the labels is there; None where no law is known."""
        if not self.known:
            return None
        return self.ages[int(np.searchsorted(self.shares, share * self.ever - 1e-12))]


def law(made_ms: NDArray[np.int64], came_ms: Array, now_ms: int) -> Law:
    """`made_ms` (n,): when each prediction was made; `came_ms` (n,): when its label came, NaN where none did by
    `now_ms`. A label from before its prediction has no delay."""
    seen = np.isfinite(came_ms)
    age = np.maximum(np.where(seen, came_ms, now_ms) - made_ms, 0)
    delays, came = np.unique(age[seen], return_counts=True)
    if not len(delays):
        return Law((), (), 0, len(age))
    asked = len(age) - np.searchsorted(np.sort(age), delays, side="left")
    shares = 1 - np.cumprod(1 - came / asked)
    some = np.unique(np.linspace(0, len(delays) - 1, min(len(delays), KNOTS)).round().astype(int))
    ages = tuple(int(one) for one in delays[some])
    return Law(ages, tuple(float(one) for one in shares[some]), int(seen.sum()), len(age))
