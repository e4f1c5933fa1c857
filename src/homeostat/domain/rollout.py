"""A release on its way: what it is (Rollout), what was seen of it (Seen), what to do next (Move)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf

from homeostat.domain.bundle import Backtest, Version
from homeostat.domain.gate import Verdict
from homeostat.domain.schema import Value
from homeostat.domain.trigger import in_background
from homeostat.domain.units import ALL, show_duration, show_share


class StepKind(StrEnum):
    """Backtest: recorded requests alone, before any traffic. Shadow: the candidate answers nobody. Canary: it answers
    `weight` of the callers. Full: all of them. Probation: all of them, with the old champion still scored beside it.
    Hold and Pause keep the traffic of the step before them: for a time, and until a person approves."""

    BACKTEST = "backtest"
    SHADOW = "shadow"
    CANARY = "canary"
    FULL = "full"
    PROBATION = "probation"
    HOLD = "hold"
    PAUSE = "pause"


@dataclass(frozen=True, slots=True)
class ReleaseStep:
    """A step and the candidate's share in it, in basis points. `ms`: how long a Hold lasts at least."""

    kind: StepKind
    weight: int
    ms: int = 0

    def __str__(self) -> str:
        share = show_share(self.weight)
        if self.kind in (StepKind.CANARY, StepKind.FULL):
            return share
        lasts = f" of {show_duration(self.ms)}" if self.ms else ""
        return self.kind.value + lasts + (f" at {share}" if self.kind in STILL else "")


STILL = (StepKind.HOLD, StepKind.PAUSE)
"""Steps that leave the traffic as it is."""


class Status(StrEnum):
    """QUEUED was asked for; RUNNING and WAITING (for a person) are open; the others are final, but for PROMOTED,
    which a person may take back."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled back"
    REJECTED = "rejected"
    SUPERSEDED = "superseded"

    @property
    def open(self) -> bool:
        return self in (Status.RUNNING, Status.WAITING)


@dataclass(frozen=True, slots=True)
class Rollout:
    """The record of one release. `champion` is None for the first one a model ever has.

    `id` is R1, R2, … within the model; `salt` decides who sees the candidate; `slow_us` is the limit beyond which an
    answer counts as slow, from the champion's p99 before the release; `revision` counts the writes. `by`: who asked for
    it; `despite`: why a bundle that was refused before is tried again.
    """

    id: str
    model: str
    champion: Version | None
    candidate: Version
    steps: tuple[ReleaseStep, ...]
    index: int
    status: Status
    started_ms: int
    step_ms: int
    salt: str
    slow_us: int
    reason: str = ""
    ended_ms: int | None = None
    revision: int = 0
    by: str = ""
    despite: str = ""

    @property
    def step(self) -> ReleaseStep:
        return self.steps[self.index]

    @property
    def background(self) -> bool:
        """Its candidate was trained in the background, without a cause."""
        return in_background(self.by.removeprefix("trigger "))

    @property
    def gives_way(self) -> bool:
        """A challenger of the background answers nobody until it is shown to be better. Until then whatever has a cause
        takes its place, and at last a newer one."""
        return self.background and not self.step.weight


@dataclass(frozen=True, slots=True)
class Lane:
    """What one lane of evidence says. `evidence` is E, `threshold` the 1/alpha it is held against; `value` with
    [low, high] is the ratio of bad-event rates or the mean paired difference, in a segment for the lane of segments;
    `n` the events or labels behind it. JSON has no infinity: a `low` without a `high` has none above it.
    `bounded`: the ratio is shown to lie below the step's bound (lane 1), or the candidate non-inferior (lane 3).
    """

    name: str
    verdict: Verdict
    reason: str
    n: int = 0
    evidence: float = 0.0
    threshold: float = 0.0
    value: float | None = None
    low: float | None = None
    high: float | None = None
    bounded: bool = False

    def __post_init__(self) -> None:
        if self.low is not None and self.high is None:
            object.__setattr__(self, "high", inf)


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything a decision may look at, gathered in one read of the world.

    `weight` and `shadow` are in force in the routing document; `ready`: the data plane has the candidate's bundle
    loaded and its sample verified; `requests`: answered by the candidate in this step (rows it was shadow-scored
    on, in Shadow and Probation); `backtest`: a training's, against the same champion, None without one; `replayed`:
    what the step Backtest found, "" while it goes on and in other steps; `person`: a manual order, "approve", "reject"
    or "rollback", with its reason; `back`: why the traffic can't go back yet, "" when it can; `newer`: what takes
    this one's place, a release or an experiment, "" where it has to wait.
    """

    now_ms: int
    weight: int
    shadow: bool
    ready: bool
    requests: int
    lanes: tuple[Lane, ...] = ()
    hard_stop: str = ""
    mature_labels: int = 0
    backtest: Backtest | None = None
    replayed: str = ""
    person: str = ""
    person_reason: str = ""
    back: str = ""
    newer: str = ""

    def lane(self, name: str) -> Lane | None:
        return next((lane for lane in self.lanes if lane.name == name), None)


class Do(StrEnum):
    """The verbs of a move. ROUTE changes traffic; the others change the record. Never both in one pass."""

    HOLD = "hold"
    ROUTE = "route"
    ADVANCE = "advance"
    PROMOTE = "promote"
    ROLL_BACK = "roll back"
    ASK = "ask a person"
    REJECT = "reject"
    SUPERSEDE = "supersede"


@dataclass(frozen=True, slots=True)
class Move:
    """`weight` and `shadow` are for ROUTE; `to` is the step index for ADVANCE."""

    do: Do
    reason: str
    weight: int = 0
    shadow: bool = False
    to: int = 0


@dataclass(frozen=True, slots=True)
class Arm:
    """A version in the routing document."""

    version: int
    bundle: str


@dataclass(frozen=True, slots=True)
class Share:
    """An arm beside the champion, and its weight in basis points."""

    arm: Arm
    weight: int


Segments = Mapping[str, tuple[Value, ...]]
"""Field of a row → values of it."""


@dataclass(frozen=True, slots=True)
class Route:
    """Who answers for one model. `weights` are those of the champion, the candidate and, in an experiment of several
    variants, `more`; they sum to 10,000. With `shadow` the arm that does not answer is scored on the same rows, after
    the answer. No row meets another arm than the champion unless each field of `only` has one of the values there, and
    no field of `never` has."""

    release: str
    champion: Arm
    candidate: Arm | None = None
    weight: int = 0
    shadow: bool = False
    salt: str = ""
    more: tuple[Share, ...] = ()
    only: Segments = field(default_factory=dict)
    never: Segments = field(default_factory=dict)

    def __post_init__(self) -> None:
        for weight in self.weights:
            if not 0 <= weight <= ALL:
                raise ValueError(f"the weights are {self.weights}; each must lie in 0..{ALL}")
        if self.candidate is None and (self.weight or self.shadow or self.more):
            raise ValueError("a weight, a shadow or more arms without a candidate")

    @property
    def shares(self) -> tuple[Share, ...]:
        """Of everyone but the champion."""
        return (Share(self.candidate, self.weight), *self.more) if self.candidate else ()

    @property
    def arms(self) -> tuple[Arm, ...]:
        return self.champion, *(share.arm for share in self.shares)

    @property
    def weights(self) -> tuple[int, ...]:
        beside = (self.weight, *(share.weight for share in self.more))
        return ALL - sum(beside), *beside


@dataclass(frozen=True, slots=True)
class Routing:
    """The one versioned document that the data plane follows. `routes` are the releases', `experiments` lie over
    them; `testers`: name → SHA-256 of the token of somebody who may choose a variant. `term`: of the control plane that
    wrote it; one of an earlier term writes no more."""

    version: int = 0
    routes: Mapping[str, Route] = field(default_factory=dict)
    experiments: Mapping[str, Route] = field(default_factory=dict)
    testers: Mapping[str, str] = field(default_factory=dict)
    at_ms: int = 0
    term: int = 0

    def in_force(self, model: str) -> Route:
        """An experiment holds while its champion is the one that serves, and no release wants callers."""
        route, over = self.routes[model], self.experiments.get(model)
        holds = over is not None and route.candidate is None and over.champion == route.champion
        return over if over is not None and holds else route


@dataclass(frozen=True, slots=True)
class Term:
    """Who leads. `number` grows with each new leader and fences the writes of the ones before; `beat` with each sign
    of life. Number 0: nobody ever did."""

    number: int = 0
    beat: int = 0
    holder: str = ""
