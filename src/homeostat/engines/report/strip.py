"""Verdicts over time: one bar a lane, on the time axis of the plot above it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from homeostat.domain.gate import Verdict
from homeostat.engines.report import svg, words
from homeostat.engines.report.plot import LEFT, RIGHT

HEIGHT = 26.0


@dataclass(frozen=True, slots=True)
class Stretch:
    """A verdict from a moment on, until the next one; `title` says what it rests on."""

    from_ms: int
    verdict: Verdict
    title: str


@dataclass(frozen=True, slots=True)
class Strip:
    """A lane: its stretches in order of time, and when it was last looked at."""

    label: str
    stretches: Sequence[Stretch]
    until_ms: int


def strips(rows: Sequence[Strip], times: tuple[int, int], label: str, width: int = 1104) -> Markup:
    """`times`: where the axis starts and ends."""
    start, end = times
    scale = (width - RIGHT - LEFT) / max(end - start, 1)

    def x(at_ms: int) -> float:
        return LEFT + (at_ms - start) * scale

    drawn = [part for k, row in enumerate(rows) for part in _strip(row, k * HEIGHT, x(row.until_ms), x)]
    named = [_end(row, k * HEIGHT, width - RIGHT + 14) for k, row in enumerate(rows)]
    return svg.picture(width, HEIGHT * len(rows) + 2, label, *drawn, *named)


def _strip(row: Strip, top: float, end: float, x: Callable[[int], float]) -> Iterator[Markup]:
    edges = [*(x(one.from_ms) for one in row.stretches), end]
    for one, (left, right) in zip(row.stretches, pairwise(edges), strict=True):
        width = max(right - left - 1, 2.0)
        bar = svg.tag("rect", x=left, y=top + 4, width=width, height=18, rx=3, class_=f"reach {one.verdict}")
        shape = [svg.mark(one.verdict.value, left + 9, top + 13)] if width > 18 else []
        word = [svg.text(left + 18, top + 17, one.verdict.value, "tick said")] if width > 72 else []
        yield svg.titled(f"{row.label}, {words.time(one.from_ms)}: {one.title}", bar, *shape, *word, class_="row")


def _end(row: Strip, top: float, left: float) -> Markup:
    last = svg.mark(row.stretches[-1].verdict.value, left + 4, top + 13)
    return svg.join([last, svg.text(left + 14, top + 17, row.label, "name")])
