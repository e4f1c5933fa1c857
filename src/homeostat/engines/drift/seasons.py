"""What comes round: windows of the same hour, weekday or month of the reference, where they tell more than all do.

A test is asked of its season when that at least halves the variance of what it compares; for the others all windows
tell more. So a column without a season loses nothing, and one that swings with the hour raises no alarm each night.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homeostat.domain.units import DAY_MS, HOUR_MS
from homeostat.engines.drift.counts import Numbers
from homeostat.engines.drift.reference import Profile, Reference, Season
from homeostat.engines.drift.texts import RARE, Categories, Column, Prose

FINE, NAMES = 256, 64
"""Bins, or values by name, that are kept of a column in each slot."""
LEAST = 3
"""Windows of a slot that make it a season."""
GAIN = 0.5
"""How much of the variance a season must leave at most."""
TESTED = ("distribution", "level", "shape", "categories", "missing")
"""The tests that have seasons: slots name few values, so that what is rare can't be told."""
_DAYS = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December")  # fmt: skip
_MONDAY = 3  # days from 1970-01-01, a Thursday, back to a Monday

Times = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cycle:
    """`fits`: windows of a length (ms) of a reference that spans so many ms; `slot`: of windows by the time in their
    middle; `words`: what k windows of length L of a slot are."""

    fits: Callable[[int, int], bool]
    slot: Callable[[Times], Times]
    words: Callable[[int, int, int], str]


def _hours(slot: int, length: int, count: int) -> str:
    start, end = (f"{at // HOUR_MS:02}:{at % HOUR_MS // 60_000:02}" for at in _within(slot, length))
    return f"{start} to {end} of {count} days"


def _within(slot: int, length: int) -> tuple[int, int]:
    start = slot * 60_000 // length * length
    return start, start + length


CYCLES: Mapping[str, Cycle] = {
    "hour": Cycle(
        lambda length, _: length < DAY_MS and DAY_MS % length == 0,
        lambda at: at % DAY_MS // 60_000,
        _hours,
    ),
    "weekday": Cycle(
        lambda length, _: length == DAY_MS,
        lambda at: (at // DAY_MS + _MONDAY) % 7,
        lambda slot, _, count: f"{count} {_DAYS[slot]}",
    ),
    "month": Cycle(
        lambda length, span: DAY_MS <= length <= 31 * DAY_MS and span >= 2 * 365 * DAY_MS,
        lambda at: at.astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64) % 12,
        lambda slot, _, count: f"{count} windows in {_MONTHS[slot]}",
    ),
}


def cycles(length_ms: int, span_ms: int) -> Iterator[str]:
    """Of those that windows of this length can have."""
    return (name for name, cycle in CYCLES.items() if cycle.fits(length_ms, span_ms))


def slots(cycle: str, starts: Times, length_ms: int) -> Times:
    """(w,) the slot of each window."""
    return CYCLES[cycle].slot(starts + length_ms // 2)


def gains(chance: float, plain: float, seasonal: float) -> bool:
    """Does the season leave at most `GAIN` of the variance: that of chance, and of windows beside all or their own?"""
    return chance + max(0.0, seasonal) <= GAIN * (chance + max(0.0, plain))


def of_window(reference: Reference, window_ms: int, start_ms: int) -> Iterator[tuple[Season, int]]:
    """The seasons that a window may be asked in, and its slot in each."""
    for season in reference.seasons:
        if season.length_ms == window_ms:
            slot = int(slots(season.cycle, np.array([start_ms]), window_ms)[0])
            if season.windows.get(slot, 0) >= LEAST:
                yield season, slot


def words(season: Season, slot: int) -> str:
    """What the window was compared with."""
    return CYCLES[season.cycle].words(slot, season.length_ms, season.windows[slot])


def coarse(column: Column, whole: Column) -> Column:
    """The column in the few cells that slots keep, which follow from the reference's `whole` one."""
    if isinstance(column, Numbers) and isinstance(whole, Numbers):
        return column.coarse(whole.edges(FINE))
    if isinstance(column, Categories) and isinstance(whole, Categories):
        named = [name for name in whole.counts if not name.startswith(RARE)]
        frequent = sorted(named, key=lambda name: (-whole.counts[name], name))[:NAMES]
        return column.coarse(frozenset(frequent))
    return column


def seasonal(column: Column) -> bool:
    """Has it slots at all? Not so texts that people write: bounded memory."""
    return not isinstance(column, Prose)


def kept(profile: Profile, whole: Profile, subjects: frozenset[str]) -> Profile:
    """Of a slot, the columns that need it."""
    return Profile(
        profile.rows, {name: coarse(profile.columns[name], whole.columns[name]) for name in sorted(subjects)}
    )
