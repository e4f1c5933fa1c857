"""Why a training starts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trigger:
    """`key` identifies the cause: a second trigger with the same key does not fire."""

    key: str
    kind: str
    reason: str
    at_ms: int
