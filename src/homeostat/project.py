"""One project folder, and the verbs of the command line on it."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from homeostat.adapters.runtime import OnnxRuntime
from homeostat.batch import PART_ROWS, BatchResult, OnError, Terms
from homeostat.config import read_policy
from homeostat.domain.backtest import Backtested, Replayed
from homeostat.domain.bundle import Version
from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.errors import Corrupt, DataError, NotFound, UsageError
from homeostat.domain.event import BACKTEST, LOOK, Event
from homeostat.domain.experiment import Experiment, Plan
from homeostat.domain.monitor import Alert
from homeostat.domain.policy import Policy
from homeostat.domain.rehearsal import RehearsalResult
from homeostat.domain.report import Delays, Needs
from homeostat.domain.rollout import Lane, Rollout, StepKind
from homeostat.domain.run import RunResult
from homeostat.domain.trace import Trace
from homeostat.domain.trigger import Spent, Trigger
from homeostat.domain.units import DAY_MS
from homeostat.engines.inject import read as read_injections
from homeostat.engines.lanes import bound
from homeostat.engines.report import (
    ReleaseView,
    RunExtra,
    Snapshot,
    backtest_report,
    because,
    comparison_report,
    rehearsal_report,
    release_report,
    run_report,
)
from homeostat.engines.steps import margin
from homeostat.export.monitoring.files import Written, grafana, prometheus
from homeostat.ports import Progress
from homeostat.services.backtest import WINDOW_MS
from homeostat.services.experiments import Experiments, Found
from homeostat.services.performance import Performance
from homeostat.services.release_log import Served
from homeostat.services.release_seen import backtested, replays
from homeostat.services.rollouts import Explanation, Releases, Standing
from homeostat.serving.messages import Request
from homeostat.verbs.alerts import AlertVerbs
from homeostat.verbs.feedback import FeedbackVerbs, Wrong, caller
from homeostat.verbs.monitor import MonitorVerbs
from homeostat.wiring import STATE
from homeostat.wiring.apart import side_by_side
from homeostat.wiring.batch import champion, nothing_serves, predict_file
from homeostat.wiring.system import System, project_system, rehearsal, write_report

if TYPE_CHECKING:
    from homeostat.export.edge.folder import Exported

RECENT = 8
LATELY_MS = 30 * DAY_MS


def _quiet(_done: int, _total: int, _doing: str) -> None:
    """Progress that nobody looks at."""


def _rehearsed(root: Path, policy: Policy, name: str, options: Mapping[str, Any], progress: Progress) -> Any:
    return Project(root, policy).rehearse(**options, name=name, progress=progress)


@dataclass(frozen=True, slots=True)
class Status:
    """The state of the loop on one screen. `recent`: the newest things that happened, oldest first; `delays`: how
    labels come, None before the first answer; `background`: what challengers of the background cost, None where the
    policy wants none."""

    model: str
    standing: Standing | None
    performance: Performance | None
    alerts: tuple[Alert, ...]
    recent: tuple[Event, ...]
    delays: Delays | None = None
    background: Spent | None = None

    def json(self) -> Mapping[str, Any]:
        standing, performance = self.standing, self.performance
        return {
            "model": self.model,
            "release": standing.rollout if standing else None,
            "next": standing.move.reason if standing else None,
            "performance": performance.change if performance else None,
            "alerts": self.alerts,
            "recent": self.recent,
            "labels": self.delays,
            "background": self.background,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several policies on the same history, by name. `report`: the page that shows them side by side."""

    policies: Mapping[str, RehearsalResult]
    report: str

    def json(self) -> Mapping[str, Any]:
        results = {name: result.json() for name, result in self.policies.items()}
        return {"policies": results, "report": self.report}


class Project:
    """An open project. Make one with `homeostat.load`."""

    def __init__(self, root: Path, policy: Policy) -> None:
        self.root, self.policy = root, policy
        self.release = ReleaseVerbs(self)
        self.export = ExportVerbs(self)
        self.token = TokenVerbs(self)
        self.experiment = ExperimentVerbs(self)
        self.feedback = FeedbackVerbs(policy.name, self.ask, lambda: self.system.feedback, lambda: self.system.classes)
        self.alerts = AlertVerbs(lambda: self.system, caller)
        self.monitor = MonitorVerbs(root, lambda: self.system)

    @classmethod
    def open(cls, root: str | Path, overlay: str | None = None) -> Project:
        """Errors: `ConfigError`."""
        folder = Path(root).resolve()
        return cls(folder, read_policy(folder, overlay))

    def __repr__(self) -> str:
        return f"Project({self.policy.name!r}, {self.policy.task.value}, {self.root})"

    @cached_property
    def system(self) -> System:
        """Everything the verbs below are made of."""
        return project_system(self.root, self.policy)

    def data(self) -> pl.DataFrame:
        """The project's own rows as the pipeline gets them, sorted by event time. Errors: `DataError`."""
        return self.system.source()

    def fit(self, frame: pl.DataFrame) -> Callable[[pl.DataFrame], Any]:
        """The project's training alone: labelled rows → a model: rows → output (n, c)."""
        return self.system.fit(frame)[1]

    def run(self, progress: Progress = _quiet) -> RunResult:
        """One turn: version the data, check, train, evaluate, gate, bundle, register. Errors: `CheckFailed`,
        `DataError`, `PipelineError`; nothing is registered then."""
        result = self.system.runs.run(progress)
        extra = RunExtra(self.policy.name, self.system.clock.now_ms(), self.system.code.state())
        return replace(result, report=write_report(self.root, f"run-{result.id}", run_report(result, extra)))

    def rehearse(
        self,
        warmup_ms: int | None = None,
        from_ms: int | None = None,
        to_ms: int | None = None,
        seed: int | None = None,
        progress: Progress = _quiet,
        *,
        inject: Sequence[str] = (),
        name: str = "",
    ) -> RehearsalResult:
        """The whole loop on the project's history, with scenarios laid over it (`inject`: "label-delay:14d", …).
        `name` tells its report from others. Errors: `DataError` where there is nothing to rehearse on; `UsageError`
        for an injection that is none."""
        seeded = self.policy if seed is None else replace(self.policy, train=replace(self.policy.train, seed=seed))
        history = self.data()
        warmup = self.policy.rehearsal.warmup if warmup_ms is None else warmup_ms
        start = int(history[EVENT_MS][0]) + warmup if from_ms is None else from_ms
        end = int(history[EVENT_MS][-1]) + 1 if to_ms is None else to_ms
        injections = read_injections(inject, history, self.policy.data.target, start, end)
        staged, _ = rehearsal(self.root, seeded, history, start, end, injections, seed or 0)
        result = staged.run(progress)
        html, suffix = rehearsal_report(result), f"-{name}" if name else ""
        return replace(result, report=write_report(self.root, f"rehearsal{suffix}-seed{result.seed}", html))

    def compare(self, policies: Sequence[str | Path], **options: Any) -> Comparison:
        """Rehearse each policy file, laid over homeostat.yaml, on the same history and scenarios; `options` are
        those of `rehearse`. Errors: as there; `UsageError` for policies that can't be compared."""
        laid = {Path(one).stem: Project(self.root, read_policy(self.root, Path(one))) for one in policies}
        metrics = {project.policy.train.metric for project in laid.values()}
        if len(laid) < len(policies) or len(metrics) > 1:
            what = f"the policies measure {', '.join(sorted(metrics))}" if len(metrics) > 1 else "two have one name"
            raise UsageError(what, where="--policy", way_out="Compare files of different names with one train.metric.")
        values = [project.policy.monitor.value for project in laid.values()]
        if any(value != values[0] for value in values):
            what, way_out = "the policies disagree on what an answer is worth", "Compare with one monitor.value."
            raise UsageError(what, where="--policy", way_out=way_out)
        progress = options.pop("progress", _quiet)
        calls = {name: (_rehearsed, self.root, project.policy, name, options) for name, project in laid.items()}
        results: dict[str, RehearsalResult] = side_by_side(calls, progress)
        return Comparison(results, write_report(self.root, "policies", comparison_report(results)))

    def retrain(self, reason: str = "") -> Trigger:
        """Ask the control loop for a training; its challenger is released like any other."""
        return self.system.triggers.ask(reason)

    def predict(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Answer rows as the data plane does: checked, logged, released alike. Columns `id` and `key` are taken up.
        → a row each: id, model_version, and score and/or label, or value. Errors: `NotFound` before the first
        release; `DataError` that names the first wrong row and field."""
        said = self.ask(f"/v1/models/{self.policy.name}/predict", {"records": frame.to_dicts()})
        return pl.DataFrame(said["predictions"], infer_schema_length=None)

    def predict_file(
        self,
        source: str | Path,
        out: str | Path,
        part_rows: int = PART_ROWS,
        progress: Progress = _quiet,
        *,
        log: bool = False,
        on_error: OnError = "fail",
        engine: str = "local",
    ) -> BatchResult:
        """Score files, a folder of them or a Delta table, here or in an object store, with the version that serves;
        into a folder, a Parquet file a part, or a Delta table, a commit a part. Started again, it makes only the parts
        that are not there. `on_error`: a row that breaks a rule ends the job ("fail"), or gets its reason ("mark").
        `engine`: where the work is done: local, ray or spark. Errors: `NotFound` before the first release; `DataError`
        that names file, row and field; `UsageError`."""
        stores = self.system.stores if log else None
        opened = (lambda: (stores.log, stores.labels)) if stores else None
        terms = Terms(part_rows, on_error)
        return predict_file(self.root, self.policy, source, out, terms, progress, engine=engine, logs=opened)

    def version(self, number: int | None = None) -> Version:
        """A registered version, the newest by default. Errors: `NotFound`."""
        versions = self.system.stores.tracker.versions(self.policy.name)
        if not versions:
            raise NotFound("no version is registered yet", way_out="Make one with `homeostat run`.")
        found = versions[-1] if number is None else next((one for one in versions if one.number == number), None)
        if found is None:
            known = ", ".join(str(one.number) for one in versions[-5:])
            raise NotFound(f"there is no version {number}", way_out=f"The newest are: {known}.")
        return found

    def served(self) -> Version:
        """The champion. Errors: `NotFound` before the first release."""
        arm = champion(self.system.stores.router, self.policy.name)
        return Version(self.policy.name, arm.version, arm.bundle, self.system.bundles.load(arm.bundle).run)

    def ask(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """One request to a data plane in this process."""
        engine = self.system.engine
        engine.refresh()
        answer = engine.answer([Request("POST", path, msgspec.json.encode(body))])[0]
        engine.shadow()
        said: Mapping[str, Any] = json.loads(answer.body)
        if answer.status in (404, 503):
            raise nothing_serves(self.policy.name)
        if answer.status != 200:
            error = said["error"]
            raise Wrong(error) if "record" in error else DataError(error["message"])
        return said

    def trace(self, prediction: str) -> Trace:
        """Everything behind one prediction. Errors: `NotFound`."""
        return self.system.traces.trace(prediction)

    def replay(self, prediction: str, release: str) -> Replayed:
        """The request of a prediction through the bundle of another release. Errors: `NotFound`; `DataError` when no
        model saw the request, or the log does not hold its inputs as they were served."""
        chosen = self.system.releases.explain(release).rollout
        return self.system.backtests.one(self.trace(prediction), chosen)

    def status(self) -> Status:
        """Where the loop stands."""
        system = self.system
        standing = system.releases.status()
        told = [event for event in system.stores.journal.read(self.policy.name) if event.kind != LOOK]
        recent = tuple(told[-RECENT:])
        quality, delays = system.performances.now(), system.analyses.late(LATELY_MS)
        spent = system.triggers.spent()
        return Status(self.policy.name, standing, quality, system.alerts.open(), recent, delays, spent)


SEEN = ("release.evidence", "release.verdict", LOOK)
"""Events that say what a pass saw."""


class ReleaseVerbs:
    """`project.release`: what is asked of releases. Orders are carried out by the control loop (`homeostat up`)."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def start(self, version: int | None = None, despite: str = "", who: str = "") -> Rollout:
        """Ask for the release of a version, the newest by default. `despite`: why a bundle that was refused before may
        be tried again. Errors: `NotFound`, `Refused`."""
        return self._releases.start(self._project.version(version), who or caller(), despite)

    def status(self) -> Standing | None:
        """The open release, else the one that serves."""
        return self._releases.status()

    def history(self) -> Sequence[Rollout]:
        """Oldest first."""
        return self._releases.history()

    def backtest(
        self, last_ms: int = WINDOW_MS, candidate: int | None = None, progress: Progress = _quiet
    ) -> Backtested:
        """The requests of the last `last_ms` through the version that serves and a candidate, the newest by default,
        with a report. Errors: `NotFound` before the first release; `Corrupt`."""
        project = self._project
        end_ms = project.system.clock.now_ms()
        served, chosen = project.served(), project.version(candidate)
        made = project.system.backtests.between(served, chosen, end_ms - last_ms, end_ms, progress)
        name = f"backtest-{served.number}-{chosen.number}"
        return replace(made, report=write_report(project.root, name, backtest_report(made)))

    def served(self, at_ms: int) -> Served:
        """What served at that time, and who had approved it."""
        return self._releases.served(at_ms)

    def order(self, what: str, release: str = "", reason: str = "", who: str = "") -> Event:
        """`approve`, `reject` or `rollback` a release, the current one by default; `who`: the user of this process by
        default. Errors: `NotFound`, `Refused`."""
        return self._releases.order(release or self._current(), what, reason, who or caller())

    def approve(self, release: str = "", reason: str = "") -> Event:
        """End the step that waits."""
        return self.order("approve", release, reason)

    def reject(self, release: str = "", reason: str = "") -> Event:
        """End the release without promotion."""
        return self.order("reject", release, reason)

    def rollback(self, release: str = "", reason: str = "") -> Event:
        """Give all traffic back to the version before."""
        return self.order("rollback", release, reason)

    def explain(self, release: str = "") -> tuple[ReleaseView, str]:
        """Every verdict over time with its evidence, why it moved or holds, and what would change it. → that, and the
        path of its HTML report. Errors: `NotFound`."""
        found = self._releases.explain(release or self._current())
        tolerated = margin(self._project.policy.release, found.rollout)
        shown = replace(view(found, tolerated), needs=self._needs(found.rollout))
        return shown, write_report(self._project.root, f"release-{found.rollout.id}", release_report(shown))

    def _needs(self, rollout: Rollout) -> Needs | None:
        """None: a bundle of long ago is gone, or damaged, which is no reason to explain nothing."""
        try:
            return self._project.system.analyses.needs(rollout.candidate, rollout.champion)
        except (NotFound, Corrupt):
            return None

    @property
    def _releases(self) -> Releases:
        return self._project.system.releases

    def _current(self) -> str:
        standing = self.status()
        if standing is None:
            raise NotFound("nothing is released yet", way_out="Start with `homeostat release start`.")
        return standing.rollout.id


class ExperimentVerbs:
    """`project.experiment`: versions side by side, judged by what callers measure. The control loop (`homeostat up`)
    carries orders out."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def plan(self, name: str, lift: float, variants: int = 1) -> Plan:
        """How long it would take to find the metric's mean changed by the share `lift`. Errors: `ConfigError`,
        `DataError`."""
        return self._experiments.plan(name, lift, variants)

    def start(self, name: str, versions: Sequence[int]) -> Experiment:
        """Begin the one that homeostat.yaml describes under this name. Errors: `ConfigError`, `NotFound`,
        `Refused`."""
        return self._experiments.start(name, versions, getpass.getuser())

    def status(self) -> Found | None:
        """The one under way, else the last."""
        return self._experiments.status()

    def stop(self, reason: str = "") -> Found:
        """End it, with its conclusion. Errors: `NotFound`."""
        return self._experiments.stop(reason, getpass.getuser())

    @property
    def _experiments(self) -> Experiments:
        return self._project.system.experiments


class TokenVerbs:
    """`project.token`: who may choose the variant that answers, by the header x-homeostat-variant."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def add(self, name: str) -> str:
        """→ the token, told this once. Errors: `Refused` when the name has one already."""
        return self._project.system.tokens.add(name)

    def remove(self, name: str) -> None:
        """It is refused within a second. Errors: `NotFound`."""
        self._project.system.tokens.remove(name)

    def list(self) -> Sequence[str]:
        """The names that have one."""
        return self._project.system.tokens.names()


class ExportVerbs:
    """`project.export`: what leaves the project."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def edge(self, folder: str | Path, version: int | None = None) -> Exported:
        """A folder that answers without a network, with the version that serves or another one. Errors: `NotFound`,
        `UsageError` when the folder holds something else, `PipelineError` when the model can't be exported."""
        from homeostat.export.edge.folder import export  # onnx and cryptography: nobody else needs them

        project, bundles = self._project, self._project.system.bundles
        chosen = project.served() if version is None else project.version(version)
        manifest = bundles.load(chosen.bundle)
        onnx = bundles.file(manifest, "model.onnx")
        key = project.root / STATE / "keys" / "edge.key"
        return export(chosen, manifest, onnx, OnnxRuntime().load(onnx), key, Path(folder))

    def prometheus(self, folder: str | Path, host: str = "127.0.0.1", port: int = 8_700, webhook: str = "") -> Written:
        """What Prometheus and Alertmanager need to watch a `homeostat up` at that address; alerts go to `webhook`.
        Errors: `UsageError` when a file of that name is somebody else's."""
        return prometheus(self._project.policy, Path(folder), host, port, webhook)

    def grafana(self, folder: str | Path) -> Written:
        """A dashboard over it. Errors: as `prometheus`."""
        return grafana(self._project.policy, Path(folder))


def view(found: Explanation, margin: float) -> ReleaseView:
    """An explanation as its report shows it."""
    told = [event for event in found.events if event.kind not in SEEN]
    most = bound(found.rollout.step.weight)
    shown = ReleaseView(
        rollout=found.rollout,
        snapshots=[_snapshot(event) for event in _live(found)],
        history=told,
        tolerated={"errors": most, "slow": most, "quality": margin},
        backtest=next((backtested(event) for event in told if event.kind == BACKTEST), None),
    )
    if found.standing is None:
        return shown
    now, move = found.standing.seen, found.standing.move
    here = Snapshot(now.now_ms, now.weight, now.requests, now.lanes, move.reason)
    seen = shown.snapshots if replays(found.rollout) else [*shown.snapshots, here]
    return replace(shown, snapshots=seen, holds=because(move, now), outlook=found.standing.outlook)


def _live(found: Explanation) -> Iterator[Event]:
    """Looks at live requests: up to the end of its backtest there were none."""
    kinds = [step.kind for step in found.rollout.steps]
    live = StepKind.BACKTEST not in kinds
    for event in found.events:
        live = live or (event.kind == "release.advanced" and event.body["index"] > kinds.index(StepKind.BACKTEST))
        if live and event.kind in SEEN:
            yield event


def _snapshot(event: Event) -> Snapshot:
    lanes = tuple(msgspec.convert(lane, Lane) for lane in event.body["lanes"])
    return Snapshot(event.at_ms, event.body["weight"], event.body["requests"], lanes, event.text)
