"""The policy of one model: homeostat.yaml, read. Every default stands here and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from homeostat.domain.errors import ConfigError
from homeostat.domain.feedback import FeedbackPolicy
from homeostat.domain.schema import Task, Value
from homeostat.domain.units import (
    DAY_MS,
    MINUTE_MS,
    SECOND_MS,
    BasisPoints,
    Fraction,
    Millis,
    ModelName,
    Size,
    Window,
    Workers,
    show_duration,
)

STRICT = {"extra": "forbid"}
"""Unknown keys are errors (read by pydantic's adapter for plain dataclasses)."""
VARIABLE = re.compile(r"\$\{(\w+)\}")
"""How a setting names an environment variable."""


def unset(name: str, where: str) -> ConfigError:
    """A variable that is needed and not there."""
    way_out = f"Set it, as `export {name}=…`."
    return ConfigError(f"the environment variable {name} is not set", where=where, way_out=way_out)


@dataclass(frozen=True, slots=True)
class Every:
    """Rows without a time column: one row every `every`, the first at `start` (an ISO date or date-time, UTC)."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT
    every: Millis
    start: str


@dataclass(frozen=True, slots=True)
class DataPolicy:
    """Where the rows come from. `time`: a column, several columns that make it together, or `Every`; without it
    rows count as one a second from 1970 on, in their order. `repeated_times`: may two rows of one key (of all rows,
    where there is no key) have the same time?"""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT
    source: str
    target: str
    time: str | tuple[str, ...] | Every | None = None
    key: str | None = None
    label_horizon: Millis = 0
    drop: tuple[str, ...] = ()
    repeated_times: Literal["refuse", "allow"] = "refuse"


@dataclass(frozen=True, slots=True)
class TrainPolicy:
    """`window` 0 learns from all rows; `holdout` is the newest labelled stretch, which the evaluated model never saw.
    With `refit` the model that is released learns from the holdout too, once it has passed the gates. `half_life`: a
    row so much older than the newest one counts half; 0: all count alike."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT
    metric: str
    pipeline: str = "pipelines.train"
    window: Window = 90 * DAY_MS
    holdout: Millis = 7 * DAY_MS
    refit: bool = True
    seed: int = 1
    half_life: Millis = 0

    @property
    def half_ms(self) -> int:
        """How far back half of what a training learns lies, at a steady rate of rows."""
        return min((one for one in (self.half_life, self.window // 2) if one), default=0)


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """One gate: a threshold (`at_least`, `at_most`) or a comparison (`versus: champion`, within `margin`)."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT
    metric: str
    at_least: float | None = None
    at_most: float | None = None
    versus: str | None = None
    margin: float = 0.0


@dataclass(frozen=True, slots=True)
class HooksPolicy:
    """A command (no shell sees it) or an http(s) URL each; "": none. One before a step that fails holds the release."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT
    before_step: str = ""
    after_outcome: str = ""


@dataclass(frozen=True, slots=True)
class ReleasePolicy:
    """How a candidate reaches production. `steps`: backtest, shadow, growing percentages, 100%, probation; between
    them, hold and pause.

    A step lasts at least `min_time`, and until the candidate has seen `min_requests` or a day has passed. `max_hold`,
    plus one label horizon, is how long it may wait for its verdict; then `on_unknown` decides. `newer`: what becomes
    of a candidate that comes while another one is under way. A candidate answers `only` rows with these values, and
    `never` rows with those: field → values.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT
    steps: tuple[str, ...] = ("backtest", "shadow", "1%", "10%", "50%", "100%", "probation")
    min_time: Millis = 30 * MINUTE_MS
    min_requests: int = 50
    max_hold: Millis = 7 * DAY_MS
    accept_unknown: bool = True
    margin: float = 0.005
    on_unknown: Literal["person", "hold", "best_estimate"] = "person"
    on_harm: Literal["rollback", "pause"] = "rollback"
    cap_without_labels: BasisPoints = 1_000
    only: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    never: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    newer: Literal["queue", "supersede"] = "queue"
    hooks: HooksPolicy = field(default_factory=HooksPolicy)


@dataclass(frozen=True, slots=True)
class MonitorPolicy:
    """Windows of the prediction log and the false-alarm rate of each, over all features together. `rows`: windows of so
    many answers, however long they take, beside those of time. `segments`: the inputs in each value of which a
    candidate must do no harm. `value`: what an answer is worth, by the names of `VALUED`, or a function of the project
    (module:name); it ranks where the model fails."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT
    windows: tuple[Millis, ...] = (DAY_MS, 7 * DAY_MS)
    rows: tuple[int, ...] = ()
    false_alarms: Fraction = 0.01
    segments: tuple[str, ...] = ()
    value: str | Mapping[str, float] = ""


FEWEST_ROWS = 20
"""A window of fewer answers has no power at any false-alarm rate."""
VALUED = {
    Task.BINARY: ("true_positive", "false_positive", "true_negative", "false_negative"),
    Task.MULTICLASS: ("right", "wrong"),
    Task.REGRESSION: ("unit_of_error",),
}
"""What can be worth something: an answer by how it turned out, or each unit that it was off."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A cron expression, read in UTC; or a duration: how old the champion's training may become."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT
    schedule: str


@dataclass(frozen=True, slots=True)
class NewLabels:
    """So many labels that no training has learned from."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT
    labels: int

    def __post_init__(self) -> None:
        if self.labels < 1:
            raise ValueError("a training for new labels needs one at least")


@dataclass(frozen=True, slots=True)
class Background:
    """A challenger is kept training in the background for this share of one core's time, over the last week."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT
    background: Fraction


@dataclass(frozen=True, slots=True)
class Budget:
    """At most `trainings` in any stretch of `per`."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT
    trainings: int = 40
    per: Millis = 365 * DAY_MS


@dataclass(frozen=True, slots=True)
class OtherWindow:
    """A training that looks back another time than `train.window`; `all`: 0."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT
    window: Window


@dataclass(frozen=True, slots=True)
class RetrainPolicy:
    """What may start a training: `performance`, a `Schedule`, `NewLabels`, `Background`; a manual one always may.
    `only_if_it_helps`: a probe must show that a model fitted now is better. `remedies`: what is tried, in this order: a
    training (`refit`, with another window, or after a `sweep` of parameters), an earlier version (`previous`), a
    `person`. `price`: of an hour of training, in any currency."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT
    when: tuple[str | Schedule | NewLabels | Background, ...] = ("performance",)
    only_if_it_helps: bool = False
    remedies: tuple[Literal["refit", "sweep", "previous", "person"] | OtherWindow, ...] = ("refit", "person")
    cooldown: Millis = 7 * DAY_MS
    budget: Budget = field(default_factory=Budget)
    price: float = 0.0


@dataclass(frozen=True, slots=True)
class LogPolicy:
    """The logs of predictions and labels. `sync`: how much of them a power cut may take; 0: nothing. `retain` (0: for
    ever) and `max_size`: how long and how much; what training and watching still read is kept in any case. `strict`:
    without room for the record there is no answer. Inputs (or the key) named in `drop` are not logged, those in
    `hash` as a keyed hash."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT
    sync: Millis = 1_000
    retain: Window = 365 * DAY_MS
    max_size: Size = 50_000_000_000
    strict: bool = True
    drop: tuple[str, ...] = ()
    hash: tuple[str, ...] = ()

    @property
    def hidden(self) -> frozenset[str]:
        """What the log does not hold as it was served."""
        return frozenset((*self.drop, *self.hash))


@dataclass(frozen=True, slots=True)
class ServingPolicy:
    """The data plane. `workers`: fewest and most processes (0: as many as there are cores), `timeout`: how long a
    candidate may take before the champion answers, `memory`: for the models of one process and a candidate's
    calls: one that takes more is unloaded, other models beyond it are loaded when they are asked for; `max_body`: of a
    request."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT
    workers: Workers = (1, 0)
    timeout: Millis = 2_000
    memory: Size = 2_000_000_000
    max_body: Size = 1_000_000


@dataclass(frozen=True, slots=True)
class SignalPolicy:
    """A signal of callers, as a metric: `bounds`, within which its values lie or are cut to; a row that has none when
    its window is over counts as `missing`, or not at all (None). `margin`: the difference that does not matter; of a
    guardrail, the loss that is put up with."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT
    signal: str
    better: Literal["higher", "lower"] = "higher"
    bounds: tuple[float, float] | None = None
    missing: float | None = None
    margin: float = 0.0


@dataclass(frozen=True, slots=True)
class ExperimentPolicy:
    """What an experiment is decided by. `window`: how long an entity takes part, and how long a row waits for its
    signal; `share`: of each variant (0: as large as the champion's); `bandit`: shares follow the results, and this is
    the least that an arm keeps (0: they stay)."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT
    metric: SignalPolicy
    guardrails: tuple[SignalPolicy, ...] = ()
    window: Millis = DAY_MS
    share: BasisPoints = 0
    bandit: BasisPoints = 0


@dataclass(frozen=True, slots=True)
class RehearsalPolicy:
    """`warmup`: the first stretch of history, trained on before the rehearsal starts."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT
    warmup: Millis = 90 * DAY_MS


@dataclass(frozen=True, slots=True)
class ChannelPolicy:
    """Whom alerts are told: an address as apprise writes them, often a secret. Only those of at least this severity,
    and only those that nobody has acknowledged `after` so long."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT
    to: str = field(repr=False)
    after: Millis = 0
    least: Literal["info", "warning", "critical"] = "warning"


@dataclass(frozen=True, slots=True)
class Maintenance:
    """Nobody is told of alerts for so long after each tick of a cron expression, read in UTC."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT
    starts: str
    lasts: Millis


@dataclass(frozen=True, slots=True)
class Policy:
    """What is learned, what must hold, how it is released, what is watched, what repairs it. `database`: where the
    control plane keeps its records, as a URL; "": SQLite in the state folder."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT
    name: ModelName
    task: Task
    data: DataPolicy
    train: TrainPolicy
    checks: str | None = None
    database: str = ""
    gates: tuple[GatePolicy, ...] = ()
    release: ReleasePolicy = field(default_factory=ReleasePolicy)
    monitor: MonitorPolicy = field(default_factory=MonitorPolicy)
    retrain: RetrainPolicy = field(default_factory=RetrainPolicy)
    serving: ServingPolicy = field(default_factory=ServingPolicy)
    log: LogPolicy = field(default_factory=LogPolicy)
    rehearsal: RehearsalPolicy = field(default_factory=RehearsalPolicy)
    experiments: Mapping[str, ExperimentPolicy] = field(default_factory=dict)
    feedback: FeedbackPolicy = field(default_factory=FeedbackPolicy)
    alerts: tuple[str | ChannelPolicy, ...] = field(default=(), repr=False)
    maintenance: tuple[Maintenance, ...] = ()

    def __post_init__(self) -> None:
        horizon = self.data.label_horizon
        longer = [(i, rule) for i, rule in enumerate(self.feedback.rules) if rule.length_ms > horizon]
        if longer:
            i, rule = longer[0]
            long, known = show_duration(rule.length_ms), show_duration(horizon)
            raise ValueError(f"feedback.rules[{i}] ({rule} {long}) is longer than data.label_horizon ({known})")
        said = [i for i, rule in enumerate(self.feedback.rules) if rule.answer]
        if said and self.task is not Task.BINARY:
            raise ValueError(
                f"feedback.rules[{said[0]}]: that an answer was wrong tells the label where there are two classes "
                "alone, and who counts only the right ones flatters the model"
            )
        blind = self.feedback.selective and not self.feedback.exploration
        if blind and self.release.on_unknown == "best_estimate":
            raise ValueError(
                "release.on_unknown can't be best_estimate where feedback.selective is true and there is no "
                "feedback.exploration: nobody can estimate, so a person decides"
            )
        value = self.monitor.value
        unknown = [] if isinstance(value, str) else [name for name in value if name not in VALUED[self.task]]
        if unknown:
            known = ", ".join(VALUED[self.task])
            raise ValueError(f"monitor.value knows no {unknown[0]!r} of the task {self.task.value}; known: {known}")
        if not self.monitor.windows or min(self.monitor.windows) < SECOND_MS:
            raise ValueError("monitor.windows needs a window, and none shorter than a second; 1d and 7d by default")
        if self.retrain.budget.trainings < 0 or self.retrain.price < 0:
            raise ValueError("retrain.budget.trainings and retrain.price can't be below 0")
        few = [count for count in self.monitor.rows if count < FEWEST_ROWS]
        if few:
            raise ValueError(f"monitor.rows: {few[0]} answers tell nothing; {FEWEST_ROWS} are the least")
        hidden = [name for name in self.monitor.segments if name in self.log.hidden]
        if hidden:
            raise ValueError(f"monitor.segments needs {hidden[0]} in the log, but log.drop or log.hash hides it")

    @property
    def channels(self) -> tuple[ChannelPolicy, ...]:
        """Where alerts go."""
        return tuple(ChannelPolicy(one) if isinstance(one, str) else one for one in self.alerts)

    def check_addresses(self) -> None:
        """Variables in channels and hooks are left as they stand where they are not set, for only what tells them needs
        them. Errors: `ConfigError`."""
        used = {f"alerts.{i}": one.to for i, one in enumerate(self.channels)}
        hooks = self.release.hooks
        used |= {"release.hooks.before_step": hooks.before_step, "release.hooks.after_outcome": hooks.after_outcome}
        for setting, text in used.items():
            if missing := VARIABLE.search(text):
                raise unset(missing[1], f"homeostat.yaml  {setting}")

    @property
    def look_back_ms(self) -> int | None:
        """How old rows of the log may be that a training, a release or a monitor still reads; None: any age."""
        if not self.train.window:
            return None
        longest = max(self.train.window, self.release.max_hold, *self.monitor.windows)
        return longest + self.data.label_horizon + DAY_MS
