"""False alarms on real rows whose drift was taken away, and what is found when it is left in.

Rows change places with others of the same hour and weekday: every season stays, nothing else does.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.gate import Verdict
from homeostat.domain.monitor import Reading
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.domain.units import DAY_MS, HOUR_MS
from homeostat.engines.drift import drift
from homeostat.engines.drift.profile import profile, reference
from homeostat.engines.drift.spans import Past

LEARNED = 90
"""Days that make the reference."""
WINDOWS_MS = (HOUR_MS * 6, DAY_MS, 7 * DAY_MS)


@dataclass(frozen=True, slots=True)
class Watched:
    """Windows of one length, how many raised an alarm, how many by themselves, on which day the first, and the columns
    of all alarms."""

    length_ms: int
    windows: int
    alarms: int
    alone: int
    first_day: int | None
    columns: Counter[str]


def read(path: Path, every_ms: int, drop: tuple[str, ...] = ()) -> pl.DataFrame:
    """The columns of numbers of a file whose rows stand in even steps."""
    frame = pl.read_csv(path).drop(drop).select(pl.col(pl.Float64, pl.Int64).cast(pl.Float64))
    return frame.with_columns(pl.int_range(pl.len()).mul(every_ms).alias(EVENT_MS))


def shuffled(frame: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The same rows at other times of the same hour and weekday."""
    at = frame[EVENT_MS].to_numpy()
    season = (at // DAY_MS % 7) * 24 + at // HOUR_MS % 24
    rng, order = np.random.default_rng(seed), np.arange(len(frame))
    for one in np.unique(season):
        places = np.flatnonzero(season == one)
        order[places] = rng.permutation(places)
    return frame[order].with_columns(frame[EVENT_MS])


def watch(frame: pl.DataFrame) -> list[Watched]:
    """Every whole window after the reference, for each length."""
    names = [name for name in frame.columns if name != EVENT_MS]
    schema = Schema(tuple(Field(name, Kind.NUMBER) for name in names), Task.REGRESSION, "y")
    learned = frame.filter(pl.col(EVENT_MS) < LEARNED * DAY_MS)
    weights = _weights(learned.select(names))
    known = reference(schema, learned, _score(learned.select(names), weights), WINDOWS_MS)
    made = []
    for length in WINDOWS_MS:
        past: list[Past] = []
        found: list[tuple[int, list[Reading]]] = []
        for start in range(LEARNED * DAY_MS // length * length + length, int(frame[EVENT_MS][-1]) - length, length):
            rows = frame.filter(pl.col(EVENT_MS).is_between(start, start + length, closed="left"))
            window = profile(known, rows, _score(rows.select(names), weights))
            readings = drift(known, window, 0.01, length, start, past[-15:])
            harm = [one for one in readings if one.verdict is Verdict.HARM]
            past.append(Past(window, frozenset(one.subject for one in harm if one.windows == 1)))
            found.append((start // DAY_MS, harm))
        made.append(_summed(length, found))
    return made


def _summed(length: int, found: list[tuple[int, list[Reading]]]) -> Watched:
    days = [day for day, harm in found if harm]
    columns = Counter(name for _, harm in found for name in {one.subject for one in harm})
    alone = sum(any(one.windows == 1 for one in harm) for _, harm in found)
    return Watched(length, len(found), len(days), alone, min(days, default=None), columns)


def _weights(rows: pl.DataFrame) -> NDArray[np.float64]:
    return np.array([1 / (float(rows[name].std() or 0) or 1.0) for name in rows.columns])


def _score(rows: pl.DataFrame, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Some model."""
    return (rows.to_numpy() @ weights)[:, None]
