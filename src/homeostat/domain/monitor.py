"""What was watched and what it said."""

from __future__ import annotations

from dataclasses import dataclass

from homeostat.domain.gate import Verdict


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of event time [start, end) and how many answers it holds."""

    start_ms: int
    end_ms: int
    rows: int


@dataclass(frozen=True, slots=True)
class Reading:
    """One watched column (or metric) in one window.

    Drift: `effect` is the distance (KS D, total variation, or points of missing share), `p` the Bonferroni-adjusted
    p-value, `test` which test it was, `windows` how many in a row it speaks of, `reference` the part of the bundle's
    reference that they were compared with ("": all of it). A metric: `effect` is its value, `p` 1.
    """

    subject: str
    test: str
    verdict: Verdict
    effect: float
    p: float
    reason: str
    windows: int = 1
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Alert:
    """One cause, once. `key` identifies the cause; the alert is open until `closed_ms`."""

    key: str
    title: str
    evidence: str
    opened_ms: int
    closed_ms: int | None = None
