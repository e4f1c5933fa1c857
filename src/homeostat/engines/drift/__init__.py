"""Drift: has what the model sees, or answers, changed beyond ordinary life? A stated false-alarm rate at every size.

A new test is one class and one name in `TESTS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from homeostat.domain.gate import Verdict
from homeostat.domain.monitor import Reading
from homeostat.domain.units import DAY_MS
from homeostat.engines.drift.calibrate import worth
from homeostat.engines.drift.categorical import Mix, Rare
from homeostat.engines.drift.counts import Profile, Reference
from homeostat.engines.drift.numeric import Distribution, Shape
from homeostat.engines.drift.outcome import DriftTest, Found

TESTS: Mapping[str, DriftTest] = {
    "distribution": Distribution(),
    "shape": Shape(),
    "categories": Mix(),
    "missing": Rare("missing"),
    "new values": Rare("values never seen before"),
}


def drift(reference: Reference, window: Profile, false_alarms: float, window_ms: int = DAY_MS) -> tuple[Reading, ...]:
    """One reading a column and test. `false_alarms` is the chance that an ordinary window of `window_ms` raises any
    alarm at all: each p is multiplied by the number of readings (Bonferroni) and held against it."""
    asked = [(subject, name) for subject, layout in reference.layouts.items() for name in _tests(reference, subject)]
    found = {one: _find(reference, window, *one, window_ms) for one in asked}
    return tuple(_reading(*one, found[one], len(asked), false_alarms) for one in asked)


def _tests(reference: Reference, subject: str) -> list[str]:
    return [name for name, test in TESTS.items() if test.applies(reference.layouts[subject])]


def _find(reference: Reference, window: Profile, subject: str, name: str, window_ms: int) -> Found | None:
    """None: the window has no row to ask."""
    old, new = reference.profile.columns[subject], window.columns[subject]
    test, calibration = TESTS[name], reference.calibration(window_ms)
    before, now = int(test.table(old, old).sum()), int(test.table(old, new).sum())
    if not before or not now:
        return None
    size = worth(now, before, calibration.wobble[f"{name}:{subject}"], calibration.windows)
    return test.find(old, new, size)


def _chance(p: float, digits: int) -> str:
    """`p = 3e-05`; what is too small for a float is not 0."""
    return f"p = {p:.{digits}g}" if p else "p < 1e-300"


def _reading(subject: str, name: str, found: Found | None, asked: int, false_alarms: float) -> Reading:
    if found is None:
        return Reading(subject, name, Verdict.UNKNOWN, 0.0, 1.0, f"{subject}: no row with a value to compare")
    found = replace(found, p=min(1.0, found.p * asked))
    sure, large = found.p <= false_alarms, found.effect >= TESTS[name].least_effect
    if sure and large:
        words = f"{subject}: {found.words} ({_chance(found.p, 1)} over all columns, alarm at {false_alarms:g})"
    elif sure:
        words = f"{subject}: as before; a change of {found.effect:.2g} is sure, but below {TESTS[name].least_effect:g}"
    else:
        words = f"{subject}: as before ({_chance(found.p, 2)} over all columns, alarm at {false_alarms:g})"
    return Reading(subject, name, Verdict.HARM if sure and large else Verdict.OK, found.effect, found.p, words)
