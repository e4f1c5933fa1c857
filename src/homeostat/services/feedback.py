"""What callers tell: which labels the loop believes, and what a person has decided about a source."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from homeostat.domain.feedback import FeedbackPolicy, FeedbackStanding, Hold
from homeostat.domain.policy import Policy
from homeostat.domain.prediction import LabelBatch, Role, SignalBatch
from homeostat.engines import feedback
from homeostat.ports import Clock, Journal, LabelLog, PredictionLog


class BelievedLabels:
    """`ports.LabelLog` for all that learns and judges: of contradictory labels the most trusted source's counts, and
    what is held back is not there."""

    def __init__(self, labels: LabelLog, policy: FeedbackPolicy, holds: Callable[[], Sequence[Hold]]) -> None:
        self._labels, self._policy, self._holds = labels, policy, holds

    def read(self, start_ms: int, end_ms: int) -> pl.DataFrame:
        holds = self._holds()
        if not holds and len(set(self._policy.sources.values())) < 2:
            return self._labels.read(start_ms, end_ms)
        received = self._labels.received(start_ms, end_ms).filter(~feedback.held(holds))
        return feedback.settle(received, self._policy.sources)

    def received(self, start_ms: int, end_ms: int) -> pl.DataFrame:
        return self._labels.received(start_ms, end_ms)

    def append(self, batch: LabelBatch) -> None:
        self._labels.append(batch)

    def append_signals(self, batch: SignalBatch) -> None:
        self._labels.append_signals(batch)

    def signals(self, start_ms: int, end_ms: int) -> pl.DataFrame:
        return self._labels.signals(start_ms, end_ms)

    def events(self, start_ms: int, end_ms: int) -> pl.DataFrame:
        return self._labels.events(start_ms, end_ms)


class Feedback:
    """How what callers tell stands."""

    def __init__(self, policy: Policy, log: PredictionLog, labels: LabelLog, journal: Journal, clock: Clock) -> None:
        self.policy, self.log, self.labels, self.journal, self.clock = policy, log, labels, journal, clock

    def holds(self) -> tuple[Hold, ...]:
        return ()

    def standing(self, last_ms: int) -> FeedbackStanding:
        """Of what came in the last `last_ms`; predictions are known from one label horizon before on."""
        now = self.clock.now_ms()
        since, horizon = now - last_ms, self.policy.data.label_horizon
        rows = self.log.read(self.policy.name, since - horizon, now + 1)
        answered = rows.filter(pl.col("role") == Role.ANSWER.value).select("id", "at_ms")
        trust, holds = self.policy.feedback.sources, self.holds()
        told = feedback.sources(self.labels.received(since, now + 1), answered, trust, holds, horizon)
        return FeedbackStanding(since, told, feedback.events(self.labels.events(since, now + 1), answered), holds)
