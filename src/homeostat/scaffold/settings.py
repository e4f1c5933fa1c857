"""The numbers of a new policy, sized by the data: how long, how wide."""

from __future__ import annotations

import math
from dataclasses import dataclass

import polars as pl

from homeostat.domain.schema import Task
from homeostat.domain.units import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from homeostat.scaffold.look import Look

_METRIC = {Task.BINARY: "roc_auc", Task.MULTICLASS: "accuracy", Task.REGRESSION: "mae"}
_MARGIN = 0.02
_HOLDOUT_ROWS = 100  # fewer rows than this in a week: the holdout gets longer
_WINDOW_MS = 180 * DAY_MS  # its oldest rows count one in 64
_WINDOW_ROWS = 1_000  # fewer rows than this in half a window: a training sees all of them, and all count alike
_SEEN = (20, 50)  # the fewest and the most requests that a step of a release waits for
_SPLITTABLE = 1_000  # below this many rows LightGBM's own smallest leaf, 20 rows, would be coarse


@dataclass(frozen=True, slots=True)
class Settings:
    """`margin` and `bound` are in the metric's unit: how much worse a candidate may be, and a threshold that a model
    which learned nothing does not reach. `window_ms` 0: all rows; `half_life_ms` 0: all count alike. `leaf`: the fewest
    rows in a leaf, None: LightGBM's default. `least_seen`: what a candidate must have seen in a step."""

    metric: str
    margin: float
    bound: float
    window_ms: int
    half_life_ms: int
    holdout_ms: int
    warmup_ms: int
    leaf: int | None
    least_seen: int


def settings(seen: Look) -> Settings:
    """The holdout is at most a fifth of the history, the warm-up at most a third."""
    history, rows = seen.history_ms, len(seen.frame)
    target = seen.frame[seen.target.name]
    spread = _spread(target) if seen.task is Task.REGRESSION else 0.0
    if seen.data.time is None:
        holdout, warmup, window = history // 5, history // 3, 0
    else:
        holdout = min(max(7 * DAY_MS, _time_for(_HOLDOUT_ROWS, history, rows)), history // 5)
        warmup = min(max(90 * DAY_MS, _time_for(_WINDOW_ROWS, history, rows)), history // 3)
        window = _WINDOW_MS if _time_for(_WINDOW_ROWS, history, rows) <= _WINDOW_MS // 2 else 0
    return Settings(
        metric=_METRIC[seen.task],
        margin=significant(0.1 * spread, 2) if spread else _MARGIN,
        bound=_bound(seen.task, target, spread),
        window_ms=window,
        half_life_ms=window // 6,
        holdout_ms=readable(holdout, seen.data.time is None),
        warmup_ms=readable(warmup, seen.data.time is None),
        leaf=max(2, rows // 50) if rows < _SPLITTABLE else None,
        least_seen=_half_a_day(history, rows) if seen.data.time else _SEEN[1],
    )


def _half_a_day(history_ms: int, rows: int) -> int:
    """What half a day brings, within `_SEEN`: where requests are rare, waiting for more keeps a worse model serving."""
    return min(max(_SEEN[0], rows * DAY_MS // (2 * history_ms)), _SEEN[1])


def _spread(target: pl.Series) -> float:
    """The mean absolute deviation from the median: the error of a model that always answers the median."""
    values = target.to_numpy()
    return float(abs(values - float(str(target.median()))).mean())


def _bound(task: Task, target: pl.Series, spread: float) -> float:
    """What a constant answer reaches: .5 by ROC AUC, the share of the largest class, the spread; a little beyond it."""
    if task is Task.REGRESSION:
        return significant(0.8 * spread, 2)
    if task is Task.BINARY:
        return 0.7
    share = float(str(target.value_counts()["count"].max())) / len(target)
    return significant(share + (1 - share) / 4, 2)


def _time_for(wanted: int, history_ms: int, rows: int) -> int:
    """How long it takes, at the mean rate, until `wanted` rows have come."""
    return math.ceil(wanted * history_ms / (rows - 1))


def readable(ms: int, seconds: bool = False) -> int:
    """Rounded down to the largest unit of which there are at least two; to whole seconds where `seconds`."""
    units = (SECOND_MS,) if seconds else (DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS)
    return next((ms // unit * unit for unit in units if ms >= 2 * unit), ms)


def significant(value: float, digits: int) -> float:
    """Rounded to so many significant digits."""
    return float(f"{value:.{digits}g}")
