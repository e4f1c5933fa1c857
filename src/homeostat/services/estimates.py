"""The policy's metric before its labels are there: one estimate a window. It is called estimated wherever it stands,
and promotes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.estimate import Estimate
from homeostat.domain.event import Event
from homeostat.domain.gate import Verdict
from homeostat.domain.monitor import Reading, Window
from homeostat.domain.policy import Policy
from homeostat.engines.estimate import Expected, estimate, expected, nothing_held
from homeostat.ports import Blobs, Clock, Journal
from homeostat.services.champion import Champion
from homeostat.services.holdout import held

KIND = "monitor.estimate"
TEST = "estimated"


class Estimates:
    """What is learned from a champion's holdout is kept while it serves."""

    def __init__(self, policy: Policy, blobs: Blobs, journal: Journal, clock: Clock) -> None:
        self.policy, self.blobs, self.journal, self.clock = policy, blobs, journal, clock
        self._known: tuple[str, Expected] | None = None

    def judge(
        self, champion: Champion, window: Window, inputs: pl.DataFrame, output: NDArray[np.float64]
    ) -> Sequence[Reading]:
        """Record what the metric is expected to be on the rows of a window: a column a field, output (n, c)."""
        found = estimate(self._expected(champion), inputs, output)
        reading = Reading(found.metric, TEST, found.verdict, _value(found), 1.0, str(found))
        self._record(champion, window, found, reading)
        return (reading,)

    def _expected(self, champion: Champion) -> Expected:
        if self._known is None or self._known[0] != champion.arm.bundle:
            metric, schema = self.policy.train.metric, champion.bundle.schema
            rows = held(self.blobs, champion.bundle)
            made = expected(metric, schema, rows) if rows else nothing_held(metric)
            self._known = champion.arm.bundle, made
        return self._known[1]

    def _record(self, champion: Champion, window: Window, found: Estimate, reading: Reading) -> None:
        length = window.end_ms - window.start_ms
        body = {**asdict(window), "version": champion.arm.version, "readings": [asdict(reading)]}
        if found.verdict is not Verdict.UNKNOWN:
            body["estimate"] = asdict(found)
        key, at = f"{KIND}:{length}:{window.end_ms}", self.clock.now_ms()
        self.journal.append(Event(at, self.policy.name, KIND, key, str(length), reading.reason, body))


def _value(found: Estimate) -> float:
    return 0.0 if found.verdict is Verdict.UNKNOWN else found.value
