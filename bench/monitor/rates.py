"""False alarms and power of drift, by simulation: 20 columns, a reference of 90 windows of the same size (30 of 10,000
rows, 10 of more)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.gate import Verdict
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.domain.units import DAY_MS
from homeostat.engines.drift import drift
from homeostat.engines.drift.profile import Profile, Reference, profile, reference
from homeostat.engines.drift.spans import Past

FEATURES = 19  # the prediction is the twentieth column
SCHEMA = Schema(tuple(Field(f"f{i}", Kind.NUMBER, nullable=True) for i in range(FEATURES)), Task.REGRESSION, "y")
FALSE_ALARMS = 0.01
Array = NDArray[np.float64]


def draw(rng: np.random.Generator, n: int, wobble: float) -> Array:
    """(n, 20) normal numbers, 2 % missing, whose mean is moved by `wobble` sd."""
    x = rng.standard_normal((n, FEATURES + 1)) + wobble * rng.standard_normal(FEATURES + 1)
    x[:, :-1][rng.random((n, FEATURES)) < 0.02] = np.nan
    return x


def framed(x: Array) -> pl.DataFrame:
    return pl.DataFrame({f"f{i}": x[:, i] for i in range(FEATURES)})


@lru_cache(maxsize=8)
def calibrated(n: int, wobble: float, seed: int) -> Reference:
    """Of 90 windows; of fewer where they are large, for they need memory."""
    windows = int(np.clip(300_000 // n, 10, 90)) + 2
    rng = np.random.default_rng(seed)
    x = np.concatenate([draw(rng, n, wobble) for _ in range(windows)])
    at = pl.Series(EVENT_MS, np.repeat(np.arange(windows), n) * DAY_MS)
    return reference(SCHEMA, framed(x).with_columns(at), x[:, -1:], (DAY_MS,))


def window(known: Reference, x: Array) -> Profile:
    return profile(known, framed(x), x[:, -1:])


@dataclass(frozen=True, slots=True)
class Alarm:
    """A column, the test, and how many windows it speaks of."""

    subject: str
    test: str
    windows: int


def lived(known: Reference, xs: Iterator[Array]) -> Iterator[set[Alarm]]:
    """The alarms of each window, one after the other: the merged ones too."""
    past: list[Past] = []
    for x in xs:
        seen = window(known, x)
        readings = drift(known, seen, FALSE_ALARMS, past=past[-15:])
        found = {Alarm(one.subject, one.test, one.windows) for one in readings if one.verdict is Verdict.HARM}
        past.append(Past(seen, frozenset(one.subject for one in found if one.windows == 1)))
        yield found


def false_alarms(n: int, windows: int, wobble: float, seeds: int = 4) -> float:
    """The share of ordinary windows that raise any alarm, over several references."""
    rng, found = np.random.default_rng(n), 0
    for seed in range(seeds):
        known = calibrated(n, wobble, 11 + seed)
        found += sum(map(bool, lived(known, (draw(rng, n, wobble) for _ in range(windows // seeds)))))
    return found / (windows // seeds * seeds)


def power(n: int, windows: int, shift: float = 0.0, missing: float = 0.0) -> float:
    """The share of windows alone that find a shift of the first column (sd), or more missing values in it."""
    rng, known, found = np.random.default_rng(1), calibrated(n, 0.0, 11), 0
    for _ in range(windows):
        x = draw(rng, n, 0.0)
        x[:, 0] += shift
        x[:, 0][rng.random(n) < missing] = np.nan
        found += any(alarm.subject == "f0" for alarm in next(lived(known, iter([x]))))
    return found / windows


def detected(n: int, shift: float, wobble: float, windows: int = 30, seeds: int = 3) -> list[int]:
    """After how many windows each of 20 columns is found that is moved by `shift` sd; windows + 1: not."""
    after = []
    for seed in range(seeds):
        known, rng = calibrated(n, wobble, 11 + seed), np.random.default_rng(111 + seed)
        first: dict[str, int] = {}
        for at, found in enumerate(lived(known, (draw(rng, n, wobble) + shift for _ in range(windows))), 1):
            for alarm in found:
                first.setdefault(alarm.subject, at)
        after += [*first.values(), *[windows + 1] * (FEATURES + 1 - len(first))]
    return sorted(after)


Line = tuple[str, str, str]


def table(windows: int) -> Iterator[Line]:
    """What, how large a window is, and what came out; `windows` of 200 rows, fewer of larger ones."""
    for wobble in (0.0, 0.03):
        for n in (200, 1_000, 10_000, 100_000, 1_000_000):
            many = max(12, windows // max(1, n // 500))
            rate = false_alarms(n, many, wobble)
            yield f"false alarms, wobble {wobble} sd, {many} windows", f"{n:,}", f"{rate:.4f}"
    for n in (200, 1_000, 10_000):
        yield "found: +.25 sd, by one window", f"{n:,}", f"{power(n, max(20, windows * 50 // n), shift=0.25):.2f}"
    for n in (200, 1_000, 10_000):
        found = power(n, max(20, windows * 50 // n), missing=0.03 / 0.98)
        yield "found: missing 2 to 5 %, by one window", f"{n:,}", f"{found:.2f}"
    for wobble in (0.0, 0.03):
        after = detected(200, 0.1, wobble)
        middle = after[len(after) // 2]
        yield f"windows until +.1 sd is found, wobble {wobble} sd: median", "200", str(middle)
