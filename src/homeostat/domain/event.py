"""What happened, in order: the append-only history of the loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LOOK = "release.look"
"""A look at a release that moved nothing: part of its course, too frequent to be told."""


BACKTEST = "release.backtest"
"""What the backtest of a release found: once a release, the body a `Backtested`."""


@dataclass(frozen=True, slots=True)
class Event:
    """`kind` is noun.verb (`release.advanced`); `key` identifies it: the same key is recorded once, so that a
    repeated pass after a crash writes nothing twice. `subject` names a release, run, alert or trigger; `body` is
    plain JSON."""

    at_ms: int
    model: str
    kind: str
    key: str
    subject: str
    text: str
    body: Mapping[str, Any] = field(default_factory=dict)
