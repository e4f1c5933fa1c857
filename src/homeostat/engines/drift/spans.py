"""Slow drifts: what no window shows alone is asked of the last 4 and the last 16 of them, merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from homeostat.engines.drift.calibrate import normal_scores
from homeostat.engines.drift.outcome import DriftTest
from homeostat.engines.drift.reference import Profile
from homeostat.engines.drift.texts import Column, total

SPANS: Mapping[int, float] = {1: 0.6, 4: 0.15, 16: 0.25}
"""So many windows in a row, and their share of the false alarms."""
AGREE = 0.5
"""How far the newest quarter must have gone, of what the merged windows have."""


@dataclass(frozen=True, slots=True)
class Past:
    """A window that was judged: its profile, and the columns that it raised an alarm for by itself."""

    profile: Profile
    alarmed: frozenset[str] = frozenset()


def merge(window: Profile, past: Sequence[Past], windows: int, subject: str) -> Column | None:
    """A column over the last `windows`, with `window`; `past` is in order of time. What a window alone has raised an
    alarm for is left out: it was said, and must not be said on when it is over. None: there are not as many yet, or
    nothing is left."""
    if len(past) < windows - 1:
        return None
    before = [one.profile.columns[subject] for one in past[len(past) - windows + 1 :] if subject not in one.alarmed]
    return total([*before, window.columns[subject]]) if before else None


def goes_on(test: DriftTest, reference: Column, merged: Column, newest: Column) -> bool:
    """The newest quarter has moved as all of them have, at least half as far: a drift that is over is none."""
    old = _shares(test, reference, reference)
    moved, lately = (_shares(test, reference, one) - old for one in (merged, newest))
    if test.ranks:
        far, late = (float(np.sum(normal_scores(old) * one)) for one in (moved, lately))
        return late * far >= AGREE * far**2
    weight = np.divide(1.0, old, out=np.ones(len(old)), where=old > 0)
    return bool(np.sum(weight * lately * moved) >= AGREE * np.sum(weight * moved**2))


def _shares(test: DriftTest, reference: Column, column: Column) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    (table,) = test.tables(reference, [column])
    return np.asarray(table / max(1, table.sum()))
