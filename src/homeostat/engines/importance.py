"""How much a model needs each input: what its loss rises by when the input's values are shuffled (Breiman 2001;
Fisher, Rudin, Dominici, "All Models are Wrong, but Many are Useful", 2019)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from homeostat.domain.schema import Schema
from homeostat.engines import metrics

Array = NDArray[np.float64]
ROWS, REPEATS = 1_000, 5
"""Rows of the holdout that are shuffled, and how often."""
MATTERS = 0.1
"""An input matters that costs a tenth of what the most important one does."""


def importance(
    schema: Schema, x: NDArray[np.float32], y: Array, model: Callable[[NDArray[np.float32]], Array], scale: float
) -> dict[str, float]:
    """Field → the rise of the mean loss in [0, 1]; below 0 by chance. x (n, k) as the model takes it, y (n,), n > 0;
    `scale`: as for `metrics.losses`."""
    some = slice(None, None, -(-len(y) // ROWS))
    x, y = x[some], y[some]
    rng = np.random.default_rng(len(y))
    shuffles = [rng.permutation(len(y)) for _ in range(REPEATS)]
    before = _loss(schema, y, model(x), scale)

    def without(place: int) -> float:
        mixed = np.tile(x, (REPEATS, 1))
        mixed[:, place] = np.concatenate([x[order, place] for order in shuffles])
        return _loss(schema, np.tile(y, REPEATS), model(mixed), scale) - before

    return {name: without(place) for place, name in enumerate(schema.names)}


def _loss(schema: Schema, y: Array, output: Array, scale: float) -> float:
    return float(metrics.losses(schema.task, y, output, scale).mean())


def matter(found: Mapping[str, float]) -> tuple[str, ...]:
    """The inputs that matter, the most important first."""
    most = max(found.values(), default=0.0)
    ranked = sorted(found, key=lambda name: -found[name])
    return tuple(name for name in ranked if found[name] > 0 and found[name] >= MATTERS * most)


def agreement(before: Mapping[str, float], now: Mapping[str, float]) -> float | None:
    """Spearman's rank correlation of two versions' importances over the inputs that both have, in [-1, 1]; None with
    fewer than three of them, or where all are alike."""
    names = [name for name in before if name in now]
    old, new = [before[name] for name in names], [now[name] for name in names]
    if len(names) < 3 or len(set(old)) < 2 or len(set(new)) < 2:
        return None
    return float(np.corrcoef(_ranks(old), _ranks(new))[0, 1])


def _ranks(values: Sequence[float]) -> Array:
    _, where, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[where])
