"""Triggers as they happen: each cause starts one remedy, and a crash in the middle loses none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from homeostat.domain.estimate import Estimated
from homeostat.domain.event import Event
from homeostat.domain.monitor import Alert
from homeostat.domain.policy import Background, OtherWindow, Policy
from homeostat.domain.rollout import Rollout, Status
from homeostat.domain.trigger import (
    ACCOUNT_MS,
    BACKGROUND,
    PREVIOUS,
    REFIT,
    SINCE,
    SWEEP,
    Probed,
    Remembered,
    Spent,
    Trigger,
    in_background,
)
from homeostat.domain.units import show_duration
from homeostat.engines import probe
from homeostat.engines import trigger as rule
from homeostat.engines.trigger import NotFired, TriggerSeen
from homeostat.ports import Clock, Journal, Rollouts
from homeostat.services.alerts import Alerts
from homeostat.services.performance import SILENT, Performance
from homeostat.services.probe import costs
from homeostat.services.release_seen import experiment

PERSON = "healing"
"""The title of the alert that calls a person."""
FIRST = "trigger.first"
ENDS = ("training.", "remedy.")
"""What a remedy ends with: a training, or the release of an earlier version."""


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A trigger that fired; `ended` with the run of its candidate, "" where there is none."""

    cause: Trigger
    ended: bool
    run: str


def speaks_since(journal: Journal, horizon_ms: int, release: Rollout) -> int:
    """From when on requests say anything of a release, 0: all do. Those whose labels chose an earlier version can't
    judge it too; those of a world that went say nothing of a model that forgot it."""
    fired = journal.read(release.model, "trigger.fired", release.by.removeprefix("trigger "))
    for cause in (Trigger(**event.body) for event in fired):
        what, _, which = cause.remedy.partition(":")
        if what in (PREVIOUS, SINCE):
            return cause.at_ms - horizon_ms if what == PREVIOUS else int(which)
    return 0


class Triggers:
    """`performance` gives the champion's change since it was made (None: nothing is served); `refit` (of a window, with
    a sweep or without, from which E on it is worth it) and `remembered` (since a change, where the champion loses at
    least so much) what remedies would bring; `estimated` an estimated drop of it."""

    def __init__(
        self,
        policy: Policy,
        journal: Journal,
        rollouts: Rollouts,
        clock: Clock,
        performance: Callable[[], Performance | None],
        refit: Callable[[int, bool, float, int, int], Probed],
        remembered: Callable[[int, float], Remembered | None],
        alerts: Alerts,
        estimated: Callable[[], Estimated | None],
    ) -> None:
        self.policy, self.journal, self.rollouts, self.clock = policy, journal, rollouts, clock
        self.performance, self.refit, self.remembered, self.alerts = performance, refit, remembered, alerts
        self.estimated = estimated
        rule.check(policy.retrain, clock.now_ms())  # a mistyped reason is an error from the beginning on

    def check(self) -> Trigger | None:
        """Fire at most one trigger. A cause that is held back is noted once for each rule that holds it; one that
        nothing would help, each time it is asked."""
        if (waiting := self.pending()) is not None:
            return waiting
        seen = self._seen()
        self._call(seen)
        outcome = rule.fire(self.policy.retrain, seen)
        if isinstance(outcome, NotFired):
            self._note(outcome)
            return None
        unasked = outcome.kind in ("manual", BACKGROUND)
        chosen = outcome if unasked else self._remedy(outcome, seen)
        if chosen is not None:
            self._write("trigger.fired", chosen.key, chosen.key, chosen.reason, chosen)
        return chosen

    def ask(self, reason: str) -> Trigger:
        """Order a training by hand."""
        now = self.clock.now_ms()
        order = Trigger(f"manual:{now}", "manual", reason or "asked by hand", now)
        self._write("trigger.asked", f"asked:{order.key}", order.key, order.reason, order)
        return order

    def begin(self) -> Trigger:
        """Note that the first champion is trained now: it counts for no budget."""
        cause = Trigger("first", "manual", "the first champion", self.clock.now_ms())
        self._write(FIRST, cause.key, cause.key, cause.reason, cause)
        return cause

    def first(self) -> Trigger | None:
        """The first champion's training, begun and not ended."""
        ended = {event.subject for event in self._events("training.")}
        return next((cause for cause in self._read(FIRST) if cause.key not in ended), None)

    def pending(self) -> Trigger | None:
        """Fired, but its remedy neither done nor failed."""
        return next((one.cause for one in self._attempts() if not one.ended), None)

    def fitted(self, trigger: Trigger, rows: int, seconds: float) -> None:
        """The trigger's run fitted so many rows, in so much CPU time. Said before its release is asked for: after a
        crash from there on, the run is not asked again."""
        took = f" in {show_duration(round(seconds * 1_000))} of CPU time" if seconds else ""
        self._end(
            "cost.training", trigger, f"The training fitted {rows:,} rows{took}.", {"rows": rows, "seconds": seconds}
        )

    def spent(self) -> Spent | None:
        """On challengers of the background; None where the policy wants none."""
        budget = next((one.background for one in self.policy.retrain.when if isinstance(one, Background)), None)
        if budget is None:
            return None
        since = self.clock.now_ms() - ACCOUNT_MS
        costs = [one for one in self._events("cost.training") if in_background(one.subject)]
        shares = [(one.at_ms, one.body["seconds"] * 1_000 / ACCOUNT_MS) for one in costs]
        used = sum(share for at, share in shares if at > since)
        shadowed = next((one.id for one in self._records() if one.status.open and one.gives_way), "")
        waits_for = shadowed or experiment(self.journal, self.policy.name)
        return Spent(budget, used, shares[-1][1] if shares else 0.0, waits_for)

    def done(self, trigger: Trigger, run: str = "", failure: str = "", note: str = "") -> None:
        """The trigger's remedy ended: with a run and what came of it (`note`), or with what went wrong. Said twice, it
        is written once."""
        kind = "remedy" if trigger.remedy.startswith(PREVIOUS) else "training"
        made = f"Run {run} was trained: {trigger.reason}." if kind == "training" else f"{trigger.reason}."
        text = failure or " ".join(part for part in (made if run else "", note) if part)
        self._end(f"{kind}.{'failed' if failure else 'done'}", trigger, text, {"run": run})

    def _end(self, kind: str, trigger: Trigger, text: str, body: Mapping[str, Any]) -> None:
        key = f"{kind.partition('.')[0]}:{trigger.key}"
        said = {"trigger": trigger.key, **body}
        self.journal.append(Event(self.clock.now_ms(), self.policy.name, kind, key, trigger.key, text, said))

    def _seen(self) -> TriggerSeen:
        fired = self._read("trigger.fired")
        keys = frozenset(cause.key for cause in fired)
        answers = [cause for cause in fired if cause.kind != BACKGROUND]
        taken = tuple(cause.at_ms for cause in answers if cause.remedy.startswith(PREVIOUS))
        trained = tuple(cause.at_ms for cause in answers if cause.at_ms not in taken)
        performance = self.performance()
        last = max((cause.at_ms for cause in answers), default=0)
        declined = [event.body for event in self._events("trigger.declined") if event.at_ms > last]
        return TriggerSeen(
            now_ms=self.clock.now_ms(),
            change=performance.fresh if performance else None,
            change_key=performance.key if performance else "",
            trained_ms=rule.trained(performance.trained_ms, trained, taken) if performance else 0,
            since_made=performance.change if performance else None,
            made_ms=performance.since_ms if performance else 0,
            last=answers[-1] if answers else None,
            trainings=trained,
            taken=taken,
            fired=keys,
            asked=tuple(cause for cause in self._read("trigger.asked") if cause.key not in keys),
            release=next((r.id for r in self._records() if r.status.open and not r.gives_way), ""),
            declined=tuple((one["kind"], one["at_ms"]) for one in declined),
            failed=self._failed(),
            estimated=self.estimated(),
            silent=performance.silent if performance and performance.silent >= SILENT else 0,
            labels=performance.change.n if performance else 0,
            spent=self.spent(),
        )

    def _records(self) -> Sequence[Rollout]:
        return self.rollouts.all(self.policy.name)

    def _failed(self) -> int:
        """Attempts in a row, the last ones, that brought no new champion. The background tries without a cause, and
        can't fail."""
        records, count = self._records(), 0
        for attempt in reversed(self._attempts()):
            made = self._release(attempt, records)
            if made is not None and made.status is Status.PROMOTED:
                break
            under_way = made is not None and (made.status.open or made.status is Status.QUEUED)
            count += attempt.ended and not under_way and attempt.cause.kind != BACKGROUND
        return count

    def _release(self, attempt: _Attempt, records: Sequence[Rollout]) -> Rollout | None:
        """Of the attempt's candidate."""
        since = attempt.cause.at_ms
        own = (one for one in records if attempt.run and one.candidate.run == attempt.run)
        return next((one for one in own if one.started_ms >= since), None)

    def _attempts(self) -> list[_Attempt]:
        ends = {event.subject: event for prefix in ENDS for event in self.journal.read(self.policy.name, prefix)}
        runs = {subject: str(event.body["run"]) for subject, event in ends.items()}
        return [_Attempt(cause, cause.key in ends, runs.get(cause.key, "")) for cause in self._read("trigger.fired")]

    def _remedy(self, cause: Trigger, seen: TriggerSeen) -> Trigger | None:
        """The first remedy that is expected to help, as the policy orders them; a word on why there is none. An earlier
        version has to be better than what a training would give, too."""
        asked: list[tuple[str, Probed]] = []
        remedies = (PREVIOUS,) if cause.remedy == PREVIOUS else rule.ladder(self.policy.retrain, seen.failed)
        for remedy in remedies:
            found = self._previous(cause, seen) if remedy == PREVIOUS else self._training(remedy, cause, seen)
            if found is None:
                continue
            asked.append(found)
            self._probe(cause, *found)
            if found[1].helps and remedy != PREVIOUS:
                break
        best = max((one for one in asked if one[1].helps), key=lambda one: one[1].gain, default=None)
        if best is None:
            self._decline(cause, [probed for _, probed in asked])
            return None
        return replace(cause, remedy=best[0], reason="; ".join(filter(None, (cause.reason, best[1].reason))))

    def _decline(self, cause: Trigger, asked: Sequence[Probed]) -> None:
        kind, nothing = cause.kind, "there is no remedy for it"
        if cause.remedy == PREVIOUS:  # no question whether a training helps
            kind, nothing = PREVIOUS, "a training has to wait, and no earlier version is surely better"
        why = "; ".join(one.reason for one in asked) or nothing
        text = f"{cause.reason}; not retrained, because {why}. {costs(asked)}".strip()
        no = replace(cause, kind=kind, at_ms=self.clock.now_ms())
        self._write("trigger.declined", f"declined:{cause.key}:{no.at_ms}", cause.key, text, no)

    def _previous(self, cause: Trigger, seen: TriggerSeen) -> tuple[str, Probed] | None:
        """Only against harm, or where the newest labels are clearly those of another world: an earlier version is no
        step forward."""
        if cause.kind != "performance" or seen.change is None or rule.rests(self.policy.retrain, seen):
            return None
        found = self.remembered(cause.since_ms, 0.0 if seen.harmed else probe.turned(seen.change.baseline))
        return (f"{PREVIOUS}:{found.version.number}", found.probed) if found else None

    def _training(self, remedy: str | OtherWindow, cause: Trigger, seen: TriggerSeen) -> tuple[str, Probed]:
        window = remedy.window if isinstance(remedy, OtherWindow) else self.policy.train.window
        name = f"window:{window}" if isinstance(remedy, OtherWindow) else remedy
        if not self.policy.retrain.only_if_it_helps:
            return name, Probed(True, "")
        needed = probe.worth(self.policy.retrain.budget.trainings, rule.left(self.policy.retrain, seen))
        changed = cause.since_ms if cause.surely else 0
        begins = (0, 0) if name == SWEEP else (changed, self._forgot())
        found = self.refit(window, name == SWEEP, needed, *begins)
        span = f"over {show_duration(window) if window else 'all rows'}: " if name not in (REFIT, SWEEP) else ""
        name = f"{SINCE}:{found.since_ms}" if found.since_ms else name
        return name, replace(found, reason=span + found.reason)

    def _forgot(self) -> int:
        """Before when the last training forgot everything, 0 for nothing."""
        remedies = [one.remedy for one in self._read("trigger.fired") if not one.remedy.startswith(PREVIOUS)]
        what, _, which = remedies[-1].partition(":") if remedies else ("", "", "")
        return int(which) if what == SINCE else 0

    def _probe(self, cause: Trigger, remedy: str, found: Probed) -> None:
        """Recorded whatever it says."""
        if not found.reason:
            return
        at = self.clock.now_ms()
        text = f"Would it help? {'Yes' if found.helps else 'No'}: {found.reason}. {found.cost}".strip()
        key, body = f"probed:{cause.key}:{remedy}:{at}", {**asdict(found), "remedy": remedy}
        self.journal.append(Event(at, self.policy.name, "probe.made", key, cause.key, text, body))

    def _call(self, seen: TriggerSeen) -> None:
        """A person, while nothing helps."""
        why = rule.called(self.policy.retrain, seen)
        now = self.clock.now_ms()
        self.alerts.settle(PERSON, Alert("", PERSON, why, now, subject=PERSON) if why else None, now)

    def _note(self, outcome: NotFired) -> None:
        if outcome.cause:
            self._write("trigger.held", f"held:{outcome.cause}:{outcome.rule}", outcome.cause, outcome.reason, outcome)

    def _write(self, kind: str, key: str, subject: str, text: str, what: Trigger | NotFired) -> None:
        self.journal.append(Event(self.clock.now_ms(), self.policy.name, kind, key, subject, text, asdict(what)))

    def _read(self, kind: str) -> list[Trigger]:
        return [Trigger(**event.body) for event in self._events(kind)]

    def _events(self, kind: str) -> Sequence[Event]:
        return self.journal.read(self.policy.name, kind)
