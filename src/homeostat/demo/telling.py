"""Events of the journal as sentences, and what its daily readings say of a stretch of days."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from homeostat.demo.stream import START_MS
from homeostat.domain.event import Event
from homeostat.domain.gate import GateResult, Measurement, Verdict
from homeostat.domain.units import DAY_MS
from homeostat.engines.report import words

_ZERO = re.compile(r"(?<![\d.])0\.(?=\d)")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the story. `day` counts from 1; 0: no day. `kind`: world (what happens, as nobody in the loop knows
    it), loop (what the loop sees and does), end (the sums)."""

    day: int
    kind: str
    text: str
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class Daily:
    """The metric on one day's labels, of the version that was the champion when they had come."""

    day: int
    version: int
    metric: str
    value: float
    labels: int


def day_of(at_ms: int) -> int:
    return (at_ms - START_MS) // DAY_MS + 1


def sentence(event: Event) -> tuple[str, Verdict | None] | None:
    """An event worth telling, with its evidence; None for one that is not."""
    text = plain(event.text)
    match event.kind:
        case "alert.opened":
            first, *others = text.split("; ")
            more = f" (and {words.counted(len(others), 'more sign')})" if others else ""
            return f"Alert: {first}{more}.", Verdict.UNKNOWN
        case "alert.closed" if event.subject == "performance":
            return (
                "Alert closed: performance; the champion is as good as models of this stream are, or it was replaced.",
                None,
            )
        case "alert.closed":
            return f"Alert closed: {text}.", Verdict.OK
        case "trigger.held" | "trigger.declined":
            return f"{text[0].upper()}{text[1:]}.", None
        case "training.done":
            return f"A model is trained: {text.partition(' was trained: ')[2]}.", None
        case "training.failed":
            return f"A training failed: {text}.", Verdict.HARM
        case "release.started" | "release.advanced":
            return f"{event.subject}: {text}.", None
        case "release.promoted":
            return f"{event.subject}: {text}.", Verdict.OK
        case "release.rolled_back":
            return f"{event.subject} rolled back: {text}.", Verdict.HARM
        case "release.rejected":
            return f"{event.subject}: {text}.", Verdict.INVALID
        case "monitor.metric" if event.subject == str(7 * DAY_MS):
            return f"The week that ended on day {day_of(event.body['end_ms']) - 1}: {text}.", None
    return None


def plain(text: str) -> str:
    """The journal's words as the reports write them: ROC AUC .842, no full stop."""
    for name, shown in words.NAMES.items():
        text = text.replace(name, shown)
    return _ZERO.sub(".", text).rstrip(".")


def gates(results: Sequence[GateResult]) -> str:
    """`ROC AUC versus champion says ok: better by +.236 …`."""
    return "; ".join(plain(f"{gate.name} says {gate.verdict.value}: {gate.reason}") for gate in results)


def daily(events: Sequence[Event]) -> Iterator[Daily]:
    """The readings of the one-day windows in which the metric could be measured, in order."""
    for event in events:
        reading = event.body["readings"][0] if event.kind == "monitor.metric" else None
        if reading and event.subject == str(DAY_MS) and reading["verdict"] == Verdict.OK:
            day, version, labels = day_of(event.body["start_ms"]), event.body["version"], event.body["rows"]
            yield Daily(day, version, reading["subject"], reading["effect"], labels)


def mean(days: Sequence[Daily]) -> Measurement:
    """The mean over at least one day, each weighted by its labels, with the 95 % interval of Student's t over the
    days: the journal holds each day's value. NaN interval for a single day."""
    values, n = np.array([one.value for one in days]), np.array([one.labels for one in days])
    middle = float(np.average(values, weights=n))
    free = len(days) - 1
    error = float("nan")
    if free:
        error = float(stdtrit(free, 0.975) * np.sqrt(np.average((values - middle) ** 2, weights=n) / free))
    return Measurement(days[0].metric, middle, middle - error, middle + error, int(n.sum()))


def shown(days: Sequence[Daily]) -> str:
    """`.842 [.836, .848] over 7 days, 5,600 labels`."""
    found = mean(days)
    span = words.interval(found.value, found.low, found.high)
    return f"{span} over {words.counted(len(days), 'day')}, {words.counted(found.n, 'label')}"
