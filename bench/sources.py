"""python -m bench.sources PROJECT

Wrong labels of one of two sources, each of which labels half of the predictions: how soon they are found, by the rules
of services/suspicion.py. Random ones, and systematic ones, which one source alone would learn. The stream is that of
bench.labels; every `STEP`th day the labels of the one source begin to go wrong, and `SOON` days are judged.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.labels import SOON, Array, Stream, say, stream
from homeostat.domain.schema import Schema
from homeostat.engines import metrics
from homeostat.engines.suspicion import LEAST_ROWS, MOST, contradiction, foretold, jump
from homeostat.project import Project

STEP = 50
Measured = tuple[int, float, float]
"""Labels of the one source, and its noise and loss less those of the other."""


def noise(x: NDArray[np.float32], told: NDArray[np.float64], numbers: bool, scale: float) -> float:
    """How far the labels contradict each other."""
    rows, expected = foretold(x, told, numbers)
    return contradiction(told[rows], expected, numbers, scale)


class Two:
    def __init__(self, lived: Stream, schema: Schema) -> None:
        self.lived, self.task, self.right = lived, schema.task, lived.told
        self.output = lived.x[:, len(schema.fields) : -1].astype(float)
        self.mine = np.random.default_rng(5).random(len(self.right)) < 0.5
        self.days = 2 * lived.days
        self.clean: dict[int, Measured | None] = {}

    def measure(self, told: Array, end: int) -> Measured | None:
        here = (self.lived.day < end) & (self.lived.day >= end - self.days)
        both = [here & self.mine, here & ~self.mine]
        if min(rows.sum() for rows in both) < LEAST_ROWS:
            return None
        noisy = [noise(self.lived.x[rows], told[rows], self.lived.numbers, self.lived.scale) for rows in both]
        loss = [metrics.losses(self.task, told[rows], self.output[rows], self.lived.scale).mean() for rows in both]
        return int(both[0].sum()), noisy[0] - noisy[1], float(loss[0] - loss[1])

    def before(self, end: int, since: int) -> list[Measured]:
        ends = [end - i * self.days for i in range(1, MOST + 2) if self.days <= end - i * self.days <= since]
        for one in ends:
            if one not in self.clean:
                self.clean[one] = self.measure(self.right, one)
        return [found for one in ends[:MOST] if (found := self.clean[one]) is not None]

    def suspicious(self, told: Array, end: int, since: int) -> bool:
        now, before = self.measure(told, end), self.before(end, since)
        if now is None:
            return False
        found = (jump([one[place] for one in before], now[place], now[0]) for place in (1, 2))
        return any(one is not None and one.suspicious for one in found)


def main() -> None:
    project = Project.open(Path(sys.argv[1]))
    lived, other = stream(project)
    schema = project.system.training.schema(project.data())
    two, right, rng = Two(lived, schema), lived.told, np.random.default_rng(1)
    columns = [np.nan_to_num(lived.x[:, i]) for i in range(len(schema.fields))]
    strength = [abs(np.corrcoef(one, right)[0, 1]) if one.std() else 0.0 for one in columns]
    strongest = int(np.argmax(strength))
    high = columns[strongest] >= np.quantile(columns[strongest], 0.7)
    upper = right > np.median(right) if lived.numbers else right == right.max()
    kinds = {
        "30% at random": rng.random(len(right)) < 0.3,
        "half of one class told as the other": upper & (rng.random(len(right)) < 0.5),
        f"one segment turned round ({schema.names[strongest]})": high,
        "that segment told as one class": high & upper,
    }
    last = int(lived.day[-1]) + 1
    ends = range(9 * two.days, last, 3)
    false = [end for end in ends if two.suspicious(right, end, end - two.days)]
    say(f"right labels suspected on {len(false)} of {len(ends)} days")
    for name, which in kinds.items():
        found = []
        for start in range(9 * two.days, last - SOON, STEP):
            told = np.where(which & two.mine & (lived.day >= start), other, right)
            days = (i for i in range(1, SOON + 1) if two.suspicious(told, start + i, start))
            found.append(next(days, 0))
        soon = [one for one in found if one]
        say(f"{name}: found {len(soon)} of {len(found)}; days {np.quantile(soon, (0.5, 0.9)) if soon else '-'}")


if __name__ == "__main__":
    main()
