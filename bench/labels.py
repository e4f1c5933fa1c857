"""python -m bench.labels PROJECT

How soon wrong labels are found, and how often right ones are suspected, on a project's own history. A champion of its
pipeline is trained every three weeks and answers the weeks after; labels come from one source. First as they are; then,
from every 25th day on, a share of them is mirrored (as by `rehearse --inject poison`), and ten days are judged. Last,
from every 60th day on, when held labels would count again: the world turns round, row by row, over 45 days; or 21 days
of labels are wrong at random.
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
from homeostat.engines.suspicion import MOST, Jump, contradiction, foretold, jump, turned
from homeostat.engines.transform import matrix
from homeostat.project import Project
from homeostat.services.suspicion import WINDOW_ROWS

Array = NDArray[np.float64]
EVERY, STEP, SOON = 21, 25, 10
HELD, GROWS, WRONG = 60, 45, 21


@dataclass
class Stream:
    """Rows x (n, k) with the days they lie in, from 0 on, what is told of them and what was answered (n,)."""

    x: NDArray[np.float32]
    day: NDArray[np.int64]
    told: Array
    answers: Array
    numbers: bool
    scale: float

    @property
    def days(self) -> int:
        """Of a window."""
        return max(1, int(np.ceil(WINDOW_ROWS / np.median(np.bincount(self.day)))))

    def look(self, end: int) -> tuple[tuple[float, int], bool]:
        """Of the window before day `end` its noise and its labels, and whether these turned against the answers."""
        here = (self.day < end) & (self.day >= end - self.days)
        rows, expected = foretold(self.x[here], self.told[here], self.numbers)
        told = self.told[here][rows]
        noise = contradiction(told, expected, self.numbers, self.scale)
        return (noise, int(here.sum())), turned(told, expected, self.answers[here][rows])


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
    lived, output = rows.filter(day >= first), np.concatenate(outputs)
    x = np.column_stack([matrix(schema, lived.select(schema.names).to_dict()), output, day[day >= first]])
    told, other = (truth(schema, one.to_list()) for one in (lived[schema.target], mirrored(lived[schema.target])))
    scale = float(np.ptp(np.quantile(told, SPREAD))) if schema.task is Task.REGRESSION else 1.0
    numbers = schema.task is Task.REGRESSION
    answers = output[:, 0] if numbers else np.argmax(output, axis=1).astype(np.float64)
    return Stream(x.astype(np.float32), day[day >= first] - first, told, answers, numbers, scale), other


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


class Judge:
    """Of windows of what is told now, beside windows of right labels."""

    def __init__(self, lived: Stream) -> None:
        self.lived, self.last = lived, int(lived.day[-1]) + 1
        self.clean = {end: lived.look(end)[0] for end in range(lived.days, self.last + 1)}

    def jump(self, end: int, now: tuple[float, int], since: int) -> Jump | None:
        """What comes after `since` is being judged."""
        window = self.lived.days
        ends = [end - i * window for i in range(1, MOST + 2) if window <= end - i * window <= since]
        return jump([self.clean[one][0] for one in ends[:MOST]], *now)

    def suspicious(self, end: int, now: tuple[float, int], since: int) -> bool:
        found = self.jump(end, now, since)
        return found is not None and found.suspicious

    def found(self, start: int) -> int:
        """After how many days what is wrong from `start` on is suspicious; 0: not soon."""
        days = range(1, SOON + 1)
        return next((i for i in days if self.suspicious(start + i, self.lived.look(start + i)[0], start)), 0)

    def held(self, start: int) -> tuple[int, int, int] | None:
        """After how many days it is suspicious, turned against the answers (0: not before), and again as before."""
        window, since, turn = self.lived.days, 0, 0
        for i in range(1, min(HELD, self.last - start) + 1):
            now, against = self.lived.look(start + i)
            one = self.jump(start + i, now, start + max(0, since - window))
            if not since:
                since = i if one is not None and one.suspicious else 0
                continue
            if one is not None and one.calm:
                return since, turn, i
            turn = turn or (i if against and i >= since + window else 0)
        return None


def wrong(lived: Stream, start: int, share: float, over: int, chance: np.random.Generator) -> NDArray[np.bool_]:
    """(n,) from day `start` on such a share of all; `over` days: it grows to that, 0: it ends after some weeks."""
    age = lived.day - start
    shares = np.clip(age / over, 0, share) if over else np.where(age < WRONG, share, 0.0)
    return (age >= 0) & (chance.random(len(age)) < shares)


def main() -> None:
    lived, other = stream(Project.open(Path(sys.argv[1])))
    judge, told, window = Judge(lived), lived.told, lived.days
    false = [end for end, now in judge.clean.items() if judge.suspicious(end, now, end - window)]
    say(f"{judge.last} days, {window} a window; right labels suspected on {len(false)} days")
    for share in (0.2, 0.3):
        chance, found = np.random.default_rng(1), []
        for start in range(8 * window, judge.last - SOON, STEP):
            gone = (lived.day >= start) & (chance.random(len(told)) < share)
            lived.told = np.where(gone, other, told)
            found += [judge.found(start)]
        soon = [one for one in found if one]
        say(f"{share:.0%} wrong: found {len(soon)} of {len(found)}; days {np.quantile(soon, (0.5, 0.9))}")
    for what, share, over in (("all in the end", 1.0, GROWS), ("30 %", 0.3, 0), ("45 %", 0.45, 0), ("60 %", 0.6, 0)):
        chance, lives = np.random.default_rng(2), []
        for start in range(8 * window, judge.last - HELD, HELD):
            lived.told = np.where(wrong(lived, start, share, over, chance), other, told)
            lives += [one] if (one := judge.held(start)) else []
        lifted = [turn for _, turn, _ in lives if turn]
        days = [np.median([one[k] for one in lives]) for k in (0, 2)]
        middle = f", median day {np.median(lifted):g}" if lifted else ""
        say(
            f"{what}: {len(lives)} suspected, day {days[0]:g}; turned {len(lifted)}{middle}; as before, day {days[1]:g}"
        )


if __name__ == "__main__":
    main()
