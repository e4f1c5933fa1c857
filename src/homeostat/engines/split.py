"""The split of the labelled rows: by time, as the model will live."""

from __future__ import annotations

from dataclasses import dataclass, replace

import polars as pl

from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.errors import DataError
from homeostat.domain.policy import TrainPolicy
from homeostat.domain.units import iso, show_duration

LEAST_TRAIN, LEAST_HOLDOUT = 20, 5


@dataclass(frozen=True, slots=True)
class Split:
    """`window` is all that may be learned from; `holdout` its newest stretch, `train` the rest."""

    window: pl.DataFrame
    train: pl.DataFrame
    holdout: pl.DataFrame


def _cut(policy: TrainPolicy, window: pl.DataFrame) -> int:
    """When the holdout begins. Where rows are missing (an outage, a quarantine), so that it would hold less than half
    of its due, it reaches back as far as its due needs."""
    at_ms = window[EVENT_MS]
    newest = int(at_ms[-1])
    due = round(len(window) * policy.holdout / max(policy.holdout, newest - int(at_ms[0])))
    held = int((at_ms > newest - policy.holdout).sum())
    return newest - policy.holdout if 2 * held >= due else int(at_ms[-due]) - 1


def split(policy: TrainPolicy, frame: pl.DataFrame, since_ms: int = 0) -> Split:
    """`frame`: a prepared frame. What was before `since_ms` is left out, and the holdout is at most half of the rest.
    Errors: `DataError` when there are too few rows to learn from or to evaluate on."""
    newest = int(frame[EVENT_MS][-1])
    window = frame.filter(pl.col(EVENT_MS) > newest - policy.window) if policy.window else frame
    if since_ms:
        window = window.filter(pl.col(EVENT_MS) >= since_ms)
        policy = replace(policy, holdout=min(policy.holdout, (newest - since_ms) // 2))
    late = pl.col(EVENT_MS) > _cut(policy, window)
    made = Split(window, window.filter(~late), window.filter(late))
    if len(made.train) < LEAST_TRAIN or len(made.holdout) < LEAST_HOLDOUT:
        length = f"the last {show_duration(policy.window)}" if policy.window else "all of the data"
        raise DataError(
            f"{length} until {iso(newest)} holds {len(made.train):,} rows to learn from and {len(made.holdout):,} to "
            f"evaluate on; {LEAST_TRAIN} and {LEAST_HOLDOUT} are needed",
            where="homeostat.yaml: train.window, train.holdout",
            way_out="Learn from a longer window, hold out another share, or bring more data.",
        )
    return made
