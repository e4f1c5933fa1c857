"""Which alerts the drift of a window opens and closes, and what may be behind an alert."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from homeostat.domain.event import Event
from homeostat.domain.gate import Verdict
from homeostat.domain.monitor import Alert, Cause, Reading, Window
from homeostat.domain.moved import Ranked
from homeostat.domain.units import DAY_MS, iso
from homeostat.engines.drift.profile import PREDICTION
from homeostat.engines.drift.refused import REQUESTS

TOP = 3
"""Causes that an alert names."""
NAMED = 5
"""Columns that a title names."""
NEAR_MS = 3 * DAY_MS
"""A change so long before counts for 1 / e of one that was just then."""
MOVED, REFUSED = ("inputs", "predictions", "broken"), ("requests", "broken")
"""Kinds of alerts that say which columns are not as before; and for which requests are refused."""
BROKEN = 2.0
"""The weight of a broken column: before every change and every drift."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What a window's drift means: alerts that are over, and the columns of one that opens, by weight; () for none."""

    over: tuple[Alert, ...]
    columns: tuple[str, ...]


def settle(
    alerts: Sequence[Alert],
    readings: Iterable[Reading],
    window: Window,
    importance: Mapping[str, float] = MappingProxyType({}),
    kinds: Sequence[str] = MOVED,
) -> Settled:
    """`alerts`: every one there was; `readings`: of one window. All that begins to move in one window is one cause; its
    columns stand by what they matter (`importance`: field → what the loss rises by without it) times how far they
    moved. `kinds` of alerts tell of such causes.

    The series of windows that opened an alert says when it is over, and what one has told and closed within a
    longer window is not told again by it. A broken column is no drift, and answers that move with their inputs are no
    second cause, nor requests that are refused, nobody knows for which field, while a column is broken.
    """
    moved = strongest(readings)
    told = [one for one in alerts if one.kind in kinds and (one.closed_ms is None or one.closed_ms > window.start_ms)]
    drifting = [one for one in told if one.closed_ms is None and one.kind != "broken"]
    mine = [one for one in drifting if found_by(one, window)]
    over = tuple(one for one in mine if not moved.keys() & {*one.columns})
    known = {column for one in told for column in one.columns}

    def weight(name: str) -> tuple[float, float]:
        return max(0.0, importance.get(name, 0.0)) * moved[name].effect, moved[name].effect

    new = [column for column in sorted(moved, key=weight, reverse=True) if column not in known]
    explained = (new == [PREDICTION] and any(one not in over for one in told)) or (
        new == [REQUESTS] and any(one.kind == "broken" for one in told)
    )
    return Settled(over, () if explained else tuple(new))


def found_by(alert: Alert, window: Window) -> bool:
    """It was opened by the window's series, or by none."""
    if alert.window_rows or window.count:
        return alert.window_rows == window.count
    return alert.window_ms in (0, window.length_ms)


def _broken(alerts: Iterable[Alert]) -> list[Alert]:
    return [one for one in alerts if one.kind == "broken"]


def strongest(readings: Iterable[Reading]) -> dict[str, Reading]:
    """The reading of the largest effect, for each column that moved."""
    found: dict[str, Reading] = {}
    for one in readings:
        if one.verdict is Verdict.HARM and (one.subject not in found or one.effect > found[one.subject].effect):
            found[one.subject] = one
    return found


def title(columns: Sequence[str]) -> str:
    """`amount drifted`; the answers are named only where nothing else moved."""
    inputs = [name for name in columns if name != PREDICTION]
    if not inputs:
        return "predictions drifted"
    return f"{named(inputs)} drifted" if len(inputs) == 1 else f"{len(inputs)} inputs drifted: {named(inputs)}"


def named(columns: Sequence[str]) -> str:
    """`a, b, c, d, e and 2 more`."""
    more = f" and {len(columns) - NAMED} more" if len(columns) > NAMED else ""
    return ", ".join(columns[:NAMED]) + more


def likely(
    kind: str, alerts: Iterable[Alert], events: Sequence[Event], from_ms: int, until_ms: int
) -> tuple[Cause, ...]:
    """What may be behind an alert of this kind that began at `from_ms`, the likeliest first: columns that are broken;
    columns that drifted in windows since then, by effect; what changed in the loop, the more the nearer."""
    sick = [one for one in _broken(alerts) if one.closed_ms is None or one.closed_ms > from_ms]
    weighed = [(BROKEN, Cause("broken", f"{one.title} ({one.name})", one.opened_ms)) for one in sick]
    by = {event.subject: event.body["by"] for event in events if event.kind == DIFFERS}
    for event in events:
        if kind != "inputs" and event.kind in CHANGES and event.at_ms <= until_ms:
            near = math.exp(-abs(from_ms - event.at_ms) / NEAR_MS)
            more = f"; new in it: {by[event.subject]}" if by.get(event.subject) else ""
            words = f"{event.text} ({iso(event.at_ms)}){more}"
            weighed.append((near, Cause(CHANGES[event.kind], words, event.at_ms)))
    for subject, (reading, at_ms) in _drifted(events, from_ms, until_ms).items():
        if subject != PREDICTION:
            weighed.append((reading.effect, Cause("drift", f"drift of {reading.reason}", at_ms)))
    best = sorted((one for one in weighed if one[0] >= LEAST), key=lambda one: -one[0])
    return tuple(cause for _, cause in best[:TOP])


def ranked(own: Sequence[Cause], found: Sequence[Ranked]) -> tuple[Cause, ...]:
    """`own`: what `likely` names; `found`: segments and drift by what they account for in the loss, which are better
    than drift by its size. Broken columns stand first, what changed in the loop last."""
    measured = [Cause(one.kind, one.text) for one in found if one.kind != "change"]
    first = [one for one in own if one.kind == "broken"]
    last = [one for one in own if one.kind not in ("broken", "drift")]
    return (*first, *(measured or [one for one in own if one.kind == "drift"]), *last)[:TOP]


ENVIRONMENT = "environment.changed"
"""Packages, Python or the machine of the control plane are not those that it had when it started the last time."""
DIFFERS = "version.differs"
"""What a promoted version does not have in common with the one it replaced: data, code, parameters, packages."""
CHANGES: Mapping[str, str] = {
    ENVIRONMENT: "environment",
    "release.promoted": "release",
    "release.rolled_back": "release",
    "training.failed": "training",
    "log.removed": "log",
    "feedback.class": "class",
}
"""Events that change what answers or what is learned, and the kind of cause that each is."""
LEAST = 0.03
"""A smaller weight is no cause to name."""


def _drifted(events: Iterable[Event], from_ms: int, until_ms: int) -> dict[str, tuple[Reading, int]]:
    """The strongest harm of each column in windows that reach into the stretch, and when that window began."""
    found: dict[str, tuple[Reading, int]] = {}
    for event in events:
        if event.kind == "monitor.drift" and from_ms < event.body["end_ms"] <= until_ms:
            said = [Reading.read(body) for body in event.body["readings"]]
            for name, one in strongest(said).items():
                if name not in found or one.effect > found[name][0].effect:
                    found[name] = one, event.body["start_ms"]
    return found
