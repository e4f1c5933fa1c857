"""One turn of the pipeline: snapshot, checks, split, training, evaluation, gates, bundle, registration.

Each step is cached by what it depends on, and its result is written whole or not at all: a run that was killed is
simply run again, and only what was not finished is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat import codec
from homeostat.domain.bundle import Backtest, Bundle, Version
from homeostat.domain.dataset import EVENT_MS, DatasetVersion
from homeostat.domain.errors import DataError, PipelineError
from homeostat.domain.gate import GateResult, Verdict
from homeostat.domain.policy import Policy, TrainPolicy
from homeostat.domain.run import RunRecord, RunResult, worst
from homeostat.domain.schema import Schema
from homeostat.domain.units import DAY_MS
from homeostat.engines import evaluation, guarded, labels, metrics
from homeostat.engines.answer import aligned
from homeostat.engines.broken import HABITS, habits
from homeostat.engines.change import baseline_of
from homeostat.engines.crossfit import FOLDS, by_heart, folds
from homeostat.engines.drift.profile import reference
from homeostat.engines.evaluation import Evaluated, Evaluation
from homeostat.engines.importance import importance
from homeostat.engines.plan import digest, step_key
from homeostat.engines.report import RunExtra, run_report
from homeostat.engines.split import Split, split
from homeostat.engines.transform import matrix
from homeostat.ports import Clock, Code, Converter, Progress, Router, Runtime, StepCache, Tracker
from homeostat.services import holdout, sweep
from homeostat.services.bundles import Bundles
from homeostat.services.data import Data
from homeostat.services.steps import Steps
from homeostat.services.training import Fitted, Rows, Training, native

Array = NDArray[np.float64]
THRESHOLD = 0.5
SAMPLE = 8
TOLERANCE = 1e-4
"""How far the exported model may be from the native one, relative to the larger of 1 and the value."""
MOSTLY = 0.5
_STEPS = 9


def _anew(_step: str, _key: str, compute: Callable[[], Any]) -> Any:
    return compute()


def _quiet(_done: int, _total: int, _doing: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a run learns from. `key` names rows, split and schema."""

    dataset: DatasetVersion
    parts: Split
    schema: Schema
    key: str
    swept: sweep.Swept


@dataclass(frozen=True, slots=True)
class Trained:
    """A fitted model and its ONNX form."""

    fitted: Fitted
    onnx: bytes


@dataclass(frozen=True, slots=True)
class Judged:
    """What is known of a model before any release; `output` (n, c) on its holdout."""

    output: Array
    evaluated: Evaluated
    gates: tuple[GateResult, ...]
    backtest: Backtest | None


class Runs:
    """`environment` is the text that a bundle keeps."""

    def __init__(
        self,
        policy: Policy,
        data: Data,
        training: Training,
        code: Code,
        cache: StepCache,
        converter: Converter,
        runtime: Runtime,
        bundles: Bundles,
        tracker: Tracker,
        router: Router,
        clock: Clock,
        environment: str,
    ) -> None:
        self.policy, self.data, self.training, self.code, self.cache = policy, data, training, code, cache
        self.converter, self.runtime, self.bundles, self.tracker = converter, runtime, bundles, tracker
        self.router, self.clock, self.environment = router, clock, environment

    def run(
        self, progress: Progress = _quiet, window_ms: int | None = None, swept: bool = False, since_ms: int = 0
    ) -> RunResult:
        """`window_ms`: look back another time than the policy's; `swept`: with parameters that are looked for anew,
        else with the champion's; `since_ms`: what was before is forgotten. Errors: `CheckFailed` and `DataError` from
        the data, `PipelineError` from the project's code, `ConfigError`; nothing is registered then."""
        steps = Steps(self.cache, self.clock, progress, _STEPS)
        train, own = self.policy.train, self.training.metrics()
        prepared = self._prepare(
            train if window_ms is None else replace(train, window=window_ms), steps, swept, since_ms
        )
        tested = self._train(prepared, prepared.parts.train, "train", steps)
        output = self._output(tested.onnx, prepared.schema, prepared.parts.holdout)
        evaluated = steps(
            "evaluate",
            self._key("evaluate", tested.fitted.key, prepared.key, repr(self.policy.gates), own),
            partial(evaluation.evaluate, self.policy, prepared.schema, prepared.parts, output),
        )
        judged = self._judged(prepared, output, evaluated)
        watched = self.policy.monitor.windows, *([self.policy.monitor.rows] if self.policy.monitor.rows else [])
        rules = repr((self.policy.gates, *watched, sorted(self.policy.log.hidden), own))
        identity = self._key("run", tested.fitted.key, prepared.key, rules)[:12]
        if worst(one.verdict for one in judged.gates) in (Verdict.HARM, Verdict.INVALID):
            done = (prepared.dataset, steps.done, evaluated.measurements, judged.gates)
            return RunResult(identity, *done, None, fitted=len(prepared.parts.train))
        final = self._train(prepared, prepared.parts.window, "refit", steps) if self.policy.train.refit else tested
        crossed = self._by_heart(prepared, final, judged)
        bundle = steps(
            "bundle",
            self._key("bundle", identity, final.fitted.key),
            partial(self._bundle, identity, prepared, tested, final, judged, crossed, steps),
        )
        version = self._registered(identity, bundle, final.onnx)
        done = (prepared.dataset, steps.done, evaluated.measurements, judged.gates)
        times = self.policy.train.refit + (FOLDS - 1) * crossed
        fitted = len(prepared.parts.train) + times * len(prepared.parts.window)
        return RunResult(identity, *done, version, fitted=fitted)

    def _prepare(self, train: TrainPolicy, steps: Steps, swept: bool, since_ms: int) -> Prepared:
        dataset = self.data.snapshot()
        frame = self.data.read(dataset)
        self.training.check(Rows(frame, dataset.digest), steps)
        parts, schema = split(train, frame, since_ms), self.training.schema(frame)
        guarded.check(schema, self.policy.monitor.segments)
        key = digest([dataset.digest, repr(train), repr(schema), str(since_ms)])
        found = self._swept(Rows(parts.train, f"train/{key}"), schema, steps) if swept else self._kept()
        return Prepared(dataset, parts, schema, key, found)

    def _swept(self, rows: Rows, schema: Schema, steps: Steps) -> sweep.Swept:
        """On what the evaluated model learns from alone: the holdout judges what was found."""
        return sweep.sweep(self.training, rows, schema, steps)

    def _kept(self) -> sweep.Swept:
        route = self.router.read().routes.get(self.policy.name)
        champion = self.bundles.load(route.champion.bundle) if route else None
        return sweep.kept(self.bundles, champion, self.training)

    def _train(self, prepared: Prepared, frame: pl.DataFrame, name: str, steps: Steps) -> Trained:
        note = "" if name == "train" else f" ({name})"
        rows, values = Rows(frame, f"{name}/{prepared.key}"), prepared.swept.values
        fitted = self.training.fit(rows, prepared.schema, steps, note, values)
        key = self._key("convert", fitted.key)
        convert = partial(self._converted, fitted, prepared.schema, prepared.parts.holdout)
        return Trained(fitted, steps(f"convert{note}", key, convert))

    def _converted(self, fitted: Fitted, schema: Schema, holdout: pl.DataFrame) -> bytes:
        """The model as ONNX. Errors: `PipelineError` unless it answers as the native one does."""
        onnx = self.converter(fitted.estimator, len(schema.fields))
        x = matrix(schema, holdout.select(schema.names).to_dict())
        expected = native(fitted.estimator, schema, x)
        apart = np.abs(self.runtime.load(onnx)(x) - expected) / np.maximum(1, np.abs(expected))
        if not np.all(apart <= TOLERANCE):
            row = int(np.argmax(apart.max(axis=1)))
            raise PipelineError(
                f"the exported model differs from the native one by {apart.max():.3g}, on row {row + 1} of the holdout",
                way_out=f"A difference above {TOLERANCE:g} is refused: use an estimator that ONNX can hold.",
            )
        return onnx

    def _output(self, onnx: bytes, schema: Schema, frame: pl.DataFrame) -> Array:
        return self.runtime.load(onnx)(matrix(schema, frame.select(schema.names).to_dict()))

    def _judged(self, prepared: Prepared, output: Array, evaluated: Evaluated) -> Judged:
        """The gates on the holdout, and the backtest against the champion."""
        holdout, schema = prepared.parts.holdout, prepared.schema
        champion = self._champion(schema, holdout)
        y = labels.truth(schema, holdout[schema.target].to_list())
        gates = evaluation.gates(self.policy, evaluated, y, output, champion)
        return Judged(output, evaluated, gates, evaluation.backtest(schema, evaluated, y, champion))

    def _champion(self, schema: Schema, holdout: pl.DataFrame) -> evaluation.Champion | None:
        route = self.router.read().routes.get(self.policy.name)
        if route is None:
            return None
        manifest = self.bundles.load(route.champion.bundle)
        times = holdout[EVENT_MS].to_numpy()
        fresh, file = times > manifest.trained_until_ms, "model.onnx"
        if fresh.mean() < MOSTLY:
            fresh, file = times > manifest.evaluated_until_ms, "evaluated.onnx"
        known = evaluation.comparable(manifest.schema, schema)
        rows = holdout.filter(pl.Series(fresh))
        output = self._output(self.bundles.file(manifest, file), manifest.schema, rows) if known else None
        output = output if output is None else aligned(output, manifest.schema.classes, schema.classes)
        return evaluation.Champion(route.champion.version, route.champion.bundle, fresh, output, file != "model.onnx")

    def _by_heart(self, prepared: Prepared, final: Trained, judged: Judged) -> bool:
        """Whether what it answers to the rows of its window says little of what it will answer to new ones."""
        held, refit = len(prepared.parts.holdout), self.policy.train.refit
        learned = prepared.parts.window if refit else prepared.parts.train
        rows = learned.tail(held)
        known = self._losses(prepared, judged, rows, self._output(final.onnx, prepared.schema, rows))
        return by_heart(known, self._losses(prepared, judged, prepared.parts.holdout, judged.output))

    def _losses(self, prepared: Prepared, judged: Judged, rows: pl.DataFrame, output: Array) -> Array:
        schema, scale = prepared.schema, judged.evaluated.loss_scale
        return metrics.losses(schema.task, labels.truth(schema, rows[schema.target].to_list()), output, scale)

    def _answers(self, prepared: Prepared, final: Trained, crossed: bool, steps: Steps) -> Array:
        """(n, c) what the model answers the rows of the window, as it would answer rows that are new to it."""
        own = self._output(final.onnx, prepared.schema, prepared.parts.window)
        if not crossed:
            return own
        key = self._key("answers", final.fitted.key, prepared.key)
        return steps("answers", key, partial(self._crossfitted, prepared, own))

    def _crossfitted(self, prepared: Prepared, own: Array) -> Array:
        """(n, c) each row is answered by a model that has not learned from it; as they are (`own`) where a class is too
        rare for that."""
        schema, window, found, fold = prepared.schema, prepared.parts.window, own.copy(), folds(len(own))
        for number in range(FOLDS):
            here = fold == number
            rows = Rows(window.filter(pl.Series(~here)), f"fold {number}/{prepared.key}")
            try:
                fitted = self.training.fit(rows, schema, _anew, values=prepared.swept.values)
            except DataError:
                return own
            x = matrix(schema, window.filter(pl.Series(here)).select(schema.names).to_dict())
            found[here] = native(fitted.estimator, schema, x)
        return found

    def _bundle(
        self,
        identity: str,
        prepared: Prepared,
        tested: Trained,
        final: Trained,
        judged: Judged,
        crossed: bool,
        steps: Steps,
    ) -> str:
        """Everything that decides an answer, and where it comes from. → the bundle's id."""
        schema, window = prepared.schema, prepared.parts.window
        learned = window if self.policy.train.refit else prepared.parts.train
        now, code, evaluated, gates = self.clock.now_ms(), self.code.state(), judged.evaluated, judged.gates
        record = RunRecord(identity, now, prepared.dataset, code, final.fitted.params, evaluated.measurements, gates)
        result = RunResult(identity, prepared.dataset, steps.done, evaluated.measurements, gates, None)
        watched = self.policy.monitor
        output = self._answers(prepared, final, crossed, steps)
        profile = reference(schema, window, output, watched.windows, watched.rows)
        manifest = Bundle(
            model=self.policy.name,
            schema=schema,
            threshold=THRESHOLD,
            loss_scale=evaluated.loss_scale,
            files={},
            run=identity,
            dataset_version=prepared.dataset.version,
            trained_until_ms=int(learned[EVENT_MS][-1]),
            evaluated_until_ms=int(prepared.parts.train[EVENT_MS][-1]),
            sample=self._sample(final.onnx, schema, prepared.parts.holdout),
        )
        files = {
            "model.onnx": final.onnx,
            "evaluated.onnx": tested.onnx,
            "profile": profile.to_bytes(),
            HABITS: codec.encode(habits(schema, window)),
            "evaluation.json": codec.encode(self._evaluation(prepared, tested, judged)),
            holdout.FILE: self._held(prepared, judged),
            "run.json": codec.encode_exactly(record),
            "environment.txt": self.environment.encode(),
            "report.html": run_report(result, RunExtra(self.policy.name, now, code)).encode(),
        }
        if prepared.swept.values:
            files[sweep.FILE] = codec.encode(prepared.swept)
        return self.bundles.save(manifest, files)

    def _evaluation(self, prepared: Prepared, tested: Trained, judged: Judged) -> Evaluation:
        schema, rows, scale = prepared.schema, prepared.parts.holdout, judged.evaluated.loss_scale
        days = rows[EVENT_MS].to_numpy() // DAY_MS
        x, y = matrix(schema, rows.select(schema.names).to_dict()), labels.truth(schema, rows[schema.target].to_list())
        needed = importance(schema, x, y, self.runtime.load(tested.onnx), scale)
        return Evaluation(baseline_of(judged.evaluated.losses, days), judged.backtest, needed)

    def _held(self, prepared: Prepared, judged: Judged) -> bytes:
        schema, rows = prepared.schema, prepared.parts.holdout
        shown = holdout.shown(rows, schema.names, self.policy.log.hidden)
        return holdout.pack(shown, labels.truth(schema, rows[schema.target].to_list()), judged.output)

    def _sample(
        self, onnx: bytes, schema: Schema, frame: pl.DataFrame
    ) -> tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]:
        """Rows without a gap, and the scores they must give wherever the bundle is loaded."""
        x = matrix(schema, frame.select(schema.names).to_dict())
        x = x[np.isfinite(x).all(axis=1)][:SAMPLE]
        output = self.runtime.load(onnx)(x) if len(x) else np.empty((0, 0))
        return tuple((tuple(row), tuple(scores)) for row, scores in zip(x.tolist(), output.tolist(), strict=True))

    def _registered(self, identity: str, bundle: str, onnx: bytes) -> Version:
        """The run and its version in the tracker, under the alias `challenger`."""
        manifest = self.bundles.load(bundle)
        record = self.bundles.record(manifest)
        files = {name: self.bundles.file(manifest, name) for name in ("report.html", "run.json", "environment.txt")}
        self.tracker.log_run(identity, self.policy.name, record.params, record.measurements, files)
        version = self.tracker.register(self.policy.name, identity, bundle, onnx)
        self.tracker.alias(version, "challenger")
        return version

    def _key(self, step: str, *inputs: str) -> str:
        return step_key(step, {str(i): key for i, key in enumerate(inputs)}, self.training.environment)
