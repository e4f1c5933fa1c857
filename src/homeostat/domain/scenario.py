"""What is done to a history before it is rehearsed on, and how the loop answers it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from homeostat.domain.event import Event
from homeostat.domain.units import iso


@dataclass(frozen=True, slots=True)
class Injection:
    """One disturbance as it was written (`text`), in force for event times [from_ms, until_ms); None: to the end.

    `amount`: standard deviations, a share of the rows, or milliseconds, as the kind has it; `mode`: how a column
    breaks; `over_ms`: how long it takes to reach its full size.
    """

    text: str
    kind: str
    from_ms: int
    until_ms: int | None = None
    field: str = ""
    amount: float = 0.0
    mode: str = ""
    over_ms: int = 0


@dataclass(frozen=True, slots=True)
class Reaction:
    """How the loop answered an injection. `noticed`: the first alert that can be about it, or what stopped it; `did`:
    what the loop did then, each kind of deed once, in order. `harmed_ms`: from when on the metric was worse than
    before the injection, `recovered_ms`: from when on no longer; None: never."""

    injection: Injection
    noticed: Event | None
    did: tuple[Event, ...]
    harmed_ms: int | None
    recovered_ms: int | None

    @property
    def detect_ms(self) -> int | None:
        """From the injection to the alert."""
        return None if self.noticed is None else self.noticed.at_ms - self.injection.from_ms

    @property
    def recover_ms(self) -> int | None:
        """From the injection to the recovery."""
        return None if self.recovered_ms is None else self.recovered_ms - self.injection.from_ms

    def json(self) -> Mapping[str, Any]:
        """Plain JSON, times in ISO 8601, durations in ms."""
        return {
            "inject": self.injection.text,
            "from": iso(self.injection.from_ms),
            "until": _iso(self.injection.until_ms),
            "noticed": _event(self.noticed) if self.noticed else None,
            "detect_ms": self.detect_ms,
            "did": [_event(event) for event in self.did],
            "harmed": _iso(self.harmed_ms),
            "recovered": _iso(self.recovered_ms),
            "recover_ms": self.recover_ms,
        }


def _iso(at_ms: int | None) -> str | None:
    return None if at_ms is None else iso(at_ms)


def _event(event: Event) -> Mapping[str, Any]:
    return {"at": iso(event.at_ms), "kind": event.kind, "about": event.subject, "text": event.text}
