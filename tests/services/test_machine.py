"""The machine of releases under everything that may happen at once: 10,000 operations by two controllers that crash,
lose writes and overtake each other, over whatever evidence there may be. What must hold is checked at each write."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from homeostat.domain.backtest import Backtested
from homeostat.domain.errors import Deposed, HomeostatError
from homeostat.domain.gate import Verdict
from homeostat.domain.policy import HooksPolicy, ReleasePolicy
from homeostat.domain.rollout import Arm, Do, Lane, Rollout, Routing, Status
from homeostat.domain.units import ALL, DAY_MS, HOUR_MS, MINUTE_MS
from homeostat.engines.lanes import Findings
from homeostat.engines.rollout import MOVES
from homeostat.services.backtest import Backtests
from homeostat.services.evidence_log import EvidenceLog
from homeostat.services.release_seen import Sight, replays, serving
from homeostat.services.rollouts import Releases
from homeostat.stores.memory import MemoryRollouts, MemoryRouter
from past import Past, as_good
from world import LOG, MODEL, Crash, Log, World, right

OPERATIONS = 10_000
STEPS = ("backtest", "shadow", "10%", "hold 2h", "50%", "pause", "100%", "probation")
REFUSED = (Status.ROLLED_BACK, Status.REJECTED)
MISFORTUNES = ("", "", "crash", "crash after", "lost", "overtaken")


class Rollouts(MemoryRollouts):
    """Records of which at most one is open, each of which makes moves that the rule knows."""

    def save(self, rollout: Rollout) -> Rollout:
        before = self._rollouts.get((MODEL, rollout.id))
        if before and before.status is not rollout.status:
            assert rollout.status in MOVES[before.status].values()
        saved = super().save(rollout)
        assert sum(one.status.open for one in self.all(MODEL)) <= 1
        return saved


class Router(MemoryRouter):
    """Documents in which nobody gets traffic who must not."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def publish(self, routing: Routing) -> None:
        before = _answers(self.read())
        super().publish(routing)
        self._check(routing, {arm for arm, _share in before})

    def _check(self, routing: Routing, before: set[Arm]) -> None:
        records = self.world.rollouts.all(MODEL)
        route = routing.routes.get(MODEL)
        if route is None:
            return
        assert sum(route.weights) == ALL
        if route.candidate is not None:
            mine = next(one for one in records if one.id == route.release)
            assert mine.candidate.bundle == route.candidate.bundle
            assert mine.status.open or (mine.status is Status.PROMOTED and route.weight == ALL)
        for arm, _share in _answers(routing):
            of_it = [one for one in records if one.candidate.bundle == arm.bundle]
            assert of_it[-1].status not in REFUSED
            assert arm in before or arm.bundle in self.world.loaded or not before


def _answers(routing: Routing) -> list[tuple[Arm, int]]:
    """The arms that get traffic."""
    route = routing.routes.get(MODEL)
    arms = zip((route.champion, route.candidate), route.weights, strict=True) if route else ()
    return [(arm, share) for arm, share in arms if arm and share]


class Fate:
    """Who leads, and what happens at which port call."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.leading, self.terms = rng, 1, [1, 0]
        self.what, self.due = "", -1

    def lead(self, who: int) -> None:
        self.leading += 1
        self.terms[who] = self.leading

    def plan(self, what: str) -> None:
        self.what, self.due = what, self.rng.randrange(14)

    def next(self) -> str:
        self.due -= 1
        return self.what if self.due == -1 else ""


class Fated:
    """A port as controller `who` reaches it: its writes are fenced by its term. At the planned call it crashes before
    or after, loses the write, or is overtaken by the other one and goes on without knowing."""

    def __init__(self, target: object, life: Life, who: int) -> None:
        self._target, self._life, self._who = target, life, who

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any) -> Any:
            fate, writes = self._life.fate, name in ("append", "save", "publish")
            what = fate.next()
            if what == "crash":
                raise Crash(name)
            if what == "overtaken":
                self._life.take_over(1 - self._who)
            if writes and fate.terms[self._who] != fate.leading:
                raise Deposed("another control plane leads by now")
            if name == "publish":
                args = (replace(args[0], term=fate.leading),)
            if writes and what == "lost":
                return {"append": True, "save": args[0], "publish": None}[name]
            result = getattr(self._target, name)(*args)
            if what == "crash after":
                raise Crash(name)
            return result

        return call


class Blind(Sight):
    """Sees whatever evidence it is told to see."""

    def __init__(self, life: Life, *ports: Any) -> None:
        super().__init__(life.world.policy, *ports)
        self.life = life

    def findings(self, rollout: Rollout, since_ms: int, now: int) -> tuple[Findings, int]:
        del since_ms, now
        open_one = rollout.champion is not None and rollout.status.open and not replays(rollout)
        return (self.life.findings, self.life.requests) if open_one else (Findings((), "", 0), 0)


class Recorded(Log):
    """There is always a request to put again."""

    def read(self, _model: str, _start_ms: int, end_ms: int, _inputs: bool = True, _share: float = 1.0) -> pl.DataFrame:
        row = {"id": "p1", "at_ms": end_ms - 1, "release": "R0", "version": 0, "role": "answer"}
        return pl.DataFrame([{**dict.fromkeys(LOG), **row}], LOG)


FOUND = Past(60).tried(as_good)


class Told(Backtests):
    """A backtest finds, after a while, whatever it is told to find."""

    def __init__(self, life: Life) -> None:
        self.life = life

    def work(self, release: Rollout) -> Backtested | None:
        assert release.champion is not None
        found = self.life.findings
        result = replace(FOUND.result, lanes=found.lanes, hard_stop=found.hard_stop)
        return replace(FOUND, result=result, sentence="Seen.") if self.life.rng.random() >= self.life.slow else None


class Life:
    """A world, two controllers in it, and what people and the world do."""

    def __init__(self, seed: int, policy: ReleasePolicy) -> None:
        self.rng, self.world = random.Random(seed), World(policy)
        self.world.rollouts, self.world.router = Rollouts(), Router(self.world)
        self.world.log = Recorded(LOG)
        self.fate, self.done = Fate(self.rng), Counter[str]()
        self.findings, self.requests, self.slow = Findings((), "", 0), 100, 0.3
        self.asking = self.person()
        self.controllers = [self.controller(0), self.controller(1)]
        self.versions = 0

    def controller(self, who: int) -> Releases:
        w = self.world
        ports = w.rollouts, w.journal, w.router, w, w.log, w.labels, w, w, w, w
        return self.blinded(Releases(w.policy, *(Fated(port, self, who) for port in ports), Told(self)))

    def person(self) -> Releases:
        w = self.world
        return self.blinded(Releases(w.policy, w.rollouts, w.journal, w.router, *self.rest()))

    def rest(self) -> tuple[Any, ...]:
        w = self.world
        return w, w.log, w.labels, w, w, w, w, Told(self)

    def blinded(self, releases: Releases) -> Releases:
        sight, w = releases.sight, self.world
        evidence = EvidenceLog(MODEL, w.log, w.labels)
        ports = sight.journal, sight.router, sight.plane, sight.blobs, evidence, sight.clock
        releases.sight = Blind(self, *ports)
        return releases

    def take_over(self, who: int) -> None:
        self.fate.lead(who)
        self.controllers[who].claim()

    def step(self) -> None:
        """One operation."""
        names = ("turn", "start", "order", "clock", "evidence", "plane", "overtake", "hook", "lose")
        name = self.rng.choices(names, (60, 2, 14, 10, 5, 8, 3, 1, 0.2))[0]
        try:
            getattr(self, name)()
            self.done[name] += 1
        except Crash:
            self.done["crash"] += 1
        except HomeostatError as error:
            self.done[type(error).__name__] += 1

    def turn(self) -> None:
        """Some passes of one controller, who may not lead, and may not come to their end."""
        leads = int(self.fate.terms[1] > self.fate.terms[0])
        who = leads if self.rng.random() < 0.8 else 1 - leads
        self.fate.plan(self.rng.choice(MISFORTUNES))
        try:
            for _ in range(self.rng.randrange(1, 5)):
                self.controllers[who].reconcile()
        except Crash:
            self.fate.terms[who] = 0
            self.controllers[who] = self.controller(who)
            raise
        finally:
            self.fate.due = -1

    def start(self) -> None:
        if self.versions and self.rng.random() < 0.3:
            known = self.rng.choice(self.asking.history()).candidate
            self.asking.start(known, "ada", self.rng.choice(("", "try again")))
            return
        self.versions += 1
        self.asking.start(self.world.version(self.versions, right(0.9)), "ada")

    def order(self) -> None:
        """An approval is of what is under way, another order of anything."""
        standing = self.asking.status()
        if standing is None:
            return
        what = self.rng.choices(("approve", "reject", "rollback"), (20, 1, 1))[0]
        serves = serving(self.asking.history())
        among = {
            "approve": [standing.rollout],
            "reject": self.asking.history()[-4:],
            "rollback": [serves or standing.rollout],
        }
        self.asking.order(self.rng.choice(among[what]).id, what, "so", "ada")

    def clock(self) -> None:
        most = self.rng.choice((MINUTE_MS, HOUR_MS, DAY_MS, 9 * DAY_MS))
        self.world.now += self.rng.randrange(-most // 8, most)

    def evidence(self) -> None:
        """Mostly good: else nothing would get far."""
        verdicts = self.rng.choices((Verdict.OK, Verdict.UNKNOWN, Verdict.HARM, Verdict.INVALID), (30, 6, 1, 1), k=3)
        lanes = tuple(
            Lane(name, verdict, "seen", 99, value=-0.1, bounded=verdict is Verdict.OK)
            for name, verdict in zip(("errors", "slow", "quality"), verdicts, strict=True)
        )
        stop = "half of the first rows are bad" if self.rng.random() < 0.02 else ""
        self.findings, self.requests = Findings(lanes, stop, 99), self.rng.choice((0, 10, 100))

    def plane(self) -> None:
        """The data plane loads what is routed and the newest; at times a worker has lost something, or all else."""
        world, what, route = self.world, self.rng.random(), self.world.route
        routed = {arm.bundle for arm in (route.champion, route.candidate) if arm} if route else set()
        if what < 0.2 and world.loaded:
            world.loaded.discard(self.rng.choice(sorted(world.loaded)))
        elif what < 0.4:
            world.loaded = routed
        else:
            world.loaded |= routed | {one.candidate.bundle for one in self.asking.history()[-3:]}

    def overtake(self) -> None:
        self.take_over(self.rng.randrange(2))

    def hook(self) -> None:
        self.world.hook_fails = self.rng.choice(("", "", "exit code 1"))

    def lose(self) -> None:
        """A stored bundle, of a release that is not the newest."""
        older = [one.candidate.bundle for one in self.asking.history()[:-3]]
        if older:
            self.world.stored.pop(self.rng.choice(older), None)

    def settle(self) -> None:
        """Without further misfortune, until nothing moves."""
        self.world.hook_fails, self.slow = "", 0.0
        self.take_over(0)
        for _ in range(10 * len(self.asking.history())):
            self.world.now += 2 * MINUTE_MS
            self.world.loaded |= set(self.world.stored)
            if self.controllers[0].reconcile().do is Do.HOLD:
                return
        raise AssertionError("it does not come to rest")


@pytest.mark.parametrize(
    ("seed", "policy"),
    [
        (1, ReleasePolicy(steps=STEPS, hooks=HooksPolicy("check", "tell"))),
        (22, ReleasePolicy(steps=STEPS, newer="supersede", on_unknown="best_estimate")),
        (31, ReleasePolicy(steps=STEPS, newer="supersede", on_harm="pause", on_unknown="hold")),
        (4, ReleasePolicy(steps=("pause", *STEPS[:-1], "hold 1h"), on_harm="pause", hooks=HooksPolicy("check", ""))),
    ],
)
def test_whatever_happens_the_invariants_hold(seed: int, policy: ReleasePolicy) -> None:
    life = Life(seed, policy)
    told: list[Any] = []
    for number in range(OPERATIONS):
        life.step()
        if number % 200 == 0:
            journal = list(life.world.journal.read(MODEL))
            assert journal[: len(told)] == told
            told = journal
    records = life.asking.history()
    ends = Counter(one.status for one in records)
    assert min(ends[Status.PROMOTED], ends[Status.ROLLED_BACK] + ends[Status.REJECTED]) > 1, ends  # much was tried
    assert min(life.done[name] for name in ("crash", "Deposed", "Refused", "overtake")) > 20, life.done
    life.findings = Findings((Lane("errors", Verdict.HARM, "seen", 99),), "", 0)
    life.settle()
    route, left = (
        life.world.route,
        [one for one in life.asking.history() if one.status.open or one.status is Status.QUEUED],
    )
    assert route is None or route.candidate is None  # harm took all traffic back
    assert not left or policy.on_harm == "pause"
