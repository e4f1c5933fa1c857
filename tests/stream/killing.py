"""The test that both kinds of stream must pass: consumers killed while they work."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import places
import polars as pl

from homeostat.stores.days import DayTables
from homeostat.stores.predictions import SegmentLog
from homeostat.wiring.plane import STATE

KILLS = 20
MESSAGES = int(os.environ.get("HOMEOSTAT_STREAM_MESSAGES", "200000"))


class Ends(Protocol):
    """The two topics, seen from outside."""

    def feed(self, bodies: Sequence[bytes]) -> Sequence[str]:
        """→ the place of each."""
        ...

    def fetch(self) -> Sequence[tuple[str, bytes]]:
        """(id, answer) of what is new on the sink; waits for some, and fails when nothing comes."""
        ...


def survive(ends: Ends, root: Path, onnx: bytes, start: Callable[[], places.Consumer]) -> None:
    """Two consumers at a time; the older one is killed at the first answer to a share, and replaced.
    Afterwards every input has one answer, the right one, and it is in the log once."""
    x = places.rows(MESSAGES)
    share = MESSAGES // KILLS
    texts, fed = places.bodies(x), list[str]()
    answers: dict[str, set[bytes]] = {}
    running = deque([start(), start()])
    total = 0

    def until(count: int) -> int:
        read = 0
        while len(answers) < count:
            for name, answer in ends.fetch():
                answers.setdefault(name, set()).add(answer)
                read += 1
        return read

    try:
        for first in range(0, MESSAGES, share):
            fed += ends.feed(texts[first : first + share])
            total += until(len(fed) - share + 1)
            running.popleft().kill()
            running.append(start())
        total += until(len(fed))
        last = [running.popleft().stop() for _ in range(len(running))]
    finally:
        for one in running:
            one.kill()
    assert not any(one["dead_total"] for one in last)
    _right(fed, answers, places.scores(onnx, x))
    _logged(root, fed)
    sys.stdout.write(f"{KILLS} killed over {MESSAGES:,} messages: {total:,} outputs\n")  # pytest -rP shows it


def _right(fed: Sequence[str], answers: dict[str, set[bytes]], scores: Sequence[float]) -> None:
    assert set(answers) == set(fed)
    assert {len(given) for given in answers.values()} == {1}, "a repeated answer says the same"
    given = [places.score(next(iter(answers[name]))) for name in fed]
    np.testing.assert_allclose(given, scores, atol=1e-6)


def _logged(root: Path, fed: Sequence[str]) -> None:
    log = SegmentLog(root / STATE / "log", "reader", DayTables(root / STATE / "tables"))
    rows = log.read("flow", 0, 2**62).filter(pl.col("role") == "answer")
    assert sorted(rows["id"]) == sorted(fed)
