"""Drift: has what the model sees, or answers, changed beyond ordinary life? A stated false-alarm rate at every size.

A new test is one class and one name in `TESTS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from homeostat.domain.gate import Verdict
from homeostat.domain.monitor import Reading
from homeostat.domain.units import DAY_MS
from homeostat.engines.drift import refused, seasons
from homeostat.engines.drift.calibrate import Worth
from homeostat.engines.drift.categorical import RARE_VALUES, Length, Mix, Rare, Wording
from homeostat.engines.drift.numeric import Distribution, Level, Shape
from homeostat.engines.drift.outcome import DriftTest
from homeostat.engines.drift.reference import Profile, Reference
from homeostat.engines.drift.sharing import Asked, Shared, Span
from homeostat.engines.drift.spans import SPANS, Past, goes_on, merge
from homeostat.engines.drift.texts import Column

TESTS: Mapping[str, DriftTest] = {
    "distribution": Distribution(),
    "level": Level(),
    "shape": Shape(),
    "categories": Mix(),
    "missing": Rare("missing"),
    "new values": Rare(RARE_VALUES),
    "length": Length(),
    "wording": Wording(),
}


def drift(
    reference: Reference,
    window: Profile,
    false_alarms: float,
    window_ms: int = DAY_MS,
    start_ms: int | None = None,
    past: Sequence[Past] = (),
) -> tuple[Reading, ...]:
    """One reading a column and test, of the window that begins at `start_ms` alone and merged with the `past` ones, and
    one for each rule that a request was refused for.
    `false_alarms` is the chance that an ordinary window of `window_ms` raises any alarm at all: `Shared` corrects each
    p for the other readings of its span, and for its span's share of the alarms. Without `start_ms` no season is
    known. `window_ms` below 0: the windows have so many rows. Errors: KeyError where none such were calibrated."""
    asked = list(_asked(reference, window_ms))
    broken = refused.causes(window, past)
    judge = _Judge(reference, window, false_alarms, window_ms, start_ms, past, asked, len(broken))
    readings = [judge.reading(subject, name) for subject, name in asked]
    count = judge.shared.questions / SPANS[1]
    return *readings, *(refused.refusal(reference, window, past, one, count, false_alarms) for one in broken)


def _asked(reference: Reference, window_ms: int) -> Iterator[tuple[str, str]]:
    """By column, the tests that were calibrated when the reference was made."""
    known = reference.calibration(window_ms).wobble
    for subject, layout in reference.layouts.items():
        for name, test in TESTS.items():
            if f"{name}:{subject}" in known and test.applies(layout):
                yield subject, name


@dataclass
class _Judge:
    reference: Reference
    window: Profile
    false_alarms: float
    window_ms: int
    start_ms: int | None
    past: Sequence[Past]
    asked: Sequence[tuple[str, str]]
    more: int

    def __post_init__(self) -> None:
        self._merged: dict[tuple[str, int], Column | None] = {}
        self._calibrations = {windows: self.reference.calibration(windows * self.window_ms) for windows in SPANS}
        at = self.start_ms
        self._seasons = [] if at is None else list(seasons.of_window(self.reference, self.window_ms, at))
        self.shared = Shared({windows: self._span(windows) for windows in SPANS}, SPANS, self.more)

    def _span(self, windows: int) -> Span:
        found = {(subject, name): self._asked(subject, name, windows) for subject, name in self.asked}
        return Span({key: one for key, one in found.items() if one is not None})

    def reading(self, subject: str, name: str) -> Reading:
        """Of the shortest span that is an alarm; of the window alone when none is."""
        if (subject, name) not in self.shared.spans[1].asked:
            return Reading(subject, name, Verdict.UNKNOWN, 0.0, 1.0, f"{subject}: no row with a value to compare")
        alarm = next((windows for windows in SPANS if self._alarms(windows, subject, name)), None)
        told = self.shared.spans[alarm or 1].asked[subject, name]
        p = self.shared.corrected(alarm or 1, (subject, name))
        words = f"{subject}: {_words(told, p, alarm is not None, TESTS[name].least_effect, self.false_alarms)}"
        verdict = Verdict.HARM if alarm else Verdict.OK
        return Reading(subject, name, verdict, told.found.effect, p, words, told.windows, told.reference)

    def _alarms(self, windows: int, subject: str, name: str) -> bool:
        """Sure, large, and not over."""
        test, old = TESTS[name], self.reference.profile.columns[subject]
        one = self.shared.spans[windows].asked.get((subject, name))
        if one is None or one.found.effect < test.least_effect:
            return False
        if self.shared.corrected(windows, (subject, name)) > self.false_alarms:
            return False
        merged, newest = self._over(subject, windows), self._over(subject, windows // 4)
        return windows == 1 or (merged is not None and goes_on(test, old, merged, newest or merged))

    def _asked(self, subject: str, name: str, windows: int) -> Asked | None:
        """None: there is nothing to compare."""
        if windows == 1:
            return self._alone(subject, name)
        test, old = TESTS[name], self.reference.profile.columns[subject]
        merged = self._over(subject, windows) if test.slow else None
        if merged is None or not _rows(test, old) or not _rows(test, merged):
            return None
        sizes = self._worth(test, f"{name}:{subject}", merged, windows)
        return max((Asked(windows, test.find(old, merged, size), size) for size in sizes), key=lambda one: one.p)

    def _over(self, subject: str, windows: int) -> Column | None:
        """The column over the last `windows`."""
        if windows <= 1:
            return self.window.columns[subject]
        if (subject, windows) not in self._merged:
            self._merged[subject, windows] = merge(self.window, self.past, windows, subject)
        return self._merged[subject, windows]

    def _alone(self, subject: str, name: str) -> Asked | None:
        """The window by itself, beside its season where that tells more."""
        test, old, new = TESTS[name], self.reference.profile.columns[subject], self.window.columns[subject]
        if not _rows(test, old) or not _rows(test, new):
            return None
        season = next((one for one in self._seasons if f"{name}:{subject}" in one[0].wobble), None)
        if season is None:
            (size,) = self._worth(test, f"{name}:{subject}", new, 1)
            return Asked(1, test.find(old, new, size), size)
        known, slot = season
        then, now = known.slots[slot].columns[subject], seasons.coarse(new, old)
        size = Worth(_rows(test, now), _rows(test, then), known.wobble[f"{name}:{subject}"], known.windows[slot])
        return Asked(1, test.find(then, now, size), size, seasons.words(known, slot))

    def _worth(self, test: DriftTest, key: str, column: Column, windows: int) -> list[Worth]:
        """By the wobble of windows alone, and of so many merged, where there are enough of those: each leaves the other
        out of account. A span too long to be calibrated wobbles, as far as is known, as the longest one that could be.
        Only where the wobble is of one direction is it known how much chance adds to it."""
        old = self.reference.profile.columns[key.partition(":")[2]]
        rows, of = _rows(test, column), _rows(test, old)
        alone, merged = self._calibrations[1], self._calibrations[windows]
        chance = rows / windows * alone.windows / of if test.ranks or isinstance(test, Rare) else 0.0
        by_itself = Worth(rows, of, alone.wobble[key] / windows, alone.windows, chance, windows)
        return [by_itself] if windows == 1 else [by_itself, Worth(rows, of, merged.wobble[key], merged.windows)]


def _rows(test: DriftTest, column: Column) -> int:
    return column.present + (column.missing if isinstance(test, Rare) else 0)


def _chance(p: float, digits: int) -> str:
    """`p = 3e-05`; what is too small for a float is not 0."""
    return f"p = {p:.{digits}g}" if p else "p < 1e-300"


def _words(told: Asked, p: float, alarm: bool, least: float, false_alarms: float) -> str:
    beside = f", beside {told.reference}" if told.reference else ""
    if alarm:
        span = f", over the last {told.windows} windows" if told.windows > 1 else ""
        return f"{told.found.words}{span}{beside} ({_chance(p, 1)} over all columns, alarm at {false_alarms:g})"
    if p <= false_alarms:
        return f"as before{beside}; a change of {told.found.effect:.2g} is sure, but below {least:g}"
    return f"as before{beside} ({_chance(p, 2)} over all columns, alarm at {false_alarms:g})"
