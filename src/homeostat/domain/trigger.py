"""Why a training starts, and whether it is worth it."""

from __future__ import annotations

from dataclasses import dataclass

from homeostat.domain.bundle import Version
from homeostat.domain.units import DAY_MS, show_duration

REFIT, SWEEP, PREVIOUS, SINCE = "refit", "sweep", "previous", "since"
"""Remedies: a training, one with other parameters, the release of an earlier version, and a training that forgets what
was before a change."""


BACKGROUND = "background"
"""The kind of a trigger without a cause: a challenger is kept training."""
ACCOUNT_MS = 7 * DAY_MS
"""The stretch of time over which that is paid for."""


def in_background(key: str) -> bool:
    """Whether the trigger with this key trains the challenger of the background."""
    return key.startswith(f"{BACKGROUND}:")


@dataclass(frozen=True, slots=True)
class Trigger:
    """`key` identifies the cause: a second trigger with the same key does not fire. `since_ms`: when the world most
    likely began to change, 0 where the champion shows no sign of that; `surely`: that is more than a sign. `remedy`:
    what is done about it: `refit`, `sweep`, `window:` with milliseconds, `since:` with the time of a change, or
    `previous:` with the version's number."""

    key: str
    kind: str
    reason: str
    at_ms: int
    since_ms: int = 0
    surely: bool = False
    remedy: str = REFIT


@dataclass(frozen=True, slots=True)
class Probed:
    """What a probe found: `gain`, by how much the loss falls in the mean, over the `n` newest labels; E against "there
    is no gain". `rows`: what it was fitted on, 0 when nothing was fitted; `seconds` of it, and their price.
    `since_ms`: it learns from nothing before that, 0: from all that it is given."""

    helps: bool
    reason: str
    gain: float = 0.0
    evidence: float = 0.0
    n: int = 0
    rows: int = 0
    seconds: float = 0.0
    price: float = 0.0
    since_ms: int = 0

    @property
    def cost(self) -> str:
        """One line; a simulated clock measures no seconds."""
        took = f" in {self.seconds:.2g} s" if self.seconds else ""
        price = f", {self.price:.2g} in money" if self.price else ""
        return f"Cost: {self.rows:,} rows fitted{took}{price}." if self.rows else ""


@dataclass(frozen=True, slots=True)
class Spent:
    """On the challengers of the background: `used` of `budget`, both shares of one core's time in the last week; the
    last one took `last` of it. `waits_for`: the next one, for the release of the last one, in shadow now, or for an
    experiment; "" for neither."""

    budget: float
    used: float
    last: float
    waits_for: str

    @property
    def room(self) -> bool:
        """For one more that takes what the last one took."""
        return self.used + self.last < self.budget

    def __str__(self) -> str:
        last = f"used in the last {show_duration(ACCOUNT_MS)}"
        full = "" if self.room else f"; no room for one more, which takes {_percent(self.last)}"
        return f"{_percent(self.used)} of {_percent(self.budget)} of a core {last}{full}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


@dataclass(frozen=True, slots=True)
class Remembered:
    """An earlier version that is better than the champion on the newest labels."""

    version: Version
    probed: Probed
