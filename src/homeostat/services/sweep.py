"""Another set of parameters: each of the project's own choices is fitted, and the newest labels decide."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from homeostat import codec
from homeostat.domain.bundle import Bundle
from homeostat.domain.schema import Schema
from homeostat.engines import labels, metrics
from homeostat.engines.evaluation import loss_scale
from homeostat.engines.split import Split, split
from homeostat.engines.transform import matrix
from homeostat.services.bundles import Bundles
from homeostat.services.training import Make, Rows, Training, native

FILE = "swept.json"
MOST = 24
"""Choices that a sweep fits, at most; of more it takes as many, at random by the seed."""


@dataclass(frozen=True, slots=True)
class Swept:
    """`values` of parameters that a sweep of `tried` choices found; `code` of `params` and `space` when it did."""

    code: str = ""
    tried: int = 0
    values: Mapping[str, Any] = field(default_factory=dict)


def sweep(training: Training, rows: Rows, schema: Schema, make: Make) -> Swept:
    """The choice of `space()` whose model, fitted on all of the rows but the newest `train.holdout`, loses least on
    these. Errors: `PipelineError`, `DataError`."""
    policy = training.policy.train
    parts = split(policy, rows.frame)
    tried = _choices(training.space(), policy.seed)
    lost = [_lost(training, parts, rows.key, schema, make, values) for values in tried]
    return Swept(training.parameters(), len(tried), tried[int(np.argmin(lost))])


def _choices(space: Mapping[str, list[Any]], seed: int) -> list[dict[str, Any]]:
    """What `params()` says is the first: another one must be better."""
    combined = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    if len(combined) >= MOST:
        some = np.random.default_rng(seed).choice(len(combined), MOST - 1, replace=False)
        combined = [combined[place] for place in sorted(some)]
    return [{}, *combined]


def _lost(training: Training, parts: Split, key: str, schema: Schema, make: Make, values: Mapping[str, Any]) -> float:
    fitted = training.fit(Rows(parts.train, f"sweep/{key}"), schema, make, f" (sweep: {told(values)})", values)
    newest: pl.DataFrame = parts.holdout
    output = native(fitted.estimator, schema, matrix(schema, newest.select(schema.names).to_dict()))
    y = labels.truth(schema, newest[schema.target].to_list())
    return float(metrics.losses(schema.task, y, output, loss_scale(schema, parts)).mean())


def kept(bundles: Bundles, champion: Bundle | None, training: Training) -> Swept:
    """What the champion's parameters owe to a sweep: the next training has the same, until `params` or `space` are
    edited."""
    if champion is None or FILE not in champion.files:
        return Swept()
    found: Swept = codec.decode(bundles.file(champion, FILE), Swept)
    return found if found.code == training.parameters() else Swept()


def told(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "as params() says"
