"""Releases: gather everything seen, let the rule decide, act once. A pass moves traffic or writes the record, never
both; the next pass reads the world. So a crash at any line changes no outcome.

What a pass writes first is what it saw (`release.evidence`, or `release.verdict` before traffic is withdrawn for harm:
a verdict stands, even if the evidence looks better a moment later). What came of it is told by the next pass, from
the record itself: nothing is in the journal that did not happen, and nothing that happened is missing there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from homeostat import codec
from homeostat.domain.backtest import Backtested
from homeostat.domain.bundle import Backtest, Bundle, Version
from homeostat.domain.errors import NotFound, Refused, UsageError
from homeostat.domain.event import Event
from homeostat.domain.gate import Verdict
from homeostat.domain.policy import Policy
from homeostat.domain.rollout import Arm, Do, Move, Rollout, Route, Routing, Seen, Status, StepKind
from homeostat.domain.units import ALL, DAY_MS
from homeostat.engines import rollout as rule
from homeostat.engines.evaluation import Evaluation
from homeostat.engines.lanes import Case, Findings, Side, judge
from homeostat.ports import Blobs, Clock, Journal, LabelLog, Plane, PredictionLog, Rollouts, Router, Tracker
from homeostat.services.backtest import Backtests
from homeostat.services.evidence_log import EvidenceLog, answered, requests_seen, slow_limit, traffic

ORDERS = ("approve", "reject", "rollback")
LOOK_BACK_MS = 7 * DAY_MS
_NOTHING = Findings((), "", 0)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a release stands: its record, what is seen now, and what the next pass will do about it."""

    rollout: Rollout
    seen: Seen
    move: Move


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
        backtests: Backtests | None = None,
    ) -> None:
        """`backtests` None: nothing can be put again here, and that step is left out."""
        self.policy, self.rollouts, self.journal, self.router = policy, rollouts, journal, router
        self.plane, self.tracker, self.blobs, self.clock = plane, tracker, blobs, clock
        self.log, self.backtests = log, backtests
        self.model = policy.name
        self._evidence = EvidenceLog(policy.name, log, labels)
        self._bundles: dict[str, Bundle] = {}
        self._told: dict[str, int] = {}

    def start(self, candidate: Version) -> Rollout:
        """Open a release. Errors: `Refused` while another one runs, for a bundle that was taken back before, and for
        the version that serves; `NotFound`, `Corrupt` for a bundle that can't be read; `ConfigError`."""
        records = self.rollouts.all(self.model)
        serving = _serving(records)
        champion = serving.candidate if serving else None
        self._admit(candidate, champion, records)
        self._bundle(candidate.bundle)
        now = self.clock.now_ms()
        recent = self.log.read(self.model, now - LOOK_BACK_MS, now + 1)
        recorded = self.backtests is not None and not answered(recent).is_empty()
        steps, notes = rule.plan(self.policy.release, traffic(recent, now), champion is None, recorded)
        identity = f"R{len(records) + 1}"
        slow_us = slow_limit(recent, champion.number) if champion else 0
        reason = f"Version {candidate.number} against {_named(champion)}: {', '.join(map(str, steps))}."
        self.tracker.alias(candidate, "challenger")
        return self.rollouts.save(
            Rollout(
                id=identity,
                model=self.model,
                champion=champion,
                candidate=candidate,
                steps=steps,
                index=0,
                status=Status.RUNNING,
                started_ms=now,
                step_ms=now,
                salt=f"{self.model}/{identity}",
                slow_us=slow_us,
                reason=" ".join((reason, *notes)),
            )
        )

    def reconcile(self) -> Move:
        """One pass."""
        records = self.rollouts.all(self.model)
        self._tell(records)
        rollout = _current(records)
        if rollout is None:
            return self._clear()
        self._replay(rollout)
        standing = self._standing(rollout)
        self._act(standing, records)
        return standing.move

    def order(self, release: str, what: str, reason: str, who: str) -> Event:
        """A person's order; the next pass carries it out. `approve` ends the step, or resumes a release that was
        paused for harm, with evidence counted anew; `rollback` also takes a promoted release back. Errors: `NotFound`,
        `Refused` when it can't be done."""
        rollout = self._find(release)
        resume = self._check_order(rollout, what)
        earlier = self.journal.read(self.model, "release.ordered", rollout.id)
        body = {"order": what, "reason": reason, "who": who, "revision": rollout.revision, "resume": resume}
        text = f"{who} ordered: {what}" + (f" ({reason})" if reason else "")
        key = f"{rollout.id}:order:{len(earlier) + 1}"
        event = Event(self.clock.now_ms(), self.model, "release.ordered", key, rollout.id, text, body)
        if not self.journal.append(event):
            raise Refused(
                "another order came first", where=f"release {release}", way_out="Look at it, then order again."
            )
        return event

    def status(self) -> Standing | None:
        """The open release, else the one that serves; None before the first."""
        rollout = _current(self.rollouts.all(self.model))
        return self._standing(rollout) if rollout else None

    def history(self) -> Sequence[Rollout]:
        """Oldest first."""
        return self.rollouts.all(self.model)

    def explain(self, release: str) -> Explanation:
        """Errors: `NotFound`."""
        rollout = self._find(release)
        standing = self._standing(rollout) if rollout.status.open else None
        return Explanation(rollout, tuple(self.journal.read(self.model, "release.", rollout.id)), standing)

    def _find(self, release: str) -> Rollout:
        records = self.rollouts.all(self.model)
        found = next((one for one in records if one.id == release), None)
        if found is None:
            known = ", ".join(one.id for one in records[-5:]) or "none yet"
            raise NotFound(f"no release {release} of {self.model}", way_out=f"The newest are: {known}.")
        return found

    def _admit(self, candidate: Version, champion: Version | None, records: Sequence[Rollout]) -> None:
        for record in records:
            if record.status.open:
                way_out = "Wait for it, or reject it first."
                raise Refused(f"release {record.id} is under way", where=f"model {self.model}", way_out=way_out)
            if record.candidate.bundle == candidate.bundle and record.status in (Status.ROLLED_BACK, Status.REJECTED):
                where = f"release {record.id} was {record.status.value}: {record.reason}"
                raise Refused(f"version {candidate.number} was refused", where=where, way_out="Train a new one.")
        if champion and champion.number == candidate.number:
            raise Refused(f"version {candidate.number} serves already", way_out="Name another version.")

    def _check_order(self, rollout: Rollout, what: str) -> bool:
        """→ whether an approval sets a verdict of harm aside."""
        where, current = f"release {rollout.id}", _current(self.rollouts.all(self.model))
        if what not in ORDERS:
            raise UsageError(f"no order {what!r}", where=where, way_out=f"The orders are: {', '.join(ORDERS)}.")
        serves = what == "rollback" and rollout.status is Status.PROMOTED and rollout == current
        if serves and rollout.champion is None:
            raise Refused("there is no earlier release to go back to", where=where, way_out="Release another version.")
        if not rollout.status.open and not serves:
            way_out = f"Release {current.id} can be." if current else "Start a release first."
            raise Refused(f"a release that was {rollout.status.value} can't be changed", where=where, way_out=way_out)
        if what != "approve":
            return False
        return self._check_approval(self._standing(rollout))

    def _check_approval(self, standing: Standing) -> bool:
        seen, where = standing.seen, f"release {standing.rollout.id}"
        invalid = [lane for lane in seen.lanes if lane.verdict is Verdict.INVALID]
        if invalid:
            raise Refused(f"{invalid[0].name} could not be measured", where=invalid[0].reason, way_out="Reject it.")
        harmed = bool(seen.hard_stop) or any(lane.verdict is Verdict.HARM for lane in seen.lanes)
        if harmed and self.policy.release.on_harm != "pause":
            raise Refused("harm was seen, and on_harm is rollback", where=where, way_out="Release another version.")
        if harmed and standing.rollout.status is not Status.WAITING:
            raise Refused("harm was just seen", where=where, way_out="Order again when the release waits for a person.")
        return harmed and standing.rollout.step.kind is not StepKind.BACKTEST

    def _replay(self, rollout: Rollout) -> None:
        """A piece of the release's backtest, if that is where it stands; what it found goes to the journal."""
        due = rollout.status.open and rollout.step.kind is StepKind.BACKTEST and self._replayed(rollout) is None
        done = self.backtests.work(rollout) if due and self.backtests else None
        if done is not None:
            key, kind, now = f"{rollout.id}:backtest", "release.backtest", self.clock.now_ms()
            self.journal.append(Event(now, self.model, kind, key, rollout.id, done.sentence, asdict(done)))

    def _replayed(self, rollout: Rollout) -> Event | None:
        return next(iter(self.journal.read(self.model, "release.backtest", rollout.id)), None)

    def _standing(self, rollout: Rollout) -> Standing:
        seen = self._gather(rollout)
        return Standing(rollout, seen, rule.decide(rollout, seen, self.policy.release, self.policy.data.label_horizon))

    def _gather(self, rollout: Rollout) -> Seen:
        now = self.clock.now_ms()
        orders = self.journal.read(self.model, "release.ordered", rollout.id)
        resumed = _resumed(orders)
        verdicts = self.journal.read(self.model, "release.verdict", rollout.id)
        replayed = self._replayed(rollout)
        if rollout.step.kind is StepKind.BACKTEST:
            findings, requests = _found(replayed), 0
        else:
            since_ms = max((e.at_ms for e in resumed), default=rollout.started_ms)
            findings, requests = self._findings(rollout, since_ms, now)
        stands = verdicts[-1].text if len(verdicts) > len(resumed) else ""
        person = _order(orders, rollout)
        weight, shadow = _in_force(self.router.read(), rollout)
        return Seen(
            now_ms=now,
            weight=weight,
            shadow=shadow,
            ready=self.plane.ready(self.model, rollout.candidate.bundle),
            requests=requests,
            lanes=findings.lanes,
            hard_stop=stands or findings.hard_stop,
            mature_labels=findings.mature_labels,
            backtest=self._backtest(rollout),
            replayed=replayed.text if replayed else "",
            person=("resume" if person.body["resume"] else str(person.body["order"])) if person else "",
            person_reason=f"{person.body['who']}: {person.body['reason']}" if person else "",
        )

    def _findings(self, rollout: Rollout, since_ms: int, now: int) -> tuple[Findings, int]:
        """Nothing is compared where there is no champion, nor once it is over."""
        if rollout.champion is None or not rollout.status.open:
            return _NOTHING, 0
        rows, labels = self._evidence.read(rollout.id, since_ms, now)
        case = Case(
            champion=Side(rollout.champion.number, self._bundle(rollout.champion.bundle)),
            candidate=Side(rollout.candidate.number, self._bundle(rollout.candidate.bundle)),
            weight=rollout.step.weight,
            slow_us=rollout.slow_us,
            margin=self.policy.release.margin,
            horizon_ms=self.policy.data.label_horizon,
            now_ms=now,
        )
        shadowed = rollout.step.kind is StepKind.SHADOW
        return judge(case, rows, labels), requests_seen(rows, rollout.candidate.number, rollout.step_ms, shadowed)

    def _backtest(self, rollout: Rollout) -> Backtest | None:
        """The candidate's, if it was made against the champion of this release."""
        bundle = self._bundle(rollout.candidate.bundle)
        if rollout.champion is None or "evaluation.json" not in bundle.files:
            return None
        found = codec.decode(self.blobs.get(bundle.files["evaluation.json"]), Evaluation).backtest
        return found if found and found.champion == rollout.champion.bundle else None

    def _act(self, standing: Standing, records: Sequence[Rollout]) -> None:
        rollout, seen, move = standing.rollout, standing.seen, standing.move
        if move.do is Do.HOLD:
            return
        self._testify(standing)
        if move.do is Do.ROUTE:
            self._publish(_route(rollout, move.weight, move.shadow, records))
            return
        if move.do is Do.PROMOTE:
            self.tracker.alias(rollout.candidate, "champion")
        if rollout.status is Status.PROMOTED and rollout.champion is not None:
            self.tracker.alias(rollout.champion, "champion")
        self.rollouts.save(_after(rollout, move, seen.now_ms))

    def _testify(self, standing: Standing) -> None:
        """What was seen, before anything is done about it."""
        rollout, seen, move = standing.rollout, standing.seen, standing.move
        withdrawn = move.do is Do.ROUTE and not move.weight and not move.shadow
        if withdrawn and seen.person not in ("reject", "rollback"):
            resumed = _resumed(self.journal.read(self.model, "release.ordered", rollout.id))
            kind, key = "release.verdict", f"{rollout.id}:verdict:{len(resumed)}"
        else:
            said = f"{move.do.value}:{move.weight}" + (":shadow" if move.shadow else "")
            kind, key = "release.evidence", f"{rollout.id}:evidence:{rollout.revision}:{said}"
        body = {"weight": seen.weight, "requests": seen.requests, "lanes": [asdict(lane) for lane in seen.lanes]}
        self.journal.append(Event(seen.now_ms, self.model, kind, key, rollout.id, move.reason, body))

    def _publish(self, route: Route | None) -> None:
        routing = self.router.read()
        routes = {model: other for model, other in routing.routes.items() if model != self.model}
        if route is not None:
            routes[self.model] = route
        self.router.publish(Routing(routing.version + 1, routes))

    def _clear(self) -> Move:
        """Nothing was ever promoted: nobody answers."""
        if self.model not in self.router.read().routes:
            return Move(Do.HOLD, "Nothing is released yet.")
        self._publish(None)
        return Move(Do.ROUTE, "The first release ended: nobody answers.")

    def _tell(self, records: Sequence[Rollout]) -> None:
        for record in records:
            if self._told.get(record.id) != record.revision:
                self.journal.append(_event(record, self.clock.now_ms()))
                self._told[record.id] = record.revision

    def _bundle(self, digest: str) -> Bundle:
        if digest not in self._bundles:
            self._bundles[digest] = codec.decode(self.blobs.get(digest), Bundle)
        return self._bundles[digest]


def _found(replayed: Event | None) -> Findings:
    """What the backtest of a release says, as the lanes of its step."""
    if replayed is None:
        return _NOTHING
    done = codec.decode(codec.encode(replayed.body), Backtested)
    return Findings(done.lanes, done.result.hard_stop, 0)


def _serving(records: Sequence[Rollout]) -> Rollout | None:
    return next((one for one in reversed(records) if one.status is Status.PROMOTED), None)


def _current(records: Sequence[Rollout]) -> Rollout | None:
    return next((one for one in reversed(records) if one.status.open), None) or _serving(records)


def _resumed(orders: Sequence[Event]) -> list[Event]:
    """Approvals that set harm aside; each makes evidence and verdicts start anew."""
    return [event for event in orders if event.body["resume"]]


def _order(orders: Sequence[Event], rollout: Rollout) -> Event | None:
    """The last order still to be carried out: an approval is of the record as the person saw it."""
    binding = [e for e in orders if e.body["order"] != "approve" or e.body["revision"] == rollout.revision]
    return binding[-1] if binding else None


def _in_force(routing: Routing, rollout: Rollout) -> tuple[int, bool]:
    """The candidate's weight, and whether the arm that does not answer is scored."""
    route = routing.routes.get(rollout.model)
    if route is None or route.release != rollout.id:
        return 0, False
    return (ALL, False) if route.candidate is None else (route.weight, route.shadow)


def _route(rollout: Rollout, weight: int, shadow: bool, records: Sequence[Rollout]) -> Route | None:
    """Without weight and shadow: what was in force before this release, None if nothing was."""
    candidate = Arm(rollout.candidate.number, rollout.candidate.bundle)
    if weight == ALL and not shadow:
        return Route(rollout.id, candidate)
    if rollout.champion is None:
        return None
    champion = Arm(rollout.champion.number, rollout.champion.bundle)
    if not weight and not shadow:
        before = _serving([one for one in records if one.id != rollout.id])
        return Route(before.id if before else rollout.id, champion)
    return Route(rollout.id, champion, candidate, weight, shadow, rollout.salt)


_ENDS = {Do.PROMOTE: Status.PROMOTED, Do.ROLL_BACK: Status.ROLLED_BACK, Do.REJECT: Status.REJECTED}


def _after(rollout: Rollout, move: Move, now: int) -> Rollout:
    if move.do is Do.ADVANCE:
        return replace(rollout, index=move.to, step_ms=now, status=Status.RUNNING, reason=move.reason)
    if move.do is Do.ASK:
        return replace(rollout, status=Status.WAITING, reason=move.reason)
    return replace(rollout, status=_ENDS[move.do], ended_ms=now, reason=move.reason)


def _event(rollout: Rollout, now: int) -> Event:
    """What the record says happened last. When it began to wait is not in it: about now."""
    kind = rollout.status.value.replace(" ", "_")
    if rollout.status is Status.RUNNING:
        kind = "advanced" if rollout.revision > 1 else "started"
    at = rollout.step_ms if rollout.status is Status.RUNNING else rollout.ended_ms or now
    body = {"version": rollout.candidate.number, "step": str(rollout.step), "index": rollout.index}
    key = f"{rollout.id}:{kind}:{rollout.revision}"
    return Event(at, rollout.model, f"release.{kind}", key, rollout.id, rollout.reason, body)


def _named(champion: Version | None) -> str:
    return f"version {champion.number}" if champion else "nobody"
