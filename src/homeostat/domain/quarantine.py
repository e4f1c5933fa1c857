"""What must not be learned from."""

from __future__ import annotations

from dataclasses import dataclass

from homeostat.domain.schema import Value


@dataclass(frozen=True, slots=True)
class Fault:
    """A column that broke upstream, in rows of [from_ms, until_ms); None: it still is. `kind`: stuck, zero, default,
    missing, unit or renamed; `words` complete "temp: …". `value`: what its rows hold, or the factor of a unit, whose
    rows lie outside of [low, high]."""

    column: str
    kind: str
    words: str
    value: Value = None
    low: float = 0.0
    high: float = 0.0
    from_ms: int = 0
    until_ms: int | None = None
