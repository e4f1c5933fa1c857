"""False alarms and power of drift, by simulation: 20 columns, a reference of 90 windows of the same size. Windows are
drawn as counts of cells (`drawn`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle, islice

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from bench.monitor.drawn import LAYOUT, Normal
from homeostat.domain.gate import Verdict
from homeostat.domain.units import DAY_MS
from homeostat.engines.drift import drift
from homeostat.engines.drift.profile import PREDICTION, Profile, Reference, Windows, reference_of
from homeostat.engines.drift.spans import Past

FEATURES = 19  # the prediction is the twentieth column
NAMES = (*(f"f{i}" for i in range(FEATURES)), PREDICTION)
LEARNED, FALSE_ALARMS, MISSING = 90, 0.01, 0.02
A_SEED = 100
"""Windows that are judged beside one reference: the next one is drawn anew, for its errors are shared by them."""
Array = NDArray[np.float64]
Columns = Mapping[str, Normal]


def columns(moved: Array) -> dict[str, Normal]:
    """Standard normal but for their means (20,), 2 % missing; predictions are never missing."""
    return {
        name: Normal(float(mean), 0.0 if name == PREDICTION else MISSING)
        for name, mean in zip(NAMES, moved, strict=True)
    }


def ordinary(rng: np.random.Generator, wobble: float) -> dict[str, Normal]:
    """Columns whose means are moved by `wobble` sd, as those of each window are."""
    return columns(wobble * rng.standard_normal(len(NAMES)))


def draw(rng: np.random.Generator, n: int, of: Columns) -> Profile:
    return Profile(n, {name: column.draw(rng, n) for name, column in of.items()})


@lru_cache(maxsize=4)
def learned(n: int, wobble: float, seed: int) -> Reference:
    """Of 90 windows, a day each."""
    rng = np.random.default_rng([n, seed])
    profiles = [draw(rng, n, ordinary(rng, wobble)) for _ in range(LEARNED)]
    windows = Windows(DAY_MS, np.arange(LEARNED) * DAY_MS, profiles)
    return reference_of(dict.fromkeys(NAMES, LAYOUT), Profile.total(profiles), [windows], LEARNED * DAY_MS)


@dataclass(frozen=True, slots=True)
class Alarm:
    """A column, the test, and how many windows it speaks of."""

    subject: str
    test: str
    windows: int


def lived(known: Reference, windows: Iterator[Profile], before: Sequence[Past] = ()) -> Iterator[set[Alarm]]:
    """The alarms of each window, one after the other: those merged with the ones before too, and beside its weekday
    where that tells more."""
    past = list(before)
    for day, seen in enumerate(windows, LEARNED):
        readings = drift(known, seen, FALSE_ALARMS, DAY_MS, day * DAY_MS, past[-15:])
        found = {Alarm(one.subject, one.test, one.windows) for one in readings if one.verdict is Verdict.HARM}
        past.append(Past(seen, frozenset(one.subject for one in found if one.windows == 1)))
        yield found


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many windows."""

    found: int
    windows: int

    @property
    def rate(self) -> float:
        return self.found / self.windows

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, exact (Clopper and Pearson 1934)."""
        k, n = self.found, self.windows
        low = float(betaincinv(k, n - k + 1, 0.025)) if k else 0.0
        return low, float(betaincinv(k + 1, n - k, 0.975)) if k < n else 1.0

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.rate:.4f} [{low:.4f}, {high:.4f}] ({self.found} of {self.windows:,})"


def false_alarms(n: int, windows: int, wobble: float) -> Share:
    """Ordinary windows that raise any alarm."""
    found = 0
    for rng, known, many in _references(n, wobble, windows):
        found += sum(map(bool, lived(known, (draw(rng, n, ordinary(rng, wobble)) for _ in range(many)))))
    return Share(found, windows)


def power(n: int, windows: int, shift: float = 0.0, missing: float = 0.0) -> Share:
    """Windows that find a shift of one column (sd), or more missing values in it, at once, after 15 ordinary ones: of
    each column in turn, for what the reference knows of one decides for all windows beside it."""
    found, calm = 0, columns(np.zeros(len(NAMES)))
    for rng, known, many in _references(n, 0.0, windows):
        before = [Past(draw(rng, n, calm)) for _ in range(15)]
        for name in islice(cycle(NAMES[:FEATURES]), many):
            moved = calm | {name: Normal(shift, MISSING + missing)}
            alarms = next(lived(known, iter([draw(rng, n, moved)]), before))
            found += any(alarm.subject == name for alarm in alarms)
    return Share(found, windows)


def _references(n: int, wobble: float, windows: int) -> Iterator[tuple[np.random.Generator, Reference, int]]:
    """→ what to draw with, a reference, and how many windows are judged beside it."""
    for seed in range(-(-windows // A_SEED)):
        rng = np.random.default_rng([n, seed, 1])
        yield rng, learned(n, wobble, seed), min(A_SEED, windows - seed * A_SEED)


def detected(n: int, shift: float, wobble: float, windows: int = 30, seeds: int = 3) -> list[int]:
    """After how many windows each of 20 columns is found that is moved by `shift` sd; windows + 1: not."""
    after = []
    for seed in range(seeds):
        rng = np.random.default_rng([n, seed, 1])
        known, first = learned(n, wobble, seed), dict[str, int]()
        moved = (columns(shift + wobble * rng.standard_normal(len(NAMES))) for _ in range(windows))
        for at, found in enumerate(lived(known, (draw(rng, n, of) for of in moved)), 1):
            for alarm in found:
                first.setdefault(alarm.subject, at)
        after += [*first.values(), *[windows + 1] * (len(NAMES) - len(first))]
    return sorted(after)


Line = tuple[str, str, str]


def table(windows: int) -> Iterator[Line]:
    """What, how large a window is, and what came out."""
    for wobble in (0.0, 0.03):
        for n in (200, 1_000, 10_000, 100_000, 1_000_000):
            yield f"false alarms, wobble {wobble} sd", f"{n:,}", str(false_alarms(n, windows, wobble))
    for n in (200, 1_000, 10_000):
        yield "found: +.25 sd, by one window", f"{n:,}", str(power(n, windows, shift=0.25))
        yield "found: missing 2 to 5 %, by one window", f"{n:,}", str(power(n, windows, missing=0.03))
    for wobble in (0.0, 0.03):
        after = detected(200, 0.1, wobble)
        middle = after[len(after) // 2]
        yield f"windows until +.1 sd is found, wobble {wobble} sd: median", "200", str(middle)
