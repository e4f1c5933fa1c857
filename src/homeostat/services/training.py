"""Training: rows → a fitted estimator, by the project's own functions, each step cached by what it depends on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.dataset import ENTITY, EVENT_MS
from homeostat.domain.errors import DataError, HomeostatError, PipelineError
from homeostat.domain.policy import Policy
from homeostat.domain.schema import Schema, Task
from homeostat.domain.trigger import SWEEP
from homeostat.engines import infer, labels, metrics
from homeostat.engines.checks import check
from homeostat.engines.plan import CodeIndex, digest, step_key
from homeostat.engines.transform import matrix
from homeostat.ports import Code, Pipeline

Array = NDArray[np.float64]
Make = Callable[[str, str, Callable[[], Any]], Any]
"""(step, key, how to make it) → its result: `Steps`, or one that makes it every time."""


PARAMS, SPACE = "params", "space"
"""Functions of a pipeline: its parameters, and what a sweep may try of each."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Labelled rows to learn from, and what names them in a cache key."""

    frame: pl.DataFrame
    key: str


@dataclass(frozen=True, slots=True)
class Fitted:
    """`key` names it: the same rows, code, parameters and environment give the same key."""

    estimator: Any
    params: Mapping[str, str]
    key: str


class Training:
    """The project's pipeline and its checks. `environment`: the text that names every installed version."""

    def __init__(self, policy: Policy, code: Code, pipeline: Pipeline, environment: str) -> None:
        self.policy, self.code, self.pipeline = policy, code, pipeline
        self.environment = digest([environment])
        self._indexed: tuple[Mapping[str, str], CodeIndex] | None = None

    def schema(self, frame: pl.DataFrame) -> Schema:
        """What the model takes in, from the rows and the project's checks."""
        names = [name for name in frame.columns if name not in (self.policy.data.target, EVENT_MS, ENTITY)]
        return infer.schema_of(frame, names, self.policy.task, self.policy.data.target, self._checks())

    def metrics(self) -> str:
        """Make the policy's metrics known that are functions of the project (module:name). → the digest of their code.
        Errors: `PipelineError`."""
        asked = {self.policy.train.metric, *(gate.metric for gate in self.policy.gates)}
        own = sorted(name for name in asked if ":" in name)
        for name in own:
            metrics.own(name, self._named(name, "train.metric, gates"))
        return digest(self._index().digest(*name.split(":", 1)) for name in own) if own else ""

    def _named(self, name: str, where: str) -> Any:
        """What the policy names module:name. Errors: `PipelineError`."""
        module, _, attribute = name.partition(":")
        found = getattr(self.code.module(module), attribute, None)
        if found is None:
            what = f"there is no {attribute!r} in {module}"
            raise PipelineError(what, where=f"homeostat.yaml: {where}", way_out="Write module:name.")
        return found

    def check(self, rows: Rows, make: Make) -> None:
        """Errors: `CheckFailed`."""
        if self.policy.checks is None:
            return
        module, _, name = self.policy.checks.partition(":")
        key = step_key(self._index().digest(module, name), {"rows": rows.key}, self.environment)
        make("checks", key, partial(self._passed, rows.frame))

    def declared(self) -> None:
        """What the policy names of the project's code is there. Errors: `PipelineError`."""
        self.metrics()
        value = self.policy.monitor.value
        if isinstance(value, str) and value:
            self._named(value, "monitor.value")
        if SWEEP in self.policy.retrain.remedies:
            self.space()

    def space(self) -> dict[str, list[Any]]:
        """Parameter → the values that a sweep may try. Errors: `PipelineError`."""
        where = self.policy.train.pipeline
        found = getattr(self.code.module(where), SPACE, None)
        space = found() if callable(found) else None
        if (
            not isinstance(space, Mapping)
            or not space
            or not all(isinstance(one, list) and one for one in space.values())
        ):
            raise PipelineError(
                f"a sweep needs what it may try, and {where} has no function {SPACE}() that says so",
                where=f"homeostat.yaml: retrain.remedies; {where}",
                way_out=f'Write def {SPACE}(): return {{"num_leaves": [7, 15, 31]}}, of parameters of params().',
            )
        return dict(space)

    def parameters(self) -> str:
        """The digest of the code that says which parameters there are."""
        index, module = self._index(), self.policy.train.pipeline
        return digest(index.digest(module, name) for name in (PARAMS, SPACE))

    def fit(
        self, rows: Rows, schema: Schema, make: Make, note: str = "", values: Mapping[str, Any] | None = None
    ) -> Fitted:
        """`note` tells the steps of two trainings of one run apart; `values` take the place of what `params()` says.
        Errors: `PipelineError`, `DataError`."""
        y = self._truth(schema, rows.frame)
        given = {
            "train": rows.frame,
            "x": matrix(schema, rows.frame.select(schema.names).to_dict()),
            "y": y,
            "schema": schema,
            "seed": self.policy.train.seed,
        }
        names, half_life = digest([rows.key, repr(schema)]), self.policy.train.half_life
        keys = {name: f"{names}/{name}" for name in given} | {"seed": str(self.policy.train.seed)}
        if half_life:
            given["weight"] = weights(rows.frame[EVENT_MS].to_numpy(), half_life)
            keys["weight"] = f"{names}/weight/{half_life}"
        index, module = self._index(), self.policy.train.pipeline
        taken: set[str] = set()

        def through(step: str, function: str, inputs: Mapping[str, Any], compute: Callable[[], Any]) -> Any:
            code = digest([step, index.digest(module, function)])  # a decorated function may make several steps
            keys[step] = step_key(code, {name: keys[name] for name in inputs}, self.environment)
            taken.update(inputs)
            if step == PARAMS and values:
                keys[step] = digest([keys[step], repr(sorted(values.items()))])
                return self._changed(make(f"{step}{note}", keys[step], compute), values)
            return make(f"{step}{note}", keys[step], compute)

        made = self._run(given, through)
        if half_life and "weight" not in taken:
            raise PipelineError(
                "train.half_life is set, and no function takes the weights of the rows",
                where=module,
                way_out="Give model() a parameter weight, (rows,), and pass it on: fit(x, y, sample_weight=weight).",
            )
        if values and PARAMS not in taken:
            raise PipelineError("a sweep changes what params() makes, and no function takes it", where=module)
        params = {str(name): str(value) for name, value in made.get(PARAMS, {}).items()}
        return Fitted(made["model"], params, keys["model"])

    def _changed(self, params: Any, values: Mapping[str, Any]) -> dict[str, Any]:
        unknown = sorted(set(values) - set(params))
        if unknown:
            raise PipelineError(
                f"{SPACE}() names {unknown[0]!r}, which params() does not make",
                where=self.policy.train.pipeline,
                way_out=f"Parameters: {', '.join(map(str, params))}.",
            )
        return {**params, **values}

    def _run(self, given: Mapping[str, Any], through: Any) -> Mapping[str, Any]:
        module = self.code.module(self.policy.train.pipeline)
        try:
            with self.code.at_home():
                made = self.pipeline(module, ("model", "params"), given, through)
        except HomeostatError:
            raise
        except (Exception, SystemExit) as error:  # whatever the project's functions raise is the user's to see
            raise PipelineError(
                f"the pipeline failed: {type(error).__name__}: {error}", where=self.code.place(error)
            ) from error
        if "model" not in made:
            raise PipelineError(
                f"{self.policy.train.pipeline} makes no model",
                where=str(module.__file__),
                way_out="Write a function model(x, y, seed) there that returns a fitted estimator.",
            )
        if not isinstance(made.get("params", {}), Mapping):
            raise PipelineError("params() must return a mapping", where=str(module.__file__))
        return made

    def _truth(self, schema: Schema, frame: pl.DataFrame) -> NDArray[Any]:
        """(n,) class indices or values."""
        target = frame[schema.target]
        if schema.task is Task.REGRESSION:
            return target.cast(pl.Float64).to_numpy()
        held = set(target.unique().to_list())
        missing = [known for known in schema.classes if known not in held]
        if missing:
            raise DataError(
                f"the {len(frame):,} rows to learn from hold no row with {schema.target} = {missing[0]!r}",
                where="train.window, train.holdout",
                way_out="Learn from a longer window, or hold out less.",
            )
        return labels.truth(schema, target.to_list()).astype(np.int64)

    def _checks(self) -> Any:
        """The project's pandera schema, None where the policy names none."""
        if self.policy.checks is None:
            return None
        return self._named(self.policy.checks, "checks")

    def _passed(self, frame: pl.DataFrame) -> bool:
        check(self._checks(), frame)
        return True

    def _index(self) -> CodeIndex:
        sources = self.code.sources()
        try:
            if self._indexed is None or self._indexed[0] != sources:
                self._indexed = sources, CodeIndex(sources)
            return self._indexed[1]
        except SyntaxError as error:
            raise PipelineError(f"not valid Python: {error.msg}", where=f"line {error.lineno}: {error.text}") from error


def weights(times: NDArray[np.int64], half_life_ms: int) -> Array:
    """(n,) what each row counts, 1 at the newest of the times (n,): half of it for each half-life that it is older."""
    return np.asarray(0.5 ** ((times.max() - times) / half_life_ms))


def native(estimator: Any, schema: Schema, x: NDArray[np.float32]) -> Array:
    """(n, c) the estimator's own output. Errors: `PipelineError` when it has none, or another width."""
    method, width = ("predict", 1) if schema.task is Task.REGRESSION else ("predict_proba", len(schema.classes))
    way_out = f"A model for the task {schema.task.value} is needed."
    if not hasattr(estimator, method):
        raise PipelineError(f"{type(estimator).__name__} has no {method}", way_out=way_out)
    found = np.asarray(getattr(estimator, method)(x), np.float64).reshape(len(x), -1)
    if found.shape[1] != width:
        raise PipelineError(f"the model's output has {found.shape[1]} columns, not {width}", way_out=way_out)
    return found
