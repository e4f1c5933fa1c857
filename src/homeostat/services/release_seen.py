"""Everything that a decision about a release may look at, gathered in one read of the world."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from homeostat import codec
from homeostat.domain.backtest import Backtested
from homeostat.domain.bundle import Backtest, Bundle, Version
from homeostat.domain.errors import Corrupt, NotFound
from homeostat.domain.event import BACKTEST, Event
from homeostat.domain.gate import Verdict
from homeostat.domain.policy import Policy, ReleasePolicy
from homeostat.domain.rollout import Rollout, Routing, Seen, Status, StepKind
from homeostat.domain.units import ALL
from homeostat.engines.evaluation import Evaluation
from homeostat.engines.judge import Judge
from homeostat.engines.lanes import Case, Findings, Side
from homeostat.engines.steps import margin
from homeostat.ports import Blobs, Clock, Journal, Plane, Router
from homeostat.services.backtest import WINDOW_MS
from homeostat.services.evidence_log import EvidenceLog, requests_seen

PROBES, PROBE_MS = 5, 1_000
"""So many failed probes in a row, at least so far apart, are a hard stop."""
_NOTHING = Findings((), "", 0)
_STARTED = 2  # the revision of a release that has started, and of one that ended before
_REFUSING = (Status.ROLLED_BACK, Status.REJECTED)


class Sight:
    """What is seen of the releases of one model."""

    def __init__(
        self,
        policy: Policy,
        journal: Journal,
        router: Router,
        plane: Plane,
        blobs: Blobs,
        evidence: EvidenceLog,
        clock: Clock,
        early: Callable[[Rollout], pl.DataFrame] | None = None,
    ) -> None:
        """`early` gives the rows before the release on which both versions are scored; None: there are none."""
        self.policy, self.journal, self.router, self.plane, self.clock = policy, journal, router, plane, clock
        self.model, self.blobs, self.evidence = policy.name, blobs, evidence
        self._bundles: dict[str, Bundle] = {}
        self._answered, self._failed, self._probed_ms = "", 0, 0
        self._early, self._before = early, ("", pl.DataFrame())
        self._judge = Judge()

    def gather(self, rollout: Rollout, records: Sequence[Rollout]) -> Seen:
        """`records`: all of the model, oldest first."""
        now = self.clock.now_ms()
        orders = self.orders(rollout)
        anew = resumed(orders)
        verdicts = self.journal.read(self.model, "release.verdict", rollout.id)
        replayed = self.replayed(rollout) if replays(rollout) else None
        findings, requests = self._judged(rollout, since(rollout, anew), now)
        if replayed:
            findings = Findings(replayed.lanes, replayed.result.hard_stop, 0)
        stands = verdicts[-1].text if len(verdicts) > len(anew) else ""
        person = order(orders, rollout)
        said = ("resume" if person.body["resume"] else str(person.body["order"])) if person else ""
        weight, shadow = in_force(self.router.read(), rollout, self.policy.release)
        ready = self.plane.ready(self.model, rollout.candidate.bundle)
        silent = self._silent(rollout, ready, now)
        return Seen(
            now_ms=now,
            weight=weight,
            shadow=shadow,
            ready=ready,
            requests=requests,
            lanes=findings.lanes,
            hard_stop=stands or findings.hard_stop or silent or _refused_meanwhile(rollout, records),
            mature_labels=findings.mature_labels,
            backtest=self._backtest(rollout),
            replayed=replayed.sentence if replayed else "",
            person=said,
            person_reason=f"{person.body['who']}: {person.body['reason']}" if person else "",
            back=self._back(rollout, records, said) if weight == ALL else "",
            newer=self._newer(rollout, records),
        )

    def _silent(self, rollout: Rollout, ready: bool, now: int) -> str:
        """A candidate that was ready and is no more, probe after probe, while the champion is. Before it is ready it
        gets no traffic; what fails both is the data plane's. The count is lost with the process, and begins anew."""
        bundle, champion = rollout.candidate.bundle, rollout.champion
        if champion is None or not rollout.status.open:
            return ""
        if ready:
            self._answered, self._failed, self._probed_ms = bundle, 0, now
        if self._answered != bundle:
            return ""
        if not ready and now >= self._probed_ms + PROBE_MS and self.plane.ready(self.model, champion.bundle):
            self._failed, self._probed_ms = self._failed + 1, now
        version = rollout.candidate.number
        return f"{PROBES} probes in a row failed: version {version} was ready before" if self._failed >= PROBES else ""

    def orders(self, rollout: Rollout) -> Sequence[Event]:
        return self.journal.read(self.model, "release.ordered", rollout.id)

    def replayed(self, rollout: Rollout) -> Backtested | None:
        """What its backtest found, None while there is more to do."""
        told = self.journal.read(self.model, BACKTEST, rollout.id)
        return backtested(told[0]) if told else None

    def _judged(self, rollout: Rollout, since_ms: int, now: int) -> tuple[Findings, int]:
        try:
            return self.findings(rollout, since_ms, now)
        except (NotFound, Corrupt) as error:
            return Findings((), _unreadable(error.what), 0), 0

    def findings(self, rollout: Rollout, since_ms: int, now: int) -> tuple[Findings, int]:
        """Of live requests. Nothing is compared where there is no champion, nor once it is over."""
        if rollout.champion is None or not rollout.status.open:
            return _NOTHING, 0
        case = self.case(rollout, rollout.champion, now)
        if replays(rollout):
            return Findings((), _unreadable(self.broken(rollout.champion)), 0), 0
        rows, labels = self.rows(rollout, since_ms, now)
        shadowed = not rollout.step.weight
        requests = requests_seen(rows, rollout.candidate.number, rollout.step_ms, shadowed)
        return self._judge.judge(case, rows, labels), requests

    def rows(self, rollout: Rollout, since_ms: int, now: int) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Rows that both versions scored, and labels: under the release, and, where it has a shadow step, before it. A
        person who approves has seen what was recorded: from then on only live rows count."""
        approved = any(event.body["order"] == "approve" for event in self.orders(rollout))
        shadowed = any(step.kind is StepKind.SHADOW for step in rollout.steps)
        if self._early is None or not shadowed or approved or since_ms > rollout.started_ms:
            return self.evidence.read(rollout.id, since_ms, now)
        if self._before[0] != rollout.id:
            self._before = rollout.id, self.evidence.kept(self._early(rollout))
        live, labels = self.evidence.read(rollout.id, since_ms - WINDOW_MS, now)
        return pl.concat([self._before[1], live], how="vertical_relaxed"), labels

    def case(self, rollout: Rollout, champion: Version, now: int) -> Case:
        """Errors: `NotFound`, `Corrupt`."""
        return Case(
            champion=Side(champion.number, self.bundle(champion.bundle)),
            candidate=Side(rollout.candidate.number, self.bundle(rollout.candidate.bundle)),
            weight=rollout.step.weight,
            slow_us=rollout.slow_us,
            margin=margin(self.policy.release, rollout),
            horizon_ms=self.policy.data.label_horizon,
            now_ms=now,
            segments=self.policy.monitor.segments,
        )

    def bundle(self, digest: str) -> Bundle:
        """Errors: `NotFound`, `Corrupt`."""
        if digest not in self._bundles:
            self._bundles[digest] = codec.decode(self.blobs.get(digest), Bundle)
        return self._bundles[digest]

    def broken(self, version: Version) -> str:
        """What is wrong with a stored bundle, "" when every file of it can be read."""
        try:
            stored = codec.decode(self.blobs.get(version.bundle), Bundle)
            for digest in stored.files.values():
                self.blobs.get(digest)
        except (NotFound, Corrupt) as error:
            return error.what
        return ""

    def _backtest(self, rollout: Rollout) -> Backtest | None:
        """The candidate's, if it was made against the champion of this release."""
        if rollout.champion is None or not rollout.status.open or self.broken(rollout.candidate):
            return None
        bundle = self.bundle(rollout.candidate.bundle)
        if "evaluation.json" not in bundle.files or self.policy.feedback.selective:  # a holdout has what was chosen
            return None
        found = codec.decode(self.blobs.get(bundle.files["evaluation.json"]), Evaluation).backtest
        return found if found and found.champion == rollout.champion.bundle else None

    def _back(self, rollout: Rollout, records: Sequence[Rollout], person: str) -> str:
        """Asked when the candidate alone answers: the version before it may have been unloaded by now."""
        if rollout.champion is None or (rollout.status is Status.PROMOTED and person != "rollback"):
            return ""
        target = before(rollout, records)
        if target is None:
            return "no earlier release can be loaded"
        loaded = self.plane.ready(self.model, target.candidate.bundle)
        return "" if loaded else f"version {target.candidate.number} must be loaded first"

    def _newer(self, rollout: Rollout, records: Sequence[Rollout]) -> str:
        """What was asked for after this one and takes its place: the newest release, or an experiment."""
        if self.policy.release.newer != "supersede" and not rollout.gives_way:
            return ""
        later = records[[one.id for one in records].index(rollout.id) + 1 :]
        newest = next((f"release {one.id}" for one in reversed(later) if one.status is Status.QUEUED), "")
        running = experiment(self.journal, self.model) if rollout.gives_way and not newest else ""
        return f"experiment {running}" if running else newest


def replays(rollout: Rollout) -> bool:
    """Whether it stands in its backtest."""
    return rollout.status.open and rollout.step.kind is StepKind.BACKTEST


def backtested(event: Event) -> Backtested:
    """Back from the journal."""
    return codec.decode(codec.encode(event.body), Backtested)


def serving(records: Sequence[Rollout]) -> Rollout | None:
    """The release whose version serves, or would if nothing else were under way."""
    return next((one for one in reversed(records) if one.status is Status.PROMOTED), None)


def before(rollout: Rollout, records: Sequence[Rollout]) -> Rollout | None:
    """The last healthy release that served before this one."""
    return serving([one for one in records if one.id != rollout.id])


def experiment(journal: Journal, model: str) -> str:
    """The one under way, while which no release begins; "" for none."""
    begun, ended = (journal.read(model, f"experiment.{what}") for what in ("started", "ended"))
    return begun[-1].subject if len(begun) > len(ended) else ""


def refusal(bundle: str, records: Sequence[Rollout]) -> Rollout | None:
    """The release in which this bundle was refused, unless a person let it in again since. One that has served, and
    may serve now, is not refused by being taken out of the queue."""
    found, served = None, False
    for one in records:
        if one.candidate.bundle != bundle or (served and _never_started(one)):
            continue
        served = one.status is Status.PROMOTED
        found = one if one.status in _REFUSING else None if one.despite else found
    return found


def _never_started(rollout: Rollout) -> bool:
    """A person rejected it in the queue: its record was written when it was asked for, and when it ended."""
    return rollout.status is Status.REJECTED and rollout.revision <= _STARTED


def _unreadable(what: str) -> str:
    return f"a bundle of the release can't be read: {what}" if what else ""


def _refused_meanwhile(rollout: Rollout, records: Sequence[Rollout]) -> str:
    if rollout.status is not Status.QUEUED:
        return ""
    found = refusal(rollout.candidate.bundle, records)
    return f"Its bundle was {found.status.value} in release {found.id}: {found.reason}" if found else ""


def harmed(seen: Seen) -> bool:
    return bool(seen.hard_stop) or any(lane.verdict is Verdict.HARM for lane in seen.lanes)


def resumed(orders: Sequence[Event]) -> list[Event]:
    """Approvals that set harm aside; each makes evidence and verdicts start anew."""
    return [event for event in orders if event.body["resume"]]


def since(rollout: Rollout, anew: Sequence[Event]) -> int:
    """From when on evidence counts."""
    return max((event.at_ms for event in anew), default=rollout.started_ms)


def order(orders: Sequence[Event], rollout: Rollout) -> Event | None:
    """The last order still to be carried out: an approval is of the record as the person saw it."""
    binding = [e for e in orders if e.body["order"] != "approve" or e.body["revision"] == rollout.revision]
    return binding[-1] if binding else None


def in_force(routing: Routing, rollout: Rollout, rules: ReleasePolicy) -> tuple[int, bool]:
    """The candidate's weight, and whether the arm that does not answer is scored; nothing under other segment rules
    than the policy's, so that a change of them is put in force."""
    route = routing.routes.get(rollout.model)
    if route is None or route.release != rollout.id:
        return 0, False
    if route.candidate is not None and (route.only, route.never) != (rules.only, rules.never):
        return 0, False
    return (ALL, False) if route.candidate is None else (route.weight, route.shadow)
