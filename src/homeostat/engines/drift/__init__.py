"""Drift: has what the model sees, or answers, changed beyond ordinary life? A stated false-alarm rate at every size.

A new test is one class and one name in `TESTS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from homeostat.domain.gate import Verdict
from homeostat.domain.monitor import Reading
from homeostat.domain.units import DAY_MS
from homeostat.engines.drift import refused, seasons
from homeostat.engines.drift.calibrate import Worth
from homeostat.engines.drift.categorical import RARE_VALUES, Length, Mix, Rare, Wording
from homeostat.engines.drift.numeric import Distribution, Level, Shape
from homeostat.engines.drift.outcome import DriftTest, Found
from homeostat.engines.drift.reference import Profile, Reference, Season
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


@dataclass(frozen=True, slots=True)
class _Asked:
    """What one test found in one column over the last `windows`, beside `reference` ("": all of it); p is corrected."""

    windows: int
    found: Found
    reference: str = ""


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
    `false_alarms` is the chance that an ordinary window of `window_ms` raises any alarm at all: each p is multiplied by
    the number of readings (Bonferroni) and divided by its span's share of the alarms. Without `start_ms` no season is
    known. `window_ms` below 0: the windows have so many rows. Errors: KeyError where none such were calibrated."""
    asked = [(subject, name) for subject in reference.layouts for name in _tests(reference, subject, window_ms)]
    broken = refused.causes(window, past)
    judge = _Judge(reference, window, false_alarms, window_ms, start_ms, past, asked, len(broken))
    readings = [judge.reading(subject, name) for subject, name in asked]
    count = len(asked) + len(broken)
    return *readings, *(refused.refusal(reference, window, past, one, count, false_alarms) for one in broken)


def _tests(reference: Reference, subject: str, window_ms: int) -> list[str]:
    """Those that were calibrated when the reference was made."""
    known, layout = reference.calibration(window_ms).wobble, reference.layouts[subject]
    return [name for name, test in TESTS.items() if test.applies(layout) and f"{name}:{subject}" in known]


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
        slow = sum(TESTS[name].slow for _, name in self.asked)
        self._readings = {windows: len(self.asked) + self.more if windows == 1 else slow for windows in SPANS}
        self._merged: dict[tuple[str, int], Column | None] = {}

    def reading(self, subject: str, name: str) -> Reading:
        """Of the shortest span that is an alarm; of the window alone when none is."""
        alone = self._alone(subject, name)
        if alone is None:
            return Reading(subject, name, Verdict.UNKNOWN, 0.0, 1.0, f"{subject}: no row with a value to compare")
        least = TESTS[name].least_effect
        alarm = next((one for one in self._spans(subject, name, alone) if self._alarms(one, subject, name)), None)
        told = alarm or alone
        words = f"{subject}: {_words(told, alarm is not None, least, self.false_alarms)}"
        verdict = Verdict.HARM if alarm else Verdict.OK
        return Reading(subject, name, verdict, told.found.effect, told.found.p, words, told.windows, told.reference)

    def _spans(self, subject: str, name: str, alone: _Asked) -> Iterator[_Asked]:
        yield alone
        test, old = TESTS[name], self.reference.profile.columns[subject]
        for windows in list(SPANS)[1:] if test.slow else ():
            merged = self._over(subject, windows)
            if merged is not None:
                size = self._worth(test, f"{name}:{subject}", merged, windows)
                yield _Asked(windows, self._corrected(test.find(old, merged, size), size, windows))

    def _alarms(self, one: _Asked, subject: str, name: str) -> bool:
        """Sure, large, and not over."""
        test, old = TESTS[name], self.reference.profile.columns[subject]
        if one.found.p > self.false_alarms or one.found.effect < test.least_effect:
            return False
        merged, newest = self._over(subject, one.windows), self._over(subject, one.windows // 4)
        return one.windows == 1 or (merged is not None and goes_on(test, old, merged, newest or merged))

    def _over(self, subject: str, windows: int) -> Column | None:
        """The column over the last `windows`."""
        if windows <= 1:
            return self.window.columns[subject]
        if (subject, windows) not in self._merged:
            self._merged[subject, windows] = merge(self.window, self.past, windows, subject)
        return self._merged[subject, windows]

    def _alone(self, subject: str, name: str) -> _Asked | None:
        """The window by itself, beside its season where that tells more."""
        test, old, new = TESTS[name], self.reference.profile.columns[subject], self.window.columns[subject]
        if not _rows(test, old) or not _rows(test, new):
            return None
        season = self._season(name, subject)
        if season is None:
            size = self._worth(test, f"{name}:{subject}", new, 1)
            return _Asked(1, self._corrected(test.find(old, new, size), size, 1))
        known, slot = season
        then, now = known.slots[slot].columns[subject], seasons.coarse(new, old)
        size = Worth(_rows(test, now), _rows(test, then), known.wobble[f"{name}:{subject}"], known.windows[slot])
        return _Asked(1, self._corrected(test.find(then, now, size), size, 1), seasons.words(known, slot))

    def _season(self, name: str, subject: str) -> tuple[Season, int] | None:
        if self.start_ms is None:
            return None
        return seasons.season_of(self.reference, name, subject, self.window_ms, self.start_ms)

    def _worth(self, test: DriftTest, key: str, column: Column, windows: int) -> Worth:
        """A span too long to be calibrated wobbles, as far as is known, as the longest one that could be."""
        old = self.reference.profile.columns[key.partition(":")[2]]
        known = self.reference.calibration(windows * self.window_ms)
        return Worth(_rows(test, column), _rows(test, old), known.wobble[key], known.windows)

    def _corrected(self, found: Found, size: Worth, windows: int) -> Found:
        return replace(found, p=min(1.0, size.sure(found.p) * self._readings[windows] / SPANS[windows]))


def _rows(test: DriftTest, column: Column) -> int:
    return column.present + (column.missing if isinstance(test, Rare) else 0)


def _chance(p: float, digits: int) -> str:
    """`p = 3e-05`; what is too small for a float is not 0."""
    return f"p = {p:.{digits}g}" if p else "p < 1e-300"


def _words(told: _Asked, alarm: bool, least: float, false_alarms: float) -> str:
    beside = f", beside {told.reference}" if told.reference else ""
    if alarm:
        span = f", over the last {told.windows} windows" if told.windows > 1 else ""
        return (
            f"{told.found.words}{span}{beside} ({_chance(told.found.p, 1)} over all columns, alarm at {false_alarms:g})"
        )
    if told.found.p <= false_alarms:
        return f"as before{beside}; a change of {told.found.effect:.2g} is sure, but below {least:g}"
    return f"as before{beside} ({_chance(told.found.p, 2)} over all columns, alarm at {false_alarms:g})"
