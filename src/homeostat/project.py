"""One project folder, and the verbs of the command line on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from homeostat.config import read_policy
from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.policy import Policy
from homeostat.domain.rehearsal import RehearsalResult
from homeostat.domain.run import RunResult
from homeostat.domain.trace import Trace
from homeostat.engines.report import RunExtra, rehearsal_report, run_report
from homeostat.ports import Progress
from homeostat.stores.files import write_atomic
from homeostat.wiring import STATE, System, project_system, rehearsal


def quiet(_done: int, _total: int, _doing: str) -> None:
    """Progress that nobody looks at."""


class Project:
    """An open project. Make one with `homeostat.load`."""

    def __init__(self, root: Path, policy: Policy) -> None:
        self.root, self.policy = root, policy

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
        return self.system.fit(frame)

    def run(self, progress: Progress = quiet) -> RunResult:
        """One turn: version the data, check, train, evaluate, gate, bundle, register. Errors: `CheckFailed`,
        `DataError`, `PipelineError`; nothing is registered then."""
        result = self.system.runs.run(progress)
        extra = RunExtra(self.policy.name, self.system.clock.now_ms(), self.system.code.state())
        return replace(result, report=self._report(f"run-{result.id}", run_report(result, extra)))

    def rehearse(
        self,
        warmup_ms: int | None = None,
        from_ms: int | None = None,
        to_ms: int | None = None,
        seed: int | None = None,
        progress: Progress = quiet,
    ) -> RehearsalResult:
        """The whole loop on the project's history. Errors: `DataError` where there is nothing to rehearse on."""
        seeded = self.policy if seed is None else replace(self.policy, train=replace(self.policy.train, seed=seed))
        history = self.data()
        warmup = self.policy.rehearsal.warmup if warmup_ms is None else warmup_ms
        start = int(history[EVENT_MS][0]) + warmup if from_ms is None else from_ms
        end = int(history[EVENT_MS][-1]) + 1 if to_ms is None else to_ms
        result = rehearsal(self.root, seeded, history, start, end).run(progress)
        return replace(result, report=self._report(f"rehearsal-seed{result.seed}", rehearsal_report(result)))

    def trace(self, prediction: str) -> Trace:
        """Everything behind one prediction. Errors: `NotFound`."""
        return self.system.traces.trace(prediction)

    def _report(self, name: str, html: str) -> str:
        """→ where it was written."""
        path = self.root / STATE / "reports" / f"{name}.html"
        write_atomic(path, html.encode())
        return str(path)
