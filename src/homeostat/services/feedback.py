"""What callers tell, how it stands, and what a person has decided about a source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

import polars as pl

from homeostat.domain.errors import ConfigError, NotFound
from homeostat.domain.event import Event
from homeostat.domain.feedback import RULES, FeedbackStanding, Hold, LabelRule
from homeostat.domain.policy import Policy
from homeostat.domain.prediction import LabelBatch, Role
from homeostat.domain.schema import Schema
from homeostat.domain.units import DAY_MS, HOUR_MS, iso
from homeostat.engines import attribution, feedback
from homeostat.engines.labels import canonical
from homeostat.ports import Clock, Journal, LabelLog, PredictionLog

UNNAMED_TEXT = "no named source"


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
        self._suspicions: tuple[Hold, ...] | None = None

    def turn(self) -> None:
        """See what a person has decided; make the labels that the rules say, once an hour."""
        self._suspicions = None
        now = self.clock.now_ms()
        if self.policy.feedback.rules and now >= self._derived_ms + HOUR_MS:
            self.derive(self._derived_ms or self._alive_ms())
            self._derived_ms = now

    def _alive_ms(self) -> int | None:
        """When a control plane before this one watched last; None: none did."""
        watched = self.journal.read(self.policy.name, "monitor.")
        return watched[-1].at_ms if watched else None

    def derive(self, derived_ms: int | None = None) -> int:
        """Labels by rule for the predictions of the last label horizon and the longest rule, and of so long before
        `derived_ms`, when that was done the last time; where they differ from those that are there: made again, or by
        other rules, they are corrected. → how many are new. Errors: `ConfigError` when a rule's label is none of the
        model's."""
        schema = self.schema()
        if schema is None:
            return 0
        now, rules = self.clock.now_ms(), self.policy.feedback.rules
        texts = {i: _canonical(schema, i, rule) for i, rule in enumerate(rules) if rule.answer is None}
        longest = max(rule.length_ms for rule in rules)
        since = min(now, derived_ms or now) - self.policy.data.label_horizon - longest
        asked = self._asked(since, now)
        found = attribution.decided(rules, asked, self.labels.events(since, now + 1), now)
        said = _said(schema, rules, texts, found.join(asked.select("id", "label"), on="id", maintain_order="left"))
        known = self.labels.received(since, now + 1).filter(pl.col("source") == RULES)
        fresh = said.join(feedback.settle(known, {}), on=["id", "label"], how="anti", maintain_order="left")
        if fresh.height:
            ids, n = fresh["id"].to_list(), fresh.height
            self.labels.append(LabelBatch(ids, fresh["label"].to_list(), [now] * n, [RULES] * n))
        return fresh.height

    def _asked(self, since_ms: int, now_ms: int) -> pl.DataFrame:
        """`id`, `key`, `at_ms` and `label` of what was answered; read day by day, for the inputs are not wanted."""
        answered = pl.col("role") == Role.ANSWER.value
        days = [
            self.log.read(self.policy.name, start, min(start + DAY_MS, now_ms + 1), False)
            .filter(answered)
            .select("id", "key", "at_ms", "label")
            for start in range(since_ms, now_ms + 1, DAY_MS)
        ]
        return pl.concat(days)

    def holds(self) -> tuple[Hold, ...]:
        """What is held back."""
        return tuple(one for one in self.suspicions() if one.held)

    def suspicions(self) -> tuple[Hold, ...]:
        """What is suspicious, held back or not. As of the last `turn`, or of the first question."""
        if self._suspicions is None:
            self._suspicions = feedback.suspicions(self._events())
        return self._suspicions

    def accepted_ms(self, source: str) -> int:
        """Since when a person's last word says that its labels are right; 0 when nobody has said so."""
        told = [event for event in self._events() if event.kind == feedback.ACCEPTED and event.body["source"] == source]
        return int(told[-1].body["from_ms"]) if told else 0

    def cleared_ms(self, source: str, why: str) -> int:
        """From when on its labels count again, of the last time that they were cleared for this reason; 0: never."""
        told = [event.body for event in self._events() if event.kind == feedback.CLEARED]
        return max(
            (int(body["until_ms"]) for body in told if (body["source"], body["reason"]) == (source, why)), default=0
        )

    def tell(self, kind: str, hold: Hold, who: str = "") -> Event:
        """Write down what is known, or decided, of a source."""
        now, name = self.clock.now_ms(), hold.source or UNNAMED_TEXT
        by = f" by {who}" if who else ""
        text = f"Labels of {name} from {iso(hold.from_ms)} on: {kind.removeprefix('feedback.')}{by}; {hold.reason}."
        key = f"{kind}:{hold.source}:{hold.from_ms}:{now}"
        event = Event(now, self.policy.name, kind, key, name, text, asdict(hold) | {"who": who})
        self.journal.append(event)
        self._suspicions = None
        return event

    def decide(self, kind: str, source: str, from_ms: int | None, reason: str, who: str) -> Event:
        """Accept or reject a source's labels from a time on; by default from where they became suspicious. Errors:
        `NotFound` when they did not."""
        known = [one for one in self.suspicions() if one.source == source]
        if from_ms is None and not known:
            raise NotFound(
                f"no labels of {source or UNNAMED_TEXT} are suspicious",
                way_out="Say from when, with --from; `homeostat feedback status` names the sources.",
            )
        start = known[-1].from_ms if from_ms is None else from_ms
        return self.tell(kind, Hold(source, start, None, reason or "no reason given"), who)

    def _events(self) -> Sequence[Event]:
        return [event for event in self.journal.read(self.policy.name, "feedback.") if "from_ms" in event.body]

    def standing(self, last_ms: int) -> FeedbackStanding:
        """Of what came in the last `last_ms`; predictions are known from one label horizon before on."""
        now = self.clock.now_ms()
        since, horizon = now - last_ms, self.policy.data.label_horizon
        answered = self._asked(since - horizon, now)
        self._suspicions = None
        trust, holds = self.policy.feedback.sources, self.suspicions()
        told = feedback.sources(self.labels.received(since, now + 1), answered, trust, holds, horizon)
        return FeedbackStanding(since, told, feedback.events(self.labels.events(since, now + 1), answered), holds)


def _said(schema: Schema, rules: Sequence[LabelRule], texts: Mapping[int, str], found: pl.DataFrame) -> pl.DataFrame:
    """`id` and `label` of what a rule fits: of `found`, with the answered `label` and the index of the `rule`."""
    other = dict(zip(map(str, schema.classes), map(str, reversed(schema.classes)), strict=True))
    label = pl.col("rule").replace_strict(texts, default=None, return_dtype=pl.String)
    answered = pl.col("label").is_in(list(other))  # it may be of a version that knew other classes
    for said, mine in (("right", pl.col("label")), ("wrong", pl.col("label").replace(other))):
        which = [i for i, rule in enumerate(rules) if rule.answer == said]
        label = pl.when(pl.col("rule").is_in(which) & answered).then(mine).otherwise(label)
    return found.select("id", label=label).drop_nulls()


def _canonical(schema: Schema, number: int, rule: LabelRule) -> str:
    try:
        return canonical(schema, rule.label)
    except ValueError as error:
        raise ConfigError(str(error), where=f"homeostat.yaml  feedback.rules[{number}].label") from None
