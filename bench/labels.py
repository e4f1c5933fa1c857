"""python -m bench.labels PROJECT

How soon wrong labels are found, and how often right ones are suspected, on a project's own history. A champion of its
pipeline is trained every three weeks and answers the weeks after; labels come from one source. First as they are; then,
from every 25th day on, a share of them is mirrored (as by `rehearse --inject poison`), and ten days are judged.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.schema import Task
from homeostat.domain.units import DAY_MS
from homeostat.engines.evaluation import SPREAD
from homeostat.engines.inject import mirrored
from homeostat.engines.labels import truth
from homeostat.engines.suspicion import MOST, jump, noise
from homeostat.engines.transform import matrix
from homeostat.project import Project
from homeostat.services.suspicion import WINDOW_ROWS

Array = NDArray[np.float64]
EVERY, STEP, SOON = 21, 25, 10


@dataclass
class Stream:
    """Rows x (n, k) with the days they lie in, from 0 on, and what is told of them (n,)."""

    x: NDArray[np.float32]
    day: NDArray[np.int64]
    told: Array
    numbers: bool
    scale: float

    @property
    def days(self) -> int:
        """Of a window."""
        return max(1, int(np.ceil(WINDOW_ROWS / np.median(np.bincount(self.day)))))

    def noise(self, end: int) -> tuple[float, int]:
        here = (self.day < end) & (self.day >= end - self.days)
        return noise(self.x[here], self.told[here], self.numbers, self.scale), int(here.sum())


def stream(project: Project) -> tuple[Stream, Array]:
    """The history as the champions answered it, and its labels mirrored."""
    rows = project.data()
    schema, policy = project.system.training.schema(rows), project.policy
    day = rows[EVENT_MS].to_numpy() // DAY_MS
    first = int(day[0]) + policy.rehearsal.warmup // DAY_MS
    outputs = []
    for start in range(first, int(day[-1]) + 1, EVERY):
        known = (day < start) & (day >= start - policy.train.window // DAY_MS)
        outputs.append(project.fit(rows.filter(known))(rows.filter((day >= start) & (day < start + EVERY))))
    lived = rows.filter(day >= first)
    x = np.column_stack(
        [matrix(schema, lived.select(schema.names).to_dict()), np.concatenate(outputs), day[day >= first]]
    )
    told, other = (truth(schema, one.to_list()) for one in (lived[schema.target], mirrored(lived[schema.target])))
    scale = float(np.ptp(np.quantile(told, SPREAD))) if schema.task is Task.REGRESSION else 1.0
    numbers = schema.task is Task.REGRESSION
    return Stream(x.astype(np.float32), day[day >= first] - first, told, numbers, scale), other


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def main() -> None:
    lived, other = stream(Project.open(Path(sys.argv[1])))
    last, window, told = int(lived.day[-1]) + 1, lived.days, lived.told
    clean = {end: lived.noise(end) for end in range(window, last + 1)}

    def suspicious(end: int, now: tuple[float, int], since: int) -> bool:
        """Windows before are those of right labels: what comes after `since` is being judged."""
        ends = [end - i * window for i in range(1, MOST + 2) if window <= end - i * window <= since]
        found = jump([clean[one][0] for one in ends[:MOST]], *now)
        return found is not None and found.suspicious

    false = [end for end, now in clean.items() if suspicious(end, now, end - window)]
    say(f"{last} days, {window} a window; right labels suspected on {len(false)} days")
    for share in (0.2, 0.3):
        chance, found = np.random.default_rng(1), []
        starts = range(8 * window, last - SOON, STEP)
        for start in starts:
            wrong = (lived.day >= start) & (chance.random(len(told)) < share)
            lived.told = np.where(wrong, other, told)
            days = (i for i in range(1, SOON + 1) if suspicious(start + i, lived.noise(start + i), start))
            found += [next(days, 0)]
        lived.told = told
        soon = [one for one in found if one]
        say(f"{share:.0%} wrong: found {len(soon)} of {len(found)}; days {np.quantile(soon, (0.5, 0.9))}")


if __name__ == "__main__":
    main()
