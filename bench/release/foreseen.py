"""What the backtest says of a candidate before any caller meets it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import homeostat
from homeostat.domain.gate import Verdict


@dataclass(frozen=True)
class Foreseen:
    """`harm`: the lanes that it found harm in, and "hard stop"; `cannot_know`: what it says that it can't."""

    harm: tuple[str, ...]
    sentence: str
    cannot_know: tuple[str, ...]


def foresee(root: Path, version: int) -> Foreseen:
    """On all requests recorded so far."""
    made = homeostat.load(root).release.backtest(candidate=version)
    harm = [lane.name for lane in made.lanes if lane.verdict is Verdict.HARM]
    stop = ["hard stop"] if made.result.hard_stop else []
    return Foreseen((*stop, *harm), made.sentence, tuple(made.result.cannot_know))
