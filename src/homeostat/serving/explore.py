"""The exploration slice: a random share of predictions that callers act on as the policy says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from homeostat.domain.feedback import EXPLORE, Exploration
from homeostat.domain.prediction import SignalBatch
from homeostat.domain.units import ALL
from homeostat.engines.routing import assign
from homeostat.ports import LabelLog


def chosen(slice_: Exploration, model: str, ids: Sequence[str]) -> list[str]:
    """Those in the slice: the same in every process, and whatever is released."""
    buckets = assign(f"{EXPLORE}/{model}", ids)
    return [ids[row] for row in np.flatnonzero(buckets < slice_.share).tolist()]


def marked(slice_: Exploration, model: str, ids: Sequence[str], at_ms: int, labels: LabelLog) -> frozenset[str]:
    """The same, written down before anybody is told. Errors: as of `LabelLog.append_signals`."""
    found = chosen(slice_, model, ids)
    if found:
        n = len(found)
        labels.append_signals(SignalBatch(found, [EXPLORE] * n, [slice_.share / ALL] * n, [at_ms] * n))
    return frozenset(found)
