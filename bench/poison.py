"""python -m bench.poison PROJECT

What wrong labels do to a model, and what holding them back saves: on a project's own history, with its own training.
Every `STEP` days a model is fitted on the training window before, of which the newest `WRONG` days hold wrong labels of
one kind; its loss is measured on the right labels of the week after, beside that of a model fitted on right labels, and
of one fitted without those days. Differences are paired; their interval is over the dates.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.schema import Task
from homeostat.domain.units import DAY_MS
from homeostat.engines import labels, metrics
from homeostat.engines.inject import mirrored
from homeostat.engines.metrics import T_19
from homeostat.project import Project

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
STEP, WRONG, AFTER = 30, 21, 7
SHARE = 0.3


def kinds(rows: pl.DataFrame, target: str) -> dict[str, Callable[[np.random.Generator], Flags]]:
    """Which rows are told wrongly, by the name of the kind; each mirrors its labels."""
    truth = rows[target].cast(pl.Float64).to_numpy()
    names = [name for name in rows.columns if name != target and rows.schema[name].is_float()]
    strongest = max(names, key=lambda name: abs(np.corrcoef(rows[name].to_numpy(), truth)[0, 1]))
    values = rows[strongest].to_numpy()
    upper, high = truth > np.median(truth) if len(set(truth)) > 2 else truth == truth.max(), np.quantile(values, 0.7)
    return {
        f"{SHARE:.0%} at random": lambda rng: rng.random(len(rows)) < SHARE,
        "60% at random": lambda rng: rng.random(len(rows)) < 2 * SHARE,
        "half of one class told as the other": lambda rng: upper & (rng.random(len(rows)) < 0.5),
        f"all of one segment ({strongest} in its upper {SHARE:.0%})": lambda _: values >= high,
        "that segment told as one class": lambda _: (values >= high) & upper,
    }


class Trial:
    def __init__(self, project: Project) -> None:
        self.project, self.rows = project, project.data()
        self.target, self.day = project.policy.data.target, self.rows[EVENT_MS].to_numpy() // DAY_MS
        self.schema = project.system.training.schema(self.rows)
        self.mirrored = mirrored(self.rows[self.target])

    def dates(self) -> Iterator[int]:
        window = (self.project.policy.train.window or 90 * DAY_MS) // DAY_MS
        yield from range(int(self.day[0]) + window, int(self.day[-1]) - AFTER, STEP)

    def lost(self, date: int, wrong: Flags | None, kept: bool) -> float:
        """The mean loss in the week after `date`."""
        window = (self.project.policy.train.window or 90 * DAY_MS) // DAY_MS
        known, newest = (self.day < date) & (self.day >= date - window), self.day >= date - WRONG
        rows = self.rows
        if wrong is not None:
            told = self.mirrored.zip_with(pl.Series(wrong & newest), rows[self.target])
            rows = rows.with_columns(told.alias(self.target))
        model = self.project.fit(rows.filter(pl.Series(known if kept else known & ~newest)))
        after = self.rows.filter(pl.Series((self.day >= date) & (self.day < date + AFTER)))
        truth = labels.truth(self.schema, after[self.target].to_list())
        scale = 1.0 if self.schema.task is not Task.REGRESSION else float(np.ptp(np.quantile(truth, (0.05, 0.95))))
        return float(metrics.losses(self.schema.task, truth, model(after), scale).mean())


def interval(differences: Array) -> str:
    error = T_19 * differences.std(ddof=1) / len(differences) ** 0.5
    return f"{differences.mean():+.4f} [{differences.mean() - error:+.4f}, {differences.mean() + error:+.4f}]"


def main() -> None:
    trial, rng = Trial(Project.open(Path(sys.argv[1]))), np.random.default_rng(1)
    dates = list(trial.dates())
    right = np.array([trial.lost(date, None, True) for date in dates])
    without = np.array([trial.lost(date, None, False) for date in dates])
    sys.stdout.write(f"{len(dates)} dates; mean loss with right labels {right.mean():.4f}\n")
    sys.stdout.write(f"without the newest {WRONG} days: {interval(without - right)}\n")
    for name, which in kinds(trial.rows, trial.target).items():
        wrong = np.array([trial.lost(date, which(rng), True) for date in dates])
        saved = interval(wrong - without)
        sys.stdout.write(f"{name}: {interval(wrong - right)}; holding them back saves {saved}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
