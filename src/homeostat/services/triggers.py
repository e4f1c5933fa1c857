"""Triggers as they happen: each cause starts one training, and a crash in the middle loses none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

from homeostat.domain.event import Event
from homeostat.domain.policy import Policy
from homeostat.domain.trigger import Trigger
from homeostat.engines import trigger as rule
from homeostat.engines.trigger import NotFired, TriggerSeen
from homeostat.ports import Clock, Journal, Rollouts
from homeostat.services.performance import Performance


class Triggers:
    """`performance` gives the champion's change since it was made (None: nothing is served)."""

    def __init__(
        self,
        policy: Policy,
        journal: Journal,
        rollouts: Rollouts,
        clock: Clock,
        performance: Callable[[], Performance | None],
    ) -> None:
        self.policy, self.journal, self.rollouts, self.clock = policy, journal, rollouts, clock
        self.performance = performance

    def check(self) -> Trigger | None:
        """Fire at most one trigger. A cause that is held back is noted once for each rule that holds it."""
        if (waiting := self.pending()) is not None:
            return waiting
        outcome = rule.fire(self.policy.retrain, self._seen())
        if isinstance(outcome, NotFired):
            self._note(outcome)
            return None
        self._write("trigger.fired", outcome.key, outcome.key, outcome.reason, outcome)
        return outcome

    def ask(self, reason: str) -> Trigger:
        """Order a training by hand."""
        now = self.clock.now_ms()
        order = Trigger(f"manual:{now}", "manual", reason or "asked by hand", now)
        self._write("trigger.asked", f"asked:{order.key}", order.key, order.reason, order)
        return order

    def pending(self) -> Trigger | None:
        """Fired, but its training neither done nor failed."""
        ended = {event.subject for event in self._events("training.")}
        return next((cause for cause in self._read("trigger.fired") if cause.key not in ended), None)

    def done(self, trigger: Trigger, run: str = "", failure: str = "", note: str = "") -> None:
        """The trigger's training ended: with a run and what came of it (`note`), or with what went wrong. Said twice,
        it is written once."""
        kind = "training.failed" if failure else "training.done"
        text = failure or " ".join(part for part in (f"Run {run} was trained: {trigger.reason}.", note) if part)
        body = {"run": run, "trigger": trigger.key}
        event = Event(self.clock.now_ms(), self.policy.name, kind, f"training:{trigger.key}", trigger.key, text, body)
        self.journal.append(event)

    def _seen(self) -> TriggerSeen:
        fired = self._read("trigger.fired")
        keys = frozenset(cause.key for cause in fired)
        performance = self.performance()
        return TriggerSeen(
            now_ms=self.clock.now_ms(),
            change=performance.change if performance else None,
            change_key=performance.key if performance else "",
            trained_ms=performance.trained_ms if performance else 0,
            trainings=tuple(cause.at_ms for cause in fired),
            fired=keys,
            asked=tuple(cause for cause in self._read("trigger.asked") if cause.key not in keys),
            release=next((r.id for r in self.rollouts.all(self.policy.name) if r.status.open), ""),
            watched_ms=performance.since_ms if performance else 0,
            began_ms=fired[-1].since_ms if fired else 0,
        )

    def _note(self, outcome: NotFired) -> None:
        if outcome.cause:
            self._write("trigger.held", f"held:{outcome.cause}:{outcome.rule}", outcome.cause, outcome.reason, outcome)

    def _write(self, kind: str, key: str, subject: str, text: str, what: Trigger | NotFired) -> None:
        self.journal.append(Event(self.clock.now_ms(), self.policy.name, kind, key, subject, text, asdict(what)))

    def _read(self, kind: str) -> list[Trigger]:
        return [Trigger(**event.body) for event in self._events(kind)]

    def _events(self, kind: str) -> Sequence[Event]:
        return self.journal.read(self.policy.name, kind)
