"""Drift of each window: its profile is made once, judged, and kept for the longer windows and for slow drifts.

A profile is a blob, and the journal's line of its window names it: what is kept in memory can be read again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from homeostat.domain.event import Event
from homeostat.domain.gate import Verdict
from homeostat.domain.monitor import Reading, Window, of_rows
from homeostat.domain.policy import Policy
from homeostat.domain.units import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from homeostat.engines.drift import drift
from homeostat.engines.drift.profile import PREDICTION, Profile
from homeostat.engines.drift.spans import SPANS, Past
from homeostat.ports import Blobs, Counted, Journal, PredictionLog
from homeostat.services.champion import Champion
from homeostat.services.skew import TEST as SCORES
from homeostat.services.skew import Skew
from homeostat.services.tallies import Counter, counted

KIND = "monitor.drift"
PATIENCE_MS = 10 * MINUTE_MS
AT_ONCE = 200_000
"""About so many rows of the log are read at a time."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A window: how many rows it holds, what was found in it, and the digest of its profile."""

    rows: int
    readings: Sequence[Reading]
    profile: str


@dataclass(frozen=True, slots=True)
class _Kept:
    """A window that was judged."""

    start_ms: int
    series: str
    past: Past


class Drifts:
    """The windows of what is served. With `skew` rows of the shortest ones are scored once more."""

    def __init__(
        self,
        policy: Policy,
        log: PredictionLog,
        counted: Counted,
        journal: Journal,
        blobs: Blobs,
        skew: Skew | None = None,
    ) -> None:
        self.policy, self.log, self.counted, self.journal, self.blobs = policy, log, counted, journal, blobs
        self.skew = skew
        self._version = 0
        self._needed_of: Mapping[str, int] = {}
        self._kept: dict[str, list[_Kept]] = {}
        self._stretch_ms = HOUR_MS

    def waits(self, end: int, now: int) -> bool:
        """The window's last rows will soon be in the log's table, and counted. They are not waited for long: there may
        be no compactor."""
        return now < end + PATIENCE_MS and self.counted.waits(self.policy.name, end)

    def judge(self, champion: Champion, window: Window) -> Judged | None:
        """None: the champion has scored no row of the window. One of so many rows is asked of no season: it is as long
        as it takes."""
        start = window.start_ms
        self._recall(champion)
        seen = self._profile(champion, window)
        if not seen.rows and not seen.refused:
            return None
        past = [one.past for one in self._kept[window.series] if one.start_ms < start]
        found = self._found(champion, window, seen, past[-(max(SPANS) - 1) :])
        readings = [reading for reading in found if reading.subject not in self.policy.log.hidden]
        self._keep(_Kept(start, window.series, Past(seen, _alarmed(readings))))
        if self.skew is not None and window.series == str(min(self.policy.monitor.windows)):
            readings.append(self.skew.reading(champion, start, window.end_ms))
        return Judged(seen.rows, readings, self.blobs.put(seen.to_bytes()))

    def _found(self, champion: Champion, window: Window, seen: Profile, past: Sequence[Past]) -> Sequence[Reading]:
        alarm = self.policy.monitor.false_alarms
        if not window.count:
            return drift(champion.reference, seen, alarm, window.length_ms, window.start_ms, past)
        if champion.reference.counted(window.count):
            return drift(champion.reference, seen, alarm, -window.count, None, past)
        why = f"version {champion.arm.version} was made before windows of {window.words} were watched; train anew"
        return [Reading(PREDICTION, "distribution", Verdict.UNKNOWN, 0.0, 1.0, f"{PREDICTION}: {why}")]

    def _recall(self, champion: Champion) -> None:
        """What was judged for this version before; profiles for another one lie in other cells."""
        if self._version == champion.arm.version:
            return
        watched = self.policy.monitor
        needed = {str(length): self._needed(length) for length in watched.windows}
        needed |= {of_rows(count): max(SPANS) for count in watched.rows}
        self._version, self._needed_of, self._kept = champion.arm.version, needed, {series: [] for series in needed}
        for series, most in needed.items():
            events = self.journal.read(self.policy.name, KIND, series)
            known = [event for event in events if event.body["version"] == self._version and "profile" in event.body]
            for event in known[-most:]:
                self._keep(self._read(event, series))

    def _read(self, event: Event, series: str) -> _Kept:
        found = Profile.from_bytes(self.blobs.get(event.body["profile"]))
        alarmed = _alarmed([Reading.read(body) for body in event.body["readings"]])
        return _Kept(event.body["start_ms"], series, Past(found, alarmed))

    def _keep(self, window: _Kept) -> None:
        before = [one for one in self._kept[window.series] if one.start_ms < window.start_ms]
        self._kept[window.series] = [*before, window][-self._needed_of[window.series] :]

    def _needed(self, length: int) -> int:
        """Windows of a length that are kept: for slow drifts, and to make the longer ones of."""
        longer = [one for one in self.policy.monitor.windows if self._step(one) == length]
        return max(max(SPANS), max(longer, default=length) // length)

    def _profile(self, champion: Champion, window: Window) -> Profile:
        """Of shorter windows where there are any: each was read from the log once."""
        start, end = window.start_ms, window.end_ms
        if window.count:
            return self._logged(champion, start, end)
        step = self._step(end - start)
        known: Mapping[int, Profile] = {one.start_ms: one.past.profile for one in self._kept.get(str(step), ())}
        if step == end - start:
            return self._made(champion, start, end)
        parts = [known.get(at) or self._profile(champion, Window(at, at + step)) for at in range(start, end, step)]
        return Profile.total(parts)

    def _step(self, length: int) -> int:
        """The longest part that a window of this length is made of; longer ones than a day are never read at once."""
        shorter = [one for one in self.policy.monitor.windows if one < length and length % one == 0]
        whole_days = [DAY_MS] if length > DAY_MS and length % DAY_MS == 0 else []
        return max([*shorter, *whole_days], default=length)

    def _made(self, champion: Champion, start: int, end: int) -> Profile:
        """Of what was counted on the way into the log's table; from the log itself where that does not tell."""
        hours = self.counted.read(self.policy.name, start, end) or {}
        known = counted(list(hours.values()), champion.arm.bundle)
        return Profile.total(known) if known else self._logged(champion, start, end)

    def _logged(self, champion: Champion, start: int, end: int) -> Profile:
        hidden = self.policy.log.hidden
        count = Counter(champion.arm.version, champion.bundle, champion.reference, hidden)
        found = None
        for rows in self._rows(start, end):
            counted = count(rows)
            found = found + counted if found else counted
        return found or count(self.log.read(self.policy.name, end, end))

    def _rows(self, start: int, end: int) -> Iterator[pl.DataFrame]:
        """A stretch of the log at a time, of about `AT_ONCE` rows as far as the one before it tells."""
        while start < end:
            upto = min(end, start + self._stretch_ms)
            rows = self.log.read(self.policy.name, start, upto)
            yield rows
            self._stretch_ms = max(SECOND_MS, (upto - start) * AT_ONCE // max(1, len(rows)))
            start = upto


def _alarmed(readings: Sequence[Reading]) -> frozenset[str]:
    """The columns that a window raised an alarm for by itself."""
    return frozenset(
        one.subject for one in readings if one.verdict is Verdict.HARM and one.windows == 1 and one.test != SCORES
    )
