"""Lines over time as inline SVG: coloured by the page's style sheet, events on top, exact values on hover."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from markupsafe import Markup

from homeostat.engines.report import axis, svg, words

Role = Literal["champion", "candidate", "frozen", "scheduled", "ok", "harm", "unknown", "invalid", "plain"]
"""What a line or bar stands for: decides its colour and, for the baselines, its dash and weight."""

EventKind = Literal["ok", "harm", "unknown", "invalid", "note"]


@dataclass(frozen=True, slots=True)
class Point:
    """`value` None (or NaN): not measured, the line breaks. `n`: the count behind it. [low, high]: its interval."""

    at_ms: int
    value: float | None
    n: int
    low: float | None = None
    high: float | None = None

    @property
    def known(self) -> bool:
        return self.value is not None and math.isfinite(self.value)


@dataclass(frozen=True, slots=True)
class Series:
    """A line. `dashed`: its values are estimates, and its label says so."""

    label: str
    role: Role
    points: Sequence[Point]
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """An event: a thin vertical line, a shape, a short word where there is room. `title` shows on hover."""

    at_ms: int
    word: str
    kind: EventKind = "note"
    title: str = ""


@dataclass(frozen=True, slots=True)
class Limit:
    """A horizontal line that values are held against."""

    value: float
    label: str
    kind: Literal["harm", "ok"] = "harm"


@dataclass(frozen=True, slots=True)
class Look:
    """Of a plot over time. `zero`: the axis starts at 0, since size matters; `log`: powers of ten; `steps`: a value
    holds until the next one; `count`: what the counts behind the points are."""

    unit: str
    label: str = ""
    width: int = 1104
    height: int = 320
    zero: bool = False
    log: bool = False
    steps: bool = False
    count: str = "row"
    limits: tuple[Limit, ...] = ()


LEFT, RIGHT, BOTTOM, WORDS, WORD_ROW, CHAR = 52.0, 132.0, 40.0, 36.0, 16.0, 6.3
FREQUENT = 6
"""An event that happens more often is named the first time only; its shape stands for it then."""

IMPORTANCE: dict[EventKind, int] = {"harm": 0, "invalid": 1, "ok": 2, "unknown": 3, "note": 4}


@dataclass(frozen=True)
class _Canvas:
    """From time and value to pixels."""

    look: Look
    series: Sequence[Series]
    events: Sequence[Mark]
    rows: int = 2

    @property
    def top(self) -> float:
        return 32 + (self.rows * WORD_ROW + 4 if self.events else 0)

    @property
    def bottom(self) -> float:
        return self.look.height - BOTTOM

    @property
    def right(self) -> float:
        return self.look.width - RIGHT

    @cached_property
    def times(self) -> tuple[int, int]:
        points = [point.at_ms for series in self.series for point in series.points]
        times = points + [mark.at_ms for mark in self.events]
        return (min(times), max(max(times), min(times) + 1)) if times else (0, 1)

    @cached_property
    def values(self) -> tuple[float, float]:
        """The range of the vertical axis: of values and limits, with room. Bands are wide
        while little is known: those of the first half may be cut."""
        known = [p.value for s in self.series for p in s.points if p.value is not None and p.known]
        late = [edge for s in self.series for p in s.points[len(s.points) // 2 :] for edge in (p.low, p.high)]
        edges = [edge for edge in late if edge is not None and math.isfinite(edge)]
        return _padded([*known, *edges, *(limit.value for limit in self.look.limits)], self.look)

    def x(self, at_ms: float) -> float:
        start, end = self.times
        return LEFT + (at_ms - start) / (end - start) * (self.right - LEFT)

    def y(self, value: float) -> float:
        low, high = self.values
        if self.look.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, low))
        share = (value - low) / (high - low)
        return self.bottom - max(0.0, min(1.0, share)) * (self.bottom - self.top)


def _padded(values: Sequence[float], look: Look) -> tuple[float, float]:
    if look.log:
        positive = [value for value in values if value > 0] or [1.0]
        return 10 ** math.floor(math.log10(min(*positive, 1.0) * 1.001)), max(positive) * 2
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    low, high = (min(low, 0.0), max(high, 0.0)) if look.zero else (low, high)
    room = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return (low if look.zero and low >= 0 else low - room), high + room


def lines(series: Sequence[Series], events: Sequence[Mark] = (), look: Look | None = None) -> Markup:
    """Lines over one time axis (UTC), each labelled at its end, with events as thin verticals."""
    look = look or Look("")
    canvas = _Canvas(look, series, events)
    drawn = [_band(canvas, one) for one in series] + [_line(canvas, one) for one in series]
    points = [_points(canvas, one) for one in series]
    unit = svg.text(LEFT, 16, look.unit, "unit")
    parts = [*_axes(canvas), *_limits(canvas), *_events(canvas), *drawn, *points, *_ends(canvas), unit]
    return svg.picture(look.width, look.height, look.label or look.unit, *parts)


def _axes(canvas: _Canvas) -> Iterator[Markup]:
    low, high = canvas.values
    for tick in axis.log_ticks(low, high) if canvas.look.log else axis.value_ticks(low, high):
        y = canvas.y(tick.at)
        yield svg.line(LEFT, y, canvas.right, y, "base" if tick.at == 0 else "grid")
        yield svg.text(LEFT - 8, y + 4, tick.text, "tick", "end")
    about = max(2, int((canvas.right - LEFT) / 90))
    for tick in axis.time_ticks(*canvas.times, about):
        x = canvas.x(tick.at)
        yield svg.line(x, canvas.bottom, x, canvas.bottom + 4, "base")
        yield svg.text(x, canvas.bottom + 18, tick.text, "tick", "middle")
        yield svg.text(x, canvas.bottom + 32, tick.under, "tick faint", "middle")


def _limits(canvas: _Canvas) -> Iterator[Markup]:
    for limit in canvas.look.limits:
        y = canvas.y(limit.value)
        yield svg.line(LEFT, y, canvas.right, y, f"limit {limit.kind}")


def _events(canvas: _Canvas) -> Iterator[Markup]:
    """Lines and shapes for all; words for those that matter most, as many as there is room for."""
    ranked = sorted(canvas.events, key=lambda mark: (IMPORTANCE[mark.kind], mark.at_ms))
    for mark, row in zip(ranked, _rows(canvas, ranked), strict=True):
        x, y = canvas.x(mark.at_ms), canvas.top - 8
        from_y = y if row is None else WORDS + row * WORD_ROW + 3
        parts = [svg.line(x, from_y, x, canvas.bottom, f"event {mark.kind}"), svg.mark(mark.kind, x, y)]
        if row is not None:
            left, _ = _word_span(canvas, mark)
            parts.append(svg.text(left + 4, WORDS + row * WORD_ROW, mark.word, f"word {mark.kind}"))
        yield svg.titled(f"{words.time(mark.at_ms)}: {mark.title or mark.word}", *parts, class_="happened")


def _rows(canvas: _Canvas, ranked: Sequence[Mark]) -> list[int | None]:
    """The row of each event's word; None: it has no word."""
    often = Counter(mark.word for mark in ranked)
    first = {mark.word: k for k, mark in reversed(list(enumerate(ranked)))}
    named = [k for k, mark in enumerate(ranked) if often[mark.word] <= FREQUENT or first[mark.word] == k]
    found = axis.in_rows([_word_span(canvas, ranked[k]) for k in named], canvas.rows)
    placed = dict(zip(named, found, strict=True))
    return [placed.get(k) for k in range(len(ranked))]


def _word_span(canvas: _Canvas, mark: Mark) -> tuple[float, float]:
    """Where its word would stand: to the right of the line, or to the left of it near the right edge."""
    x, width = canvas.x(mark.at_ms), len(mark.word) * CHAR + 8
    left = x - 4 if x + width < canvas.look.width - 8 else x - width + 4
    return left, left + width


def _runs(series: Series) -> Iterator[list[Point]]:
    """The stretches without a gap."""
    run: list[Point] = []
    for point in series.points:
        if point.known:
            run.append(point)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _line(canvas: _Canvas, series: Series) -> Markup:
    dashed = " estimated" if series.dashed else ""
    return svg.join(
        svg.path(_corners(canvas, run), f"line {series.role}{dashed}") for run in _runs(series) if len(run) > 1
    )


def _corners(canvas: _Canvas, run: Sequence[Point]) -> Iterator[tuple[float, float]]:
    before: float | None = None
    for point in run:
        x, y = canvas.x(point.at_ms), canvas.y(point.value or 0.0)
        if canvas.look.steps and before is not None:
            yield x, before
        yield x, y
        before = y


def _band(canvas: _Canvas, series: Series) -> Markup:
    return svg.join(_one_band(canvas, series.role, run) for run in _runs(series))


def _one_band(canvas: _Canvas, role: Role, run: Sequence[Point]) -> Markup:
    """An end that is infinite goes to the edge of the plot."""
    edges = [(canvas.x(p.at_ms), p.low, p.high) for p in run if p.low is not None and p.high is not None]
    edges = [edge for edge in edges if not (math.isnan(edge[1]) or math.isnan(edge[2]))]
    if len(edges) < 2:
        return Markup("")
    under = [(x, canvas.y(low)) for x, low, _ in edges]
    over = [(x, canvas.y(high)) for x, _, high in reversed(edges)]
    return svg.path(under + over, f"band {role}", closed=True)


def _named(series: Series) -> str:
    return f"{series.label} (estimated)".strip() if series.dashed else series.label


def _points(canvas: _Canvas, series: Series) -> Markup:
    """Seen on hover only, but for a point that stands alone."""
    alone = {run[0].at_ms for run in _runs(series) if len(run) == 1}
    return svg.join(
        svg.titled(
            f"{_named(series)}, {words.time(point.at_ms)}: {words.interval(point.value, point.low, point.high)}"
            f" ({words.counted(point.n, canvas.look.count)})",
            _dot(canvas.x(point.at_ms), canvas.y(point.value or 0.0), series.role),
            class_="hit alone" if point.at_ms in alone else "hit",
        )
        for point in series.points
        if point.known
    )


def _dot(x: float, y: float, role: str) -> Markup:
    return svg.tag("circle", cx=x, cy=y, r=5, class_=f"dot {role}")


def _ends(canvas: _Canvas) -> Iterator[Markup]:
    """Labels at the ends of lines and limits, pushed apart."""
    lasts = [(one, next((p for p in reversed(one.points) if p.known), None)) for one in canvas.series]
    ended = [(one, point) for one, point in lasts if point is not None]
    limits = canvas.look.limits
    wanted = [canvas.y(point.value or 0.0) for _, point in ended] + [canvas.y(limit.value) for limit in limits]
    placed = axis.pushed_apart(wanted, 17, canvas.top, canvas.bottom)
    for (one, point), want, y in zip(ended, wanted, placed, strict=False):
        yield svg.line(canvas.x(point.at_ms) + 3, want, canvas.right + 10, y, f"leader {one.role}")
        label = _named(one)
        value = svg.tag("tspan", ("  " if label else "") + words.number(point.value), class_="value")
        yield svg.tag("text", label, value, x=canvas.right + 14, y=y + 4, class_=f"end {one.role}")
    for limit, y in zip(limits, placed[len(ended) :], strict=True):
        yield svg.text(canvas.right + 14, y + 4, limit.label, f"tick {limit.kind}")
