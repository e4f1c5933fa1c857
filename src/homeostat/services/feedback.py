"""What callers tell: which labels the loop believes, and what a person has decided about a source."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from homeostat.domain.errors import ConfigError
from homeostat.domain.feedback import RULES, FeedbackPolicy, FeedbackStanding, Hold, LabelRule
from homeostat.domain.policy import Policy
from homeostat.domain.prediction import LabelBatch, Role, SignalBatch
from homeostat.domain.schema import Schema
from homeostat.domain.units import DAY_MS, HOUR_MS
from homeostat.engines import attribution, feedback
from homeostat.engines.labels import canonical
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
    """How what callers tell stands, and the labels that rules make of it. `schema`: of what serves; None: nothing."""

    def __init__(
        self,
        policy: Policy,
        log: PredictionLog,
        labels: LabelLog,
        journal: Journal,
        clock: Clock,
        schema: Callable[[], Schema | None],
    ) -> None:
        self.policy, self.log, self.labels = policy, log, labels
        self.journal, self.clock, self.schema = journal, clock, schema
        self._derived_ms = 0

    def turn(self) -> None:
        """Make the labels that the rules say, once an hour."""
        now = self.clock.now_ms()
        if self.policy.feedback.rules and now >= self._derived_ms + HOUR_MS:
            self.derive()
            self._derived_ms = now

    def derive(self) -> int:
        """Labels by rule for the predictions of the last label horizon and the longest rule, where they differ from
        those that are there: made again, or by other rules, they are corrected. → how many are new. Errors:
        `ConfigError` when a rule's label is none of the model's."""
        schema = self.schema()
        if schema is None:
            return 0
        now, rules = self.clock.now_ms(), self.policy.feedback.rules
        texts = [_canonical(schema, number, rule) for number, rule in enumerate(rules)]
        since = now - self.policy.data.label_horizon - max(rule.length_ms for rule in rules)
        found = attribution.decided(rules, self._asked(since, now), self.labels.events(since, now + 1), now)
        said = found.select("id", label=pl.col("rule").replace_strict(dict(enumerate(texts)), return_dtype=pl.String))
        known = self.labels.received(since, now + 1).filter(pl.col("source") == RULES)
        fresh = said.join(feedback.settle(known, {}), on=["id", "label"], how="anti", maintain_order="left")
        if fresh.height:
            ids, n = fresh["id"].to_list(), fresh.height
            self.labels.append(LabelBatch(ids, fresh["label"].to_list(), [now] * n, [RULES] * n))
        return fresh.height

    def _asked(self, since_ms: int, now_ms: int) -> pl.DataFrame:
        """`id`, `key` and `at_ms` of what was answered; read day by day, for the inputs are not wanted."""
        answered = pl.col("role") == Role.ANSWER.value
        days = [
            self.log.read(self.policy.name, start, min(start + DAY_MS, now_ms + 1))
            .filter(answered)
            .select("id", "key", "at_ms")
            for start in range(since_ms, now_ms + 1, DAY_MS)
        ]
        return pl.concat(days)

    def holds(self) -> tuple[Hold, ...]:
        return ()

    def standing(self, last_ms: int) -> FeedbackStanding:
        """Of what came in the last `last_ms`; predictions are known from one label horizon before on."""
        now = self.clock.now_ms()
        since, horizon = now - last_ms, self.policy.data.label_horizon
        answered = self._asked(since - horizon, now)
        trust, holds = self.policy.feedback.sources, self.holds()
        told = feedback.sources(self.labels.received(since, now + 1), answered, trust, holds, horizon)
        return FeedbackStanding(since, told, feedback.events(self.labels.events(since, now + 1), answered), holds)


def _canonical(schema: Schema, number: int, rule: LabelRule) -> str:
    try:
        return canonical(schema, rule.label)
    except ValueError as error:
        raise ConfigError(str(error), where=f"homeostat.yaml  feedback.rules[{number}].label") from None
