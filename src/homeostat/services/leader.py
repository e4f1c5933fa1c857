"""Which of several control planes on one database leads.

The one that leads gives a sign of life a second. One in reserve takes over when it has seen none for `PATIENCE_MS` by
its own clock: no two clocks are compared. What makes it safe is not the time but the term: each take-over begins a new
one, and the stores refuse what is written in an older one.
"""

from __future__ import annotations

from collections.abc import Callable

from homeostat.domain.rollout import Term
from homeostat.ports import Leases

BEAT_S = 1.0
PATIENCE_MS = 5_000


class Leader:
    """Whether this process leads. `look` is called every `BEAT_S`, by one thread."""

    def __init__(self, leases: Leases, model: str, holder: str, now_ms: Callable[[], int]) -> None:
        """`now_ms`: of a clock that never jumps."""
        self._leases, self._model, self._holder, self._now_ms = leases, model, holder, now_ms
        self._term: Term | None = None
        self._seen, self._since_ms = Term(), 0

    def look(self) -> bool:
        """Give a sign of life, or watch for those of another. → whether this process leads."""
        if self._term is not None:
            self._term = self._leases.beat(self._term, self._model)
        else:
            self._watch()
        return self._term is not None

    def term(self) -> int:
        """The term in which this process leads; 0: it does not."""
        return self._term.number if self._term else 0

    def leave(self) -> None:
        """In an orderly end: the next one need not wait."""
        if self._term is not None:
            self._leases.leave(self._term, self._model)
            self._term = None

    def _watch(self) -> None:
        seen, now = self._leases.read(self._model), self._now_ms()
        if seen != self._seen:
            self._seen, self._since_ms = seen, now
        if not seen.holder or now - self._since_ms >= PATIENCE_MS:
            self._term = self._leases.take(seen, self._model, self._holder)
