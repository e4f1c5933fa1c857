"""Would it help? A model fitted on all labels but the newest beside the champion, on the newest ones. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from homeostat.domain.units import DAY_MS
from homeostat.engines.evidence import mean_evidence, tally

Array = NDArray[np.float64]
Times = NDArray[np.int64]

DAYS, LABELS = 3, 100
"""The newest labels that a probe is tested on: of so many days, and at least so many. Older ones tell of the world
before the change; fewer tell nothing."""
FEW = 50
"""Labels since a change from which those before it don't count for earlier versions."""
LEAST = 20
"""Fewer labels that the champion has not learned from say nothing of it."""
HELPS = 1.5
"""E from which a fit is worth its training, while nothing of the budget is spent. Missing a gain costs what the
champion loses until the next look; a training without one costs a training, and its release finds out: so no more than
3 to 2 is asked for, where a release asks for 50."""
SURE = 50.0
"""E from which an earlier version is taken back without a training, for each version that was tried: there are many of
them, and the best of many looks good by chance. The same that a release calls harm."""
ORDINARY, TURNED = 1.25, 3.0
"""How much worse than when it was made, in odds, an earlier version may be whose world has returned; and how much worse
than ordinary the champion must be whose world has gone, where no alert says so yet."""


def turned(ordinary: float) -> float:
    """The mean loss of a champion whose world has gone, from the ordinary one."""
    return TURNED * ordinary / (1 - ordinary + TURNED * ordinary)


def worth(trainings: int, left: int) -> float:
    """E from which a fit is worth one of the trainings that are `left` of the budget's `trainings`: the scarcer they
    are, the more each has to promise, so that they go where the gain is largest."""
    return HELPS * trainings / left


def newest(times: Times, longest_ms: int, since_ms: int = 0) -> int:
    """Where the stretch that a probe is tested on begins, in ascending times (n,), n > 0: it is never longer than
    `longest_ms`, and does not begin before `since_ms` where `FEW` times have come since."""
    enough = int(times[-min(LABELS, len(times))]) - 1
    start = max(min(int(times[-1]) - DAYS * DAY_MS, enough), int(times[-1]) - longest_ms)
    found, since = int(np.searchsorted(times, start, side="right")), int(np.searchsorted(times, since_ms))
    return max(found, since) if len(times) - since >= FEW else found


def halfway(times: Times, since_ms: int) -> int:
    """The middle of what came since a change, in ascending times (n,): the older half can be learned from, the newer
    one tells whether that helps. 0 where that is less than `LABELS`, or no change is known."""
    since = int(np.searchsorted(times, since_ms))
    return int(times[(since + len(times)) // 2]) if since_ms and len(times) - since >= 2 * LABELS else 0


def halves(times: Times, since_ms: int) -> list[int]:
    """When a change may have begun that losses show from `since_ms` on: then, in the middle of what came since in the
    ascending times (n,), in the middle of the rest, and so on, while enough came after. Losses wander, and often rose
    a little before."""
    found, k = list[int](), int(np.searchsorted(times, since_ms))
    while len(times) - k >= FEW:
        found.append(int(times[k]))
        k = (k + len(times) + 1) // 2
    return found


def gain(champion: Array, other: Array) -> tuple[float, float]:
    """From losses (n,) in [0, 1] on the same rows → the mean by which `other` loses less, and E against "it loses no
    less" (Waudby-Smith & Ramdas 2023, by `engines.evidence`)."""
    differences = champion - other
    return float(differences.mean()), mean_evidence(tally(differences))
