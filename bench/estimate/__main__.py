"""Estimated metrics beside the truth: `python -m bench.estimate FOLDER`, two minutes; FOLDER holds adult.csv and
elec.csv.

Covariate shift on real rows: half of a table trains a model, a part of it is the holdout, and from the rest windows are
drawn in which the rows with high (or low) values of one input are up to 20 times as frequent; each input in turn, both
ways. A changed concept: the truth of half of the rows turned round. Columns: table, rows of the holdout and of a
window, metric; mean distance from what the labels of the window say, of the estimate and of the holdout's own value;
mean distance from what 20,000 rows of the same shift say, of these labels and of the estimate: the labels of a window
are a sample themselves; how many intervals hold what the labels say; mean distance under a changed concept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import lightgbm as lgb
import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.engines import metrics
from homeostat.engines.estimate import EXPECTED, Held, estimate, expected

Array = NDArray[np.float64]
Ints = NDArray[np.intp]
TARGETS = {"adult": ("income-per-year", ">50K"), "elec": ("class", "1")}
SLOPE = 3.0
SEEDS = 3
MANY = 20_000
"""Rows of the same shift that stand for all there could be."""


def main() -> None:
    given = argparse.ArgumentParser(prog="python -m bench.estimate", description=__doc__)
    given.add_argument("folder", type=Path, help="where the tables are")
    folder = given.parse_args().folder
    for name in TARGETS:
        frame, y = read(folder, name)
        for held, window in ((6_000, 2_000), (1_000, 500), (336, 336)):
            for line in measured(name, frame, y, held, window):
                sys.stdout.write(f"| {' | '.join(line)} |\n")
            sys.stdout.flush()


def read(folder: Path, name: str) -> tuple[pl.DataFrame, Array]:
    """→ the inputs as numbers, and the truth."""
    target, second = TARGETS[name]
    frame = pl.read_csv(folder / f"{name}.csv")
    y = (frame[target].cast(pl.String).str.strip_chars() == second).cast(pl.Float64).to_numpy()
    texts = pl.col(pl.String).rank("dense")
    return frame.drop(target).with_columns(texts).cast(pl.Float64), y


def measured(name: str, frame: pl.DataFrame, y: Array, held: int, window: int) -> Iterator[tuple[str, ...]]:
    """A line a metric: how far the estimate is from the labels' word, and how far the holdout's own value is."""
    found = {metric: list(windows(metric, frame, y, held, window)) for metric in EXPECTED}
    for metric, rows in found.items():
        value, low, high, real, reference, turned, every = np.array(rows).T
        yield (
            name,
            f"{held:,}",
            f"{window:,}",
            metric,
            f"{np.abs(value - real).mean():.4f}",
            f"{np.abs(reference - real).mean():.4f}",
            f"{np.abs(real - every).mean():.4f}",
            f"{np.abs(value - every).mean():.4f}",
            f"{((low <= real) & (real <= high)).mean():.0%}",
            f"{np.abs(turned - value).mean():.2f}",
        )


def windows(metric: str, frame: pl.DataFrame, y: Array, held: int, window: int) -> Iterator[tuple[float, ...]]:
    """Each: estimate, its interval, the truth, the holdout's value; the truth once half of the rows are turned
    round, which the estimate can't see; the truth over `MANY` rows."""
    schema = Schema(tuple(Field(one, Kind.NUMBER) for one in frame.columns), Task.BINARY, "y", (0, 1))
    function, x = metrics.METRICS[metric].function, frame.to_numpy()
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        train, hold, rest = np.split(rng.permutation(len(y)), [len(y) // 2, len(y) // 2 + held])
        model = lgb.LGBMClassifier(n_estimators=100, random_state=1, n_jobs=1, verbose=-1).fit(x[train], y[train])
        output = np.asarray(model.predict_proba(x), np.float64)
        known = expected(metric, schema, Held(frame[hold], y[hold], output[hold]))
        for column in range(x.shape[1]):
            for slope in (-SLOPE, SLOPE):
                rows = drawn(rng, rest, x[rest, column], slope, window)
                one = estimate(known, frame[rows], output[rows])
                turned = np.where(rng.random(window) < 0.5, 1 - y[rows], y[rows])
                real, wrong = function(y[rows], output[rows]), function(turned, output[rows])
                many = drawn(rng, rest, x[rest, column], slope, MANY)
                yield one.value, one.low, one.high, real, known.value, wrong, function(y[many], output[many])


def drawn(rng: np.random.Generator, rows: Ints, by: Array, slope: float, n: int) -> Ints:
    """n of the rows, each the more likely the higher (slope > 0) its rank by `by`."""
    weight = np.exp(slope * by.argsort().argsort() / len(by))
    return np.asarray(rng.choice(rows, n, p=weight / weight.sum()))


if __name__ == "__main__":
    main()
