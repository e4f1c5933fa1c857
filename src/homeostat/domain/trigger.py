"""Why a training starts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trigger:
    """`key` identifies the cause: a second trigger with the same key does not fire. `since_ms`: when the world most
    likely began to change, 0 where the champion shows no sign of that."""

    key: str
    kind: str
    reason: str
    at_ms: int
    since_ms: int = 0
