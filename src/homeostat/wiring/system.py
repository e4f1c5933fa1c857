"""What a whole system is made of, embedded in a folder or all in memory."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.adapters.clock import SimulatedClock, SystemClock
from homeostat.adapters.code import ProjectCode
from homeostat.adapters.convert import OnnxConverter
from homeostat.adapters.environment import environment, machine
from homeostat.adapters.hooks import ProjectHooks
from homeostat.adapters.notify import AppriseChannels, channel_name
from homeostat.adapters.pipeline import HamiltonPipeline
from homeostat.adapters.plane import HttpPlane, announced
from homeostat.adapters.runtime import KeptModels, OnnxRuntime
from homeostat.adapters.source import Source
from homeostat.control import Control
from homeostat.domain.bundle import Bundle
from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.estimate import Estimated
from homeostat.domain.policy import Policy
from homeostat.domain.rollout import Rollout
from homeostat.domain.scenario import Injection
from homeostat.domain.schema import Schema
from homeostat.engines import inject
from homeostat.engines.transform import matrix
from homeostat.ports import (
    Code,
    Hook,
    Meter,
    Pipeline,
    Plane,
    Progress,
    Runtime,
)
from homeostat.rehearsal import WEEK_MS, Baselines, Loop, Rehearsal
from homeostat.services.alerts import Alerts
from homeostat.services.analysis import Analyses
from homeostat.services.backtest import Backtests
from homeostat.services.believed import BelievedLabels, JudgedLabels
from homeostat.services.bundles import Bundles
from homeostat.services.champion import Champions
from homeostat.services.classes import NewClasses
from homeostat.services.data import Data
from homeostat.services.drifts import Drifts
from homeostat.services.estimates import Estimates
from homeostat.services.experiments import Experiments
from homeostat.services.feedback import Feedback
from homeostat.services.figures import Gauges
from homeostat.services.label_set import LabelSets
from homeostat.services.monitors import Monitors
from homeostat.services.moves import Moves
from homeostat.services.performance import Performances
from homeostat.services.probe import Probes
from homeostat.services.quarantine import Quarantine
from homeostat.services.rollouts import Releases
from homeostat.services.runs import THRESHOLD, Runs
from homeostat.services.skew import Skew
from homeostat.services.surroundings import Surroundings
from homeostat.services.suspicion import Suspicions
from homeostat.services.telling import Teller
from homeostat.services.tokens import Tokens
from homeostat.services.trace import Traces
from homeostat.services.training import Rows, Training, native
from homeostat.services.triggers import Triggers, speaks_since
from homeostat.services.windows import Windows
from homeostat.services.worth import worths
from homeostat.serving import messages
from homeostat.serving.tick import Engine
from homeostat.stores.files import write_atomic
from homeostat.wiring import STATE
from homeostat.wiring.apart import Apart, cores
from homeostat.wiring.stores import Stores, embedded, in_memory

LONG_MS = 60 * WEEK_MS
"""Of a rehearsal so long the baselines are made in a process of their own: its start costs what so many fits do."""


class System:
    """The services of one model over its stores, made when first asked for."""

    def __init__(
        self,
        policy: Policy,
        code: Code,
        source: Callable[[], pl.DataFrame],
        stores: Stores,
        clock: Meter,
        ids: Iterator[str],
        plane: Plane | None = None,
        hook: Hook | None = None,
    ) -> None:
        """`ids` are for the predictions made in this process; `plane` None: the data plane is in it too; `hook` None:
        none is run."""
        self.policy, self.code, self.source, self.stores, self.clock = policy, code, source, stores, clock
        self.ids, self.environment, self.hook = ids, environment(), hook
        self.plane: Plane = plane or self.engine
        Training(policy, code, self.pipeline, "").declared()  # metrics of the project's own are known from here on

    @cached_property
    def pipeline(self) -> Pipeline:
        return HamiltonPipeline()

    @cached_property
    def runtime(self) -> Runtime:
        """Of all but the data plane, which keeps what it serves itself."""
        return KeptModels(OnnxRuntime())

    @cached_property
    def feedback(self) -> Feedback:
        s = self.stores
        return Feedback(self.policy, s.log, s.labels, s.journal, self.clock, self._schema)

    def _schema(self) -> Schema | None:
        bundle = self._serving()
        return bundle.schema if bundle else None

    def _serving(self) -> Bundle | None:
        champion = self.champions.now()
        return champion.bundle if champion else None

    @cached_property
    def suspicions(self) -> Suspicions:
        s = self.stores
        return Suspicions(self.policy, s.log, s.labels, self.clock, self._serving, self.feedback, self.alerts)

    @cached_property
    def labels(self) -> BelievedLabels:
        """What all that learns and judges reads."""
        return BelievedLabels(self.stores.labels, self.policy.feedback, self.feedback.holds, self.classes.believed)

    @cached_property
    def judged(self) -> JudgedLabels:
        """What all that judges a model reads."""
        return JudgedLabels(self.labels, self.policy.feedback)

    @cached_property
    def classes(self) -> NewClasses:
        s = self.stores
        return NewClasses(self.policy, s.labels, s.journal, self.clock, self._schema, self.alerts)

    @cached_property
    def data(self) -> Data:
        s = self.stores
        return Data(self.policy, self.source, s.tables, s.log, self.labels, s.journal, self.clock)

    @cached_property
    def bundles(self) -> Bundles:
        return Bundles(self.stores.blobs)

    @cached_property
    def training(self) -> Training:
        return Training(self.policy, self.code, self.pipeline, self.environment)

    @cached_property
    def runs(self) -> Runs:
        s = self.stores
        return Runs(
            self.policy,
            self.data,
            self.training,
            self.code,
            s.cache,
            OnnxConverter(),
            self.runtime,
            self.bundles,
            s.tracker,
            s.router,
            self.clock,
            self.environment,
        )

    @cached_property
    def releases(self) -> Releases:
        s = self.stores
        return Releases(
            self.policy,
            s.rollouts,
            s.journal,
            s.router,
            self.plane,
            s.log,
            self.judged,
            s.tracker,
            s.blobs,
            self.clock,
            self.hook,
            self.backtests,
        )

    @cached_property
    def backtests(self) -> Backtests:
        s, horizon = self.stores, self.policy.data.label_horizon
        since = partial(speaks_since, s.journal, horizon)
        return Backtests(self.policy, s.log, self.judged, self.bundles, self.runtime, self.clock, since)

    @cached_property
    def champions(self) -> Champions:
        s = self.stores
        return Champions(self.policy, s.journal, s.router, s.rollouts, s.blobs, self.bundles.load)

    @cached_property
    def performances(self) -> Performances:
        s = self.stores
        return Performances(self.policy, s.log, self.judged, s.journal, s.rollouts, self.clock, self.champions)

    @cached_property
    def alerts(self) -> Alerts:
        return Alerts(self.policy, self.stores.journal, self.clock, self.stores.troubles)

    @cached_property
    def monitors(self) -> Monitors:
        s, windows = self.stores, Windows(self.policy, self.stores.log)
        skew = Skew(self.policy, s.log, s.blobs, self.runtime)
        drifts = Drifts(self.policy, s.log, s.counted, s.journal, s.blobs, skew)
        watched = (self.champions, drifts, self.performances, self.alerts, self.quarantine, self.estimates)
        return Monitors(self.policy, windows, self.judged, s.journal, self.clock, *watched, self.analyses.explain)

    @cached_property
    def quarantine(self) -> Quarantine:
        s = self.stores
        return Quarantine(self.policy, s.log, s.journal, s.blobs, self.clock, self.alerts)

    @cached_property
    def analyses(self) -> Analyses:
        s = self.stores
        return Analyses(
            self.policy,
            s.log,
            self.labels,
            s.journal,
            s.rollouts,
            self.bundles,
            self.data,
            self.clock,
            self.champions,
            self.moves,
            self.code,
        )

    @cached_property
    def moves(self) -> Moves:
        s = self.stores
        return Moves(self.policy, s.log, self.judged, s.journal, s.blobs, self.clock)

    @cached_property
    def label_sets(self) -> LabelSets:
        return LabelSets(self.analyses)

    @cached_property
    def estimates(self) -> Estimates:
        s = self.stores
        return Estimates(self.policy, s.blobs, s.journal, self.clock)

    @cached_property
    def gauges(self) -> Gauges:
        s = self.stores
        return Gauges(self.policy, s.journal, s.rollouts, s.router, self.labels, self.clock, s.log_figures)

    @cached_property
    def triggers(self) -> Triggers:
        s, probes = self.stores, self.probes
        asked = (self.performances.now, probes.refit, probes.remembered)
        return Triggers(self.policy, s.journal, s.rollouts, self.clock, *asked, self.alerts, self._dropped)

    def _dropped(self) -> Estimated | None:
        champion = self.champions.now()
        return self.estimates.dropped(champion) if champion else None

    @cached_property
    def probes(self) -> Probes:
        s = self.stores
        return Probes(
            self.policy,
            self.data,
            self.training,
            self.bundles,
            self.runtime,
            s.router,
            s.rollouts,
            s.cache,
            self.clock,
        )

    @cached_property
    def traces(self) -> Traces:
        s = self.stores
        return Traces(self.policy.name, s.log, self.labels, s.rollouts, self.bundles, s.tracker)

    @cached_property
    def experiments(self) -> Experiments:
        s = self.stores
        seen = s.log, self.labels, s.tracker, s.rollouts, self.clock
        return Experiments(self.policy, s.journal, s.router, self.plane, *seen)

    @cached_property
    def tokens(self) -> Tokens:
        return Tokens(self.stores.router)

    @cached_property
    def control(self) -> Control:
        """Errors: `ConfigError` for a channel or hook whose variable is not set."""
        self.policy.check_addresses()
        return Control(
            self.releases,
            self.monitors,
            self.triggers,
            self.runs,
            self.experiments,
            self.feedback,
            self.suspicions,
            self.classes,
            self.teller,
            self.surroundings,
            self.clock,
        )

    @cached_property
    def surroundings(self) -> Surroundings:
        s, here = self.stores, self.environment + machine()
        return Surroundings(self.policy, s.journal, s.rollouts, self.bundles, self.clock, here)

    @cached_property
    def teller(self) -> Teller:
        journal, channels = self.stores.journal, AppriseChannels()
        return Teller(self.policy, journal, self.clock, self.alerts, channels, channel_name)

    @cached_property
    def engine(self) -> Engine:
        """A data plane in this process."""
        s = self.stores
        told = self.policy.feedback
        return Engine(s.blobs, OnnxRuntime(), s.log, s.labels, self.clock, s.router, self.ids, told=told)

    def fit(self, frame: pl.DataFrame) -> tuple[Schema, Callable[[pl.DataFrame], NDArray[np.float64]]]:
        """The project's training function alone: labelled rows → their schema and a model: rows → output (n, c)."""
        schema = self.training.schema(frame)
        fitted = self.training.fit(Rows(frame, ""), schema, lambda _step, _key, make: make())

        def model(rows: pl.DataFrame) -> NDArray[np.float64]:
            return native(fitted.estimator, schema, matrix(schema, rows.select(schema.names).to_dict()))

        return schema, model


def project_system(root: Path, policy: Policy, worker: str = "local", leads: bool = False) -> System:
    """The system of the project in folder `root`, for one process; `worker` names where it writes its logs; with
    `leads` it is a control plane, which moves releases."""
    plane = HttpPlane(partial(announced, root / STATE / "workers"))
    source, ids = Source(root, policy.data, policy.task), messages.ids(secrets.token_hex(5))
    stores = embedded(root, worker, policy, leads)
    return System(policy, ProjectCode(root), source, stores, SystemClock(), ids, plane, ProjectHooks(root))


def write_report(root: Path, name: str, html: str) -> str:
    """→ the path of the HTML file."""
    path = root / STATE / "reports" / f"{name}.html"
    write_atomic(path, html.encode())
    return str(path)


def rehearsal(
    root: Path,
    policy: Policy,
    history: pl.DataFrame,
    start_ms: int,
    end_ms: int,
    injections: tuple[Injection, ...] = (),
    seed: int = 0,
) -> tuple[Rehearsal, System]:
    """A rehearsal in memory, with the code of the project in folder `root`, and the system that it runs. What live is
    a person's to decide is decided by the best estimate. `seed` is that of the injections' chance."""
    alone = tuple(step for step in policy.release.steps if step.strip() != "pause")
    release = replace(policy.release, steps=alone, on_unknown="best_estimate", on_harm="rollback")
    feedback = replace(policy.feedback, rules=(), selective=False, exploration=None)  # labels are told
    unattended = replace(policy, release=release, feedback=feedback, alerts=())
    known = inject.told(history, policy.data.target, policy.data.label_horizon)
    world = inject.apply(known, injections, policy.data.target, seed)
    before = history.filter(pl.col(EVENT_MS) < start_ms)
    clock, s = SimulatedClock(start_ms), in_memory()
    system = System(unattended, ProjectCode(root), lambda: before, s, clock, messages.ids("rehearsal"))
    values = partial(worths, policy.monitor.value, system.code, THRESHOLD)
    schema, schemas, release_of = partial(_schema, system), partial(_schemas, system), partial(_released, system)
    made = schema, schemas, system.fit, values, release_of
    loop = Loop(system.control, system.engine, clock, s.log, s.journal, *made)
    apart = partial(_baselines_apart, root, policy, history, start_ms, end_ms, injections, seed)
    beside = apart if cores() > 1 and end_ms - start_ms >= LONG_MS else None
    return Rehearsal(unattended, world, start_ms, end_ms, loop, injections, beside=beside), system


@contextmanager
def _baselines_apart(*staged: Any) -> Iterator[Callable[[Progress], Baselines]]:
    with Apart(_baselines, *staged) as other:
        yield other.result


def _baselines(*staged: Any) -> Baselines:
    """Of the rehearsal of these arguments, but the last, which is told of progress."""
    return rehearsal(*staged[:-1])[0].baselines(staged[-1])


def _released(system: System, rows: pl.DataFrame) -> Rollout | None:
    """The release of a version that learned from `rows` alone; None where its gates refuse it."""
    version = beside(system, lambda: rows).runs.run().version
    return system.releases.start(version, by="the scenario") if version else None


def beside(system: System, source: Callable[[], pl.DataFrame]) -> System:
    """Another system over the same releases and registry that learns from `source` alone."""
    memory = in_memory()
    own = replace(system.stores, tables=memory.tables, log=memory.log, labels=memory.labels, cache=memory.cache)
    return System(system.policy, system.code, source, own, system.clock, system.ids, system.plane)


def _schemas(system: System) -> dict[int, Schema]:
    """Of every version that was released."""
    made = {one.candidate.number: one.candidate.bundle for one in system.releases.history()}
    return {number: system.bundles.load(bundle).schema for number, bundle in made.items()}


def _schema(system: System) -> Schema:
    """Of the version that serves."""
    return system.bundles.load(system.stores.router.read().routes[system.policy.name].champion.bundle).schema
