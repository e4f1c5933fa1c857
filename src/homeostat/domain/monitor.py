"""What was watched and what it said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from homeostat.domain.gate import Verdict
from homeostat.domain.units import show_duration


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of event time [start, end) and how many answers it holds. `count`: it ends with its so manieth answer;
    0: it is as long as others of its series."""

    start_ms: int
    end_ms: int
    rows: int = 0
    count: int = 0

    @property
    def length_ms(self) -> int:
        return self.end_ms - self.start_ms

    @property
    def series(self) -> str:
        """What windows that follow each other have in common."""
        return of_rows(self.count) if self.count else str(self.length_ms)

    @property
    def words(self) -> str:
        return f"{self.count:,} rows" if self.count else show_duration(self.length_ms)


def of_rows(count: int) -> str:
    """The series of windows of so many answers."""
    return f"{count} rows"


@dataclass(frozen=True, slots=True)
class Reading:
    """One watched column (or metric) in one window.

    Drift: `effect` is the distance (KS D, total variation, or points of missing share), `p` the Bonferroni-adjusted
    p-value, `test` which test it was, `windows` how many in a row it speaks of, `reference` the part of the bundle's
    reference that they were compared with ("": all of it). A metric: `effect` is its value, `p` 1. `example`: a
    prediction that shows it, where the test itself knows one.
    """

    subject: str
    test: str
    verdict: Verdict
    effect: float
    p: float
    reason: str
    windows: int = 1
    reference: str = ""
    example: str = ""

    @staticmethod
    def read(body: Mapping[str, Any]) -> Reading:
        """From the journal."""
        return replace(Reading(**body), verdict=Verdict(body["verdict"]))


class Severity(StrEnum):
    """How soon a person should look: when there is time, today, now."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        return list(Severity).index(self)


SEVERITIES: Mapping[str, Severity] = {
    "inputs": Severity.INFO,
    "predictions": Severity.INFO,
    "broken": Severity.WARNING,
    "requests": Severity.WARNING,
    "labels": Severity.WARNING,
    "class": Severity.WARNING,
    "performance": Severity.WARNING,
    "healing": Severity.WARNING,
    "log": Severity.WARNING,
    "channel": Severity.WARNING,
    "other": Severity.WARNING,
}
"""Kinds of alerts. Drift is not damage: alone it pages nobody."""


@dataclass(frozen=True, slots=True)
class Cause:
    """What may be behind an alert. `kind`: broken, a column; within or mix, a segment that does worse or grew; drift;
    release, training, environment or log, what changed; class, a new one. `at_ms`: when, if it is known."""

    kind: str
    words: str
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Alert:
    """One cause, once: open from `opened_ms` until `closed_ms`. `key` identifies it; `name` is what people say (A3).

    `subject`: kind and columns, the same whenever the same cause comes again. `columns`: by weight, the heaviest
    first. `window_ms`: the length of the window that found it, 0 for none; `window_rows`: it ended with its so manieth
    row, 0: it is one of time. `causes`: the likeliest first. `example`: a
    prediction id. `acked`: who has taken it, "" for nobody.
    """

    key: str
    title: str
    evidence: str
    opened_ms: int
    closed_ms: int | None = None
    subject: str = ""
    kind: str = ""
    severity: Severity = Severity.WARNING
    columns: tuple[str, ...] = ()
    window_ms: int = 0
    window_rows: int = 0
    causes: tuple[Cause, ...] = ()
    example: str = ""
    name: str = ""
    acked: str = ""

    @staticmethod
    def read(body: Mapping[str, Any], subject: str) -> Alert:
        """From the journal; what an older version wrote has no kind of its own."""
        made = Alert(**body)
        word = (made.kind or subject).partition(" ")[0]
        kind = word if word in SEVERITIES else "other"
        severity = Severity(made.severity) if made.kind else SEVERITIES[kind]
        causes = tuple(Cause(**cause) for cause in body.get("causes", ()))
        return replace(made, subject=subject, kind=kind, severity=severity, columns=tuple(made.columns), causes=causes)
