"""A model on the holdout, and what the gates say of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from homeostat.domain.bundle import Backtest
from homeostat.domain.errors import ConfigError
from homeostat.domain.gate import GateResult, Measurement, Verdict
from homeostat.domain.policy import GatePolicy, Policy
from homeostat.domain.schema import Kind, Schema, Task
from homeostat.engines import gate, labels, metrics
from homeostat.engines.change import Baseline
from homeostat.engines.split import Split

Array = NDArray[np.float64]
SPREAD = (0.05, 0.95)
"""The target's quantiles whose distance is the absolute error that counts as a loss of 1 (regression)."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A model on the holdout: what the metrics say, and its losses (n,) in [0, 1]."""

    measurements: tuple[Measurement, ...]
    losses: Array
    loss_scale: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a bundle's evaluation.json holds: `loss` is the holdout's, day by day; `importance`: field → what the mean
    loss rises by without it."""

    loss: Baseline
    backtest: Backtest | None = None
    importance: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Champion:
    """The version that serves, and its bundle's id; its output (m, c) on the m of the n rows of the holdout that it
    has not learned from, `fresh` (n,); None when it is not `comparable`. `stand_in`: it is not the model that serves,
    but the one that was evaluated before it was refitted on these rows."""

    version: int
    bundle: str
    fresh: NDArray[np.bool_]
    output: Array | None
    stand_in: bool = False


def evaluate(policy: Policy, schema: Schema, parts: Split, output: Array) -> Evaluated:
    """`output` (n, c) of the model on the n rows of the holdout. Errors: `ConfigError`, an unknown metric."""
    y = labels.truth(schema, parts.holdout[schema.target].to_list())
    scale = loss_scale(schema, parts)
    measured = tuple(metrics.measure(name, y, output) for name in _metrics(policy))
    return Evaluated(measured, metrics.losses(schema.task, y, output, scale), scale)


def loss_scale(schema: Schema, parts: Split) -> float:
    """1 for classes; for a number the distance of the target's 5 % and 95 % quantiles in the window."""
    if schema.task is not Task.REGRESSION:
        return 1.0
    values = parts.window[schema.target].to_numpy()
    low, high = np.quantile(values, SPREAD)
    return float(high - low) or float(np.ptp(values)) or 1.0


def gates(
    policy: Policy, evaluated: Evaluated, y: Array, output: Array, champion: Champion | None
) -> tuple[GateResult, ...]:
    """Every gate of the policy, in its order. `y` (n,) and `output` (n, c) on the holdout."""
    return tuple(result for one in policy.gates for result in _gate(one, evaluated, y, output, champion))


def _gate(
    one: GatePolicy, evaluated: Evaluated, y: Array, output: Array, champion: Champion | None
) -> Iterator[GateResult]:
    measured = next(found for found in evaluated.measurements if found.metric == one.metric)
    yield from gate.threshold(one, measured)
    if one.versus is not None:
        yield _versus(one, y, output, champion)


def _versus(one: GatePolicy, y: Array, output: Array, champion: Champion | None) -> GateResult:
    if one.versus != "champion":
        raise ConfigError(f"a gate can't compare with {one.versus!r}", where="gates", way_out="Write versus: champion.")
    if champion is None:
        return gate.no_champion(one)
    if champion.output is None:
        reason = f"version {champion.version} has other inputs or other classes than these rows"
        return GateResult(f"{one.metric} versus champion", Verdict.UNKNOWN, reason)
    if not champion.fresh.any():
        reason = f"version {champion.version} has learned from every row of the holdout"
        return GateResult(f"{one.metric} versus champion", Verdict.UNKNOWN, reason)
    fresh = champion.fresh
    result = gate.versus(one, gate.difference(one.metric, y[fresh], output[fresh], champion.output))
    note = f"; against version {champion.version} as it was evaluated" if champion.stand_in else ""
    return replace(result, reason=result.reason + note)


def comparable(champion: Schema, schema: Schema) -> bool:
    """The champion can answer rows of the schema, in its classes; those that it does not know it gets wrong."""
    old, new = ({(field.name, field.kind is Kind.TEXT) for field in one.fields} for one in (champion, schema))
    grown = schema.task is Task.MULTICLASS is champion.task and set(champion.classes) <= set(schema.classes)
    return old <= new and (grown or champion.classes == schema.classes)


def backtest(schema: Schema, evaluated: Evaluated, y: Array, champion: Champion | None) -> Backtest | None:
    """The evaluated model beside the champion that serves, on the rows of the holdout (n,) that are new to both."""
    if champion is None or champion.output is None or champion.stand_in or not champion.fresh.any():
        return None
    fresh = champion.fresh
    difference = evaluated.losses[fresh] - metrics.losses(schema.task, y[fresh], champion.output, evaluated.loss_scale)
    return Backtest(champion.bundle, float(difference.mean()), int(fresh.sum()))


def _metrics(policy: Policy) -> list[str]:
    """The policy's metric first, then those of its gates, then all others that fit the task."""
    fitting = [name for name, metric in metrics.METRICS.items() if policy.task in metric.tasks]
    asked = [policy.train.metric, *(one.metric for one in policy.gates)]
    unknown = next((name for name in asked if name not in fitting and name not in metrics.OWN), None)
    if unknown is not None:
        raise ConfigError(
            f"{unknown!r} is no metric for the task {policy.task.value}",
            where="train.metric, gates",
            way_out=f"Known ones: {', '.join(fitting)}; a function of the project is written module:name.",
        )
    return list(dict.fromkeys([*asked, *fitting]))
