"""Releases: gather everything seen, let the rule decide, act once. A pass moves traffic or writes the record, never
both; the next pass reads the world. So a crash at any line changes no outcome.

What a pass writes first is what it saw (`release.evidence`, or `release.verdict` before traffic is withdrawn for harm:
a verdict stands, even if the evidence looks better a moment later); where it moves nothing, a `release.look` now and
then. What came of it is told by the next pass, from
the record itself: nothing is in the journal that did not happen, and nothing that happened is missing there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from homeostat.domain.bundle import Version
from homeostat.domain.errors import NotFound, Refused, UsageError
from homeostat.domain.event import BACKTEST, Event
from homeostat.domain.gate import Verdict
from homeostat.domain.outlook import Outlook
from homeostat.domain.policy import Policy, ReleasePolicy
from homeostat.domain.rollout import Arm, Do, Move, Rollout, Route, Seen, Status, StepKind
from homeostat.domain.units import ALL, DAY_MS
from homeostat.engines import rollout as rule
from homeostat.engines import steps
from homeostat.engines.looks import look, saw
from homeostat.engines.prospect import Present, look_ahead
from homeostat.engines.routing import check_segments
from homeostat.ports import Blobs, Clock, Hook, Journal, LabelLog, Plane, PredictionLog, Rollouts, Router, Tracker
from homeostat.services.backtest import Backtests
from homeostat.services.evidence_log import EvidenceLog, answered, slow_limit, traffic
from homeostat.services.release_hooks import Hooks
from homeostat.services.release_log import ReleaseLog, Served
from homeostat.services.release_seen import (
    Sight,
    before,
    experiment,
    harmed,
    order,
    refusal,
    replays,
    resumed,
    serving,
    since,
)

ORDERS = ("approve", "reject", "rollback")
LOOK_BACK_MS = 7 * DAY_MS


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a release stands: its record, what is seen now, and what the next pass will do about it; `outlook`: what is
    to be expected after that, None once it is over, while it waits for a person and where nothing live is compared."""

    rollout: Rollout
    seen: Seen
    move: Move
    outlook: Outlook | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A release's record and its journal, oldest first; `standing` is None once it is over."""

    rollout: Rollout
    events: tuple[Event, ...]
    standing: Standing | None


class Releases:
    """The releases of one model. All state is in the stores; what is kept here is a cache."""

    def __init__(
        self,
        policy: Policy,
        rollouts: Rollouts,
        journal: Journal,
        router: Router,
        plane: Plane,
        log: PredictionLog,
        labels: LabelLog,
        tracker: Tracker,
        blobs: Blobs,
        clock: Clock,
        hook: Hook | None = None,
        backtests: Backtests | None = None,
    ) -> None:
        """`hook` None: none is run, whatever the policy says; `backtests` None: nothing can be put again here, and that
        step is left out."""
        self.policy, self.rollouts, self.journal, self.router = policy, rollouts, journal, router
        self.tracker, self.clock, self.log, self.backtests = tracker, clock, log, backtests
        self.model = policy.name
        self._looked = ""
        evidence = EvidenceLog(policy.name, log, labels, policy.monitor.segments)
        early = backtests.early if backtests else None
        self.sight = Sight(policy, journal, router, plane, blobs, evidence, clock, early)
        self.told = ReleaseLog(policy.name, journal, clock)
        self.hooks = Hooks(policy.release.hooks, hook, journal, clock) if hook else None

    def start(self, candidate: Version, by: str = "", despite: str = "") -> Rollout:
        """Ask for a release; the next pass starts it, or it queues, or it takes the place of the one under way, as
        the policy says. `by`: who asks; `despite`: why a bundle that was refused may be tried again. Errors: `Refused`
        for such a bundle without a reason, for a version under way and for the one that serves; `NotFound`, `Corrupt`
        for a bundle that can't be read; `ConfigError`."""
        records = self.rollouts.all(self.model)
        self._admit(candidate, records, despite)
        rules = self.policy.release
        check_segments(self.sight.bundle(candidate.bundle).schema, rules.only, rules.never)
        now, identity = self.clock.now_ms(), f"R{len(records) + 1}"
        asked = Rollout(
            id=identity,
            model=self.model,
            champion=None,
            candidate=candidate,
            steps=(),
            index=0,
            status=Status.QUEUED,
            started_ms=now,
            step_ms=now,
            salt=f"{self.model}/{identity}",
            slow_us=0,
            by=by,
            despite=despite if refusal(candidate.bundle, records) else "",
        )
        planned = self._planned(asked, records)
        self.tracker.alias(candidate, "challenger")
        return self.rollouts.save(planned)

    def claim(self) -> None:
        """Publish the routing document anew, in the term of this process: one that led before, and does not know yet
        that it does no more, can't overwrite it."""
        self._publish(self.router.read().routes.get(self.model))

    def reconcile(self) -> Move:
        """One pass."""
        records = self.rollouts.all(self.model)
        self.told.tell(records, self.router.read())
        if self.hooks:
            self.hooks.after(records)
        rollout = self._pick(records)
        if rollout is None:
            return self._clear()
        standing = self._standing(rollout, records)
        if standing.move.do is Do.HOLD and self._replay(standing):
            standing = self._standing(rollout, records)
        return self._dropped(standing, records) or self._act(standing, records)

    def order(self, release: str, what: str, reason: str, who: str) -> Event:
        """A person's order; the next pass carries it out. `approve` ends the step, or resumes a release that was
        paused for harm, with evidence counted anew; `rollback` also takes a promoted release back. Errors: `NotFound`,
        `Refused` when it can't be done."""
        rollout = self._find(release)
        resume = self._check_order(rollout, what)
        earlier = self.sight.orders(rollout)
        body = {"order": what, "reason": reason, "who": who, "revision": rollout.revision, "resume": resume}
        text = f"{who} ordered: {what}" + (f" ({reason})" if reason else "")
        key = f"{rollout.id}:order:{len(earlier) + 1}"
        body["step"] = str(rollout.step)
        event = Event(self.clock.now_ms(), self.model, "release.ordered", key, rollout.id, text, body)
        if not self.journal.append(event):
            raise Refused(
                "another order came first", where=f"release {release}", way_out="Look at it, then order again."
            )
        return event

    def status(self) -> Standing | None:
        """The open release, else the next one, else the one that serves; None before the first."""
        records = self.rollouts.all(self.model)
        rollout = self._pick(records)
        return self._ahead(self._standing(rollout, records)) if rollout else None

    def history(self) -> Sequence[Rollout]:
        """Oldest first."""
        return self.rollouts.all(self.model)

    def served(self, at_ms: int) -> Served:
        """What served at that time, and who had approved it."""
        return self.told.served(self.history(), at_ms)

    def explain(self, release: str) -> Explanation:
        """Errors: `NotFound`."""
        rollout = self._find(release)
        standing = self._ahead(self._standing(rollout, self.history())) if rollout.status.open else None
        return Explanation(rollout, tuple(self.journal.read(self.model, "release.", rollout.id)), standing)

    def _find(self, release: str) -> Rollout:
        records = self.rollouts.all(self.model)
        found = next((one for one in records if one.id == release), None)
        if found is None:
            known = ", ".join(one.id for one in records[-5:]) or "none yet"
            raise NotFound(f"no release {release} of {self.model}", way_out=f"The newest are: {known}.")
        return found

    def _admit(self, candidate: Version, records: Sequence[Rollout], despite: str) -> None:
        if running := experiment(self.journal, self.model):
            way_out = "End one first; the experiment with: homeostat experiment stop"
            raise Refused(f"experiment {running} is under way", where=f"model {self.model}", way_out=way_out)
        same = [one for one in records if one.candidate.bundle == candidate.bundle]
        under_way = next((one for one in same if one.status.open or one.status is Status.QUEUED), None)
        if under_way:
            where = f"release {under_way.id}"
            raise Refused(f"version {candidate.number} is under way already", where=where, way_out="Wait for it.")
        serves = serving(records)
        if serves and serves.candidate.number == candidate.number:
            raise Refused(f"version {candidate.number} serves already", way_out="Name another version.")
        refused = refusal(candidate.bundle, records)
        if refused and not despite:
            where = f"release {refused.id} was {refused.status.value}: {refused.reason}"
            way_out = "Train a new one, or say why this one may be tried again: --despite REASON."
            raise Refused(f"version {candidate.number} was refused", where=where, way_out=way_out)

    def _planned(self, rollout: Rollout, records: Sequence[Rollout]) -> Rollout:
        """As it would start now. Errors: `ConfigError`."""
        now, serves = self.clock.now_ms(), serving(records)
        champion = serves.candidate if serves else None
        recent = self.log.read(self.model, now - LOOK_BACK_MS, now + 1)
        recorded = self.backtests is not None and not answered(recent).is_empty()
        rules = steps.with_shadow(self.policy.release) if rollout.background else self.policy.release
        way, notes = steps.plan(rules, traffic(recent, now), champion is None, recorded)
        slow_us = slow_limit(recent, champion.number) if champion else 0
        against = f"version {champion.number}" if champion else "nobody"
        reason = f"Version {rollout.candidate.number} against {against}: {', '.join(map(str, way))}."
        despite = (f"{rollout.by} let it in again: {rollout.despite}.",) if rollout.despite else ()
        said = " ".join((reason, *despite, *notes))
        return replace(rollout, champion=champion, steps=way, started_ms=now, step_ms=now, slow_us=slow_us, reason=said)

    def _pick(self, records: Sequence[Rollout]) -> Rollout | None:
        """The release of this pass: one that waits for nothing but a person's order, the open one, a promoted one that
        is to be taken back, the next in the queue, the one that serves."""
        queued = [one for one in records if one.status is Status.QUEUED]
        ended = next((one for one in queued if self.sight.orders(one)), None)
        running = ended or next((one for one in reversed(records) if one.status.open), None)
        serves = serving(records)
        if running or not queued:
            return running or serves
        return serves if serves and serves.champion and order(self.sight.orders(serves), serves) else queued[0]

    def _check_order(self, rollout: Rollout, what: str) -> bool:
        """→ whether an approval sets a verdict of harm aside."""
        records = self.rollouts.all(self.model)
        where, current = f"release {rollout.id}", self._pick(records)
        if what not in ORDERS:
            raise UsageError(f"no order {what!r}", where=where, way_out=f"The orders are: {', '.join(ORDERS)}.")
        serves = what == "rollback" and rollout.status is Status.PROMOTED and rollout == serving(records)
        serves = serves and not any(one.status.open for one in records)
        if serves and before(rollout, records) is None:
            raise Refused("there is no earlier release to go back to", where=where, way_out="Release another version.")
        if rollout.status is Status.QUEUED and what != "reject":
            raise Refused("a queued release can only be rejected", where=where, way_out="Wait until it starts.")
        if not (serves or rollout.status.open or rollout.status is Status.QUEUED):
            way_out = f"Release {current.id} can be." if current else "Start a release first."
            raise Refused(f"a release that was {rollout.status.value} can't be changed", where=where, way_out=way_out)
        return what == "approve" and self._check_approval(self._standing(rollout, records))

    def _check_approval(self, standing: Standing) -> bool:
        seen, where = standing.seen, f"release {standing.rollout.id}"
        invalid = [lane for lane in seen.lanes if lane.verdict is Verdict.INVALID]
        if invalid:
            raise Refused(f"{invalid[0].name} could not be measured", where=invalid[0].reason, way_out="Reject it.")
        harm = harmed(seen)
        if harm and self.policy.release.on_harm != "pause":
            raise Refused("harm was seen, and on_harm is rollback", where=where, way_out="Release another version.")
        if harm and standing.rollout.status is not Status.WAITING:
            raise Refused("harm was just seen", where=where, way_out="Order again when the release waits for a person.")
        return harm and standing.rollout.step.kind is not StepKind.BACKTEST

    def _replay(self, standing: Standing) -> bool:
        """A piece of the release's backtest, if that is where it stands. → whether it is done: what it found is in the
        journal."""
        rollout = standing.rollout
        due = replays(rollout) and not standing.seen.replayed
        done = self.backtests.work(rollout) if due and self.backtests else None
        if done is None:
            return False
        key, now = f"{rollout.id}:backtest", self.clock.now_ms()
        self.journal.append(Event(now, self.model, BACKTEST, key, rollout.id, done.sentence, asdict(done)))
        return True

    def _standing(self, rollout: Rollout, records: Sequence[Rollout]) -> Standing:
        seen = self.sight.gather(rollout, records)
        return Standing(rollout, seen, rule.decide(rollout, seen, self.policy.release, self.policy.data.label_horizon))

    def _ahead(self, standing: Standing) -> Standing:
        """With its outlook."""
        rollout, seen = standing.rollout, standing.seen
        if rollout.status is not Status.RUNNING or rollout.champion is None or replays(rollout):
            return standing
        since_ms = since(rollout, resumed(self.sight.orders(rollout)))
        rows, labels = self.sight.rows(rollout, since_ms, seen.now_ms)
        present = Present(rollout, seen, self.sight.case(rollout, rollout.champion, seen.now_ms), rows, labels)
        return replace(standing, outlook=look_ahead(present, self.policy.release))

    def _dropped(self, standing: Standing, records: Sequence[Rollout]) -> Move | None:
        """Nobody goes back to a release whose bundle can't be read: its record ends, and the one before it is next."""
        target = before(standing.rollout, records) if standing.seen.back else None
        broken = self.sight.broken(target.candidate) if target else ""
        if target is None or not broken:
            return None
        move = Move(Do.ROLL_BACK, f"Version {target.candidate.number} can't be gone back to: {broken}.")
        self.rollouts.save(rule.after(target, move, standing.seen.now_ms))
        return move

    def _act(self, standing: Standing, records: Sequence[Rollout]) -> Move:
        """→ the move that was made."""
        rollout, seen, move = standing.rollout, standing.seen, standing.move
        if move.do is Do.HOLD:
            self._look(standing)
            return move
        if move.do is Do.ADVANCE and (rollout.status is Status.QUEUED or move.to != rollout.index):
            return self._enter(standing, records)
        self._testify(standing)
        if move.do is Do.ROUTE:
            self._publish(_route(rollout, move.weight, move.shadow, records, self.policy.release))
            return move
        if move.do is Do.PROMOTE:
            self.tracker.alias(rollout.candidate, "champion")
        back = before(rollout, records) if rollout.status is Status.PROMOTED else None
        if back is not None:
            self.tracker.alias(back.candidate, "champion")
        self.rollouts.save(rule.after(rollout, move, seen.now_ms))
        return move

    def _enter(self, standing: Standing, records: Sequence[Rollout]) -> Move:
        """Into a step, if its hook lets it. A release that was queued starts as things are now."""
        rollout, move = standing.rollout, standing.move
        entered = rule.after(rollout, move, standing.seen.now_ms)
        if rollout.status is Status.QUEUED:
            entered = self._planned(entered, records)
        held = self.hooks.before(entered, entered.step, entered.index) if self.hooks else ""
        if held:
            return Move(Do.HOLD, f"Hold before {entered.step}. {held}")
        if rollout.status is not Status.QUEUED:
            self._testify(standing)
        self.rollouts.save(entered)
        return move

    def _look(self, standing: Standing) -> None:
        """Part of the release's course, if it shows anything new."""
        if not standing.rollout.status.open:
            return
        event = look(standing.rollout, standing.seen, standing.move.reason)
        if event.key != self._looked:
            self.journal.append(event)
            self._looked = event.key

    def _testify(self, standing: Standing) -> None:
        """What was seen, before anything is done about it."""
        rollout, seen, move = standing.rollout, standing.seen, standing.move
        withdrawn = move.do is Do.ROUTE and not move.weight and not move.shadow
        if withdrawn and harmed(seen) and seen.person not in ("reject", "rollback"):
            anew = resumed(self.sight.orders(rollout))
            kind, key = "release.verdict", f"{rollout.id}:verdict:{len(anew)}"
        else:
            said = f"{move.do.value}:{move.weight}" + (":shadow" if move.shadow else "")
            kind, key = "release.evidence", f"{rollout.id}:evidence:{rollout.revision}:{said}"
        self.journal.append(Event(seen.now_ms, self.model, kind, key, rollout.id, move.reason, saw(seen)))

    def _publish(self, route: Route | None) -> None:
        routing = self.router.read()
        routes = {model: other for model, other in routing.routes.items() if model != self.model}
        if route is not None:
            routes[self.model] = route
        now = self.clock.now_ms()
        self.router.publish(replace(routing, version=routing.version + 1, routes=routes, at_ms=now))

    def _clear(self) -> Move:
        """Nothing was ever promoted: nobody answers."""
        if self.model not in self.router.read().routes:
            return Move(Do.HOLD, "Nothing is released yet.")
        self._publish(None)
        return Move(Do.ROUTE, "The first release ended: nobody answers.")


def _route(
    rollout: Rollout, weight: int, shadow: bool, records: Sequence[Rollout], rules: ReleasePolicy
) -> Route | None:
    """Without weight and shadow: what was in force before this release, None if nothing was."""
    candidate = Arm(rollout.candidate.number, rollout.candidate.bundle)
    if weight == ALL and not shadow:
        return Route(rollout.id, candidate)
    if not weight and not shadow:
        back = before(rollout, records)
        return Route(back.id, Arm(back.candidate.number, back.candidate.bundle)) if back else None
    if rollout.champion is None:
        return None
    champion = Arm(rollout.champion.number, rollout.champion.bundle)
    kept = rules.only, rules.never
    return Route(rollout.id, champion, candidate, weight, shadow, rollout.salt, (), *kept)
