"""Versions of the training data, and the columns every prepared frame has."""

from __future__ import annotations

from dataclasses import dataclass

EVENT_MS = "__event_ms"
"""When the row happened: milliseconds since 1970, UTC. Rows are sorted by it."""

ENTITY = "__key"
"""Whom the row is about, as text; null where the policy names no key."""


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """One immutable version: the Delta table `datasets/<name>` at `version`.

    `digest` is that of the rows' content; `until_ms` the newest event time in it.
    """

    name: str
    version: int
    digest: str
    rows: int
    from_ms: int
    until_ms: int
