"""What a drift test is, and what it finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from homeostat.engines.drift.calibrate import Shares, Worth
from homeostat.engines.drift.counts import Counts
from homeostat.engines.drift.texts import Column, Layout


@dataclass(frozen=True, slots=True)
class Found:
    """`effect`: the distance, in the test's unit; `p` of this test alone; `words` complete "temp: …"; `law`: the
    p-values that alarms with the same totals can have, None where any up to `most`."""

    effect: float
    p: float
    words: str
    law: Shares | None = None
    most: float = 1.0


class DriftTest(Protocol):
    """One question about one column, asked of the counts alone."""

    least_effect: float
    """A smaller effect is no alarm, however sure."""
    ranks: bool
    """Its wobble is that of ranks."""
    slow: bool
    """It is asked of merged windows too."""

    def applies(self, layout: Layout) -> bool: ...

    def tables(self, reference: Column, windows: Sequence[Column], /) -> Counts:
        """(w, b) each window's rows in bins fixed by the reference: what the wobble is measured on."""
        ...

    def find(self, reference: Column, window: Column, worth: Worth, /) -> Found: ...
