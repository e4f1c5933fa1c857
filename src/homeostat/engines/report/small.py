"""Small pictures as inline SVG: bars, intervals against a limit, then-and-now histograms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from homeostat.domain.gate import Verdict
from homeostat.engines.report import svg, words
from homeostat.engines.report.plot import Role

LABEL = 56
"""Characters of a bar's label."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A size, from zero. `shown` is how its value reads."""

    label: str
    value: float
    shown: str
    role: Role = "plain"


def bars(rows: Sequence[Bar], label: str, width: int = 720) -> Markup:
    """Horizontal bars from zero, one scale. A long label is cut; the whole of it shows on hover."""
    names = max((len(_cut(row.label)) for row in rows), default=0) * 7.2 + 12
    longest = max((row.value for row in rows), default=0) or 1.0
    room = width - names - max((len(row.shown) for row in rows), default=0) * 7.5 - 16
    drawn = [_bar(row, 28.0 * k, names, max(row.value, 0) / longest * room) for k, row in enumerate(rows)]
    axis_line = svg.line(names, 0, names, 28 * len(rows), "base")
    return svg.picture(width, 28 * len(rows) + 2, label, *drawn, axis_line)


def _cut(label: str) -> str:
    return label if len(label) <= LABEL else label[: LABEL - 1] + "…"


def _bar(row: Bar, top: float, left: float, length: float) -> Markup:
    return svg.titled(
        f"{row.label}: {row.shown}",
        svg.text(left - 10, top + 18, _cut(row.label), "name", "end"),
        svg.tag("rect", x=left, y=top + 6, width=max(length, 1.0), height=16, class_=f"bar {row.role}"),
        svg.text(left + length + 8, top + 18, row.shown, "value"),
        class_="row",
    )


@dataclass(frozen=True, slots=True)
class Span:
    """A value with its interval, held against `limit`; None where it was not measured."""

    name: str
    verdict: Verdict
    value: float | None
    low: float | None
    high: float | None
    n: int
    limit: float | None = None


def intervals(rows: Sequence[Span], label: str, width: int = 1104, count: str = "row") -> Markup:
    """One row a measurement, each on a scale of its own: the interval, the value in it, the limit it is held to."""
    names = max((len(row.name) for row in rows), default=0) * 7.2 + 40
    drawn = [_span(row, 36.0 * k, names, width - 210, count) for k, row in enumerate(rows)]
    return svg.picture(width, 36 * len(rows) + 4, label, *drawn)


def _span(row: Span, top: float, left: float, right: float, count: str) -> Markup:
    middle = top + 18
    head = [
        svg.mark(row.verdict.value, 10, middle),
        svg.text(24, middle + 4, row.name, "name"),
        svg.line(left, middle, right, middle, "grid"),
        svg.text(right + 14, middle + 4, words.interval(row.value, row.low, row.high), "value"),
    ]
    scale = _scale([row.value, row.low, row.high, row.limit], left, right)
    title = f"{row.name}: {row.verdict.value}, {words.interval(row.value, row.low, row.high)}"
    return svg.titled(
        f"{title} ({words.counted(row.n, count)})", *head, *_whisker(row, middle, scale, right), class_="row"
    )


def _scale(values: Sequence[float | None], left: float, right: float) -> Callable[[float], float]:
    known = [value for value in values if value is not None and math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    room = (high - low) * 0.18 or abs(high) * 0.1 or 1.0
    low, high = low - room, high + room
    return lambda value: left + (value - low) / (high - low) * (right - left)


def _whisker(row: Span, y: float, scale: Callable[[float], float], right: float) -> Iterator[Markup]:
    if row.limit is not None:
        x = scale(row.limit)
        yield svg.line(x, y - 12, x, y + 12, "limit plain")
        side = "end" if x > right - 60 else "start"
        yield svg.text(x + (-5 if side == "end" else 5), y - 6, words.short(row.limit), "tick", side)
    if row.low is not None and row.high is not None and math.isfinite(row.high - row.low):
        x = scale(row.low)
        yield svg.tag("rect", x=x, y=y - 4, width=scale(row.high) - x, height=8, rx=4, class_=f"reach {row.verdict}")
    if row.value is not None and math.isfinite(row.value):
        yield svg.mark(row.verdict.value, scale(row.value), y, 5)


@dataclass(frozen=True, slots=True)
class Pair:
    """One column, then and now: shares a bin (they sum to 1), the bins' names, what was said of it."""

    name: str
    verdict: Verdict
    bins: Sequence[str]
    reference: Sequence[float]
    window: Sequence[float]
    reference_n: int
    window_n: int
    note: str = ""


def histograms(pairs: Sequence[Pair], width: int = 228, height: int = 132) -> Markup:
    """Small multiples: the reference filled, the window as an outline; one picture a column."""
    return svg.tag("div", *(_histogram(pair, width, height) for pair in pairs), class_="multiples")


def _histogram(pair: Pair, width: int, height: int) -> Markup:
    floor, bins = height - 22.0, max(len(pair.bins), 1)
    step = width / bins
    unit = (floor - 34) / (max([*pair.reference, *pair.window], default=0) or 1.0)
    filled = [
        svg.tag("rect", x=k * step + 0.5, y=floor - share * unit, width=step - 1, height=share * unit, class_="then")
        for k, share in enumerate(pair.reference)
    ]
    outline = [(k * step + dx, floor - share * unit) for k, share in enumerate(pair.window) for dx in (0.0, step)]
    head = [svg.mark(pair.verdict.value, 6, 11), svg.text(18, 15, pair.name, "name")]
    ends = [svg.text(0, height - 6, pair.bins[0], "tick"), svg.text(width, height - 6, pair.bins[-1], "tick", "end")]
    base = svg.line(0, floor, width, floor, "base")
    drawn = [*head, *filled, svg.path(outline, "line candidate"), base, *ends, *_bin_titles(pair, step, floor)]
    return svg.picture(width, height, f"{pair.name}: {pair.note or pair.verdict.value}", *drawn)


def _bin_titles(pair: Pair, step: float, floor: float) -> Iterator[Markup]:
    for k, (name, then, now) in enumerate(zip(pair.bins, pair.reference, pair.window, strict=True)):
        shares = f"reference {words.percent(then)} of {pair.reference_n:,}, window {words.percent(now)}"
        area = svg.tag("rect", x=k * step, y=24, width=step, height=floor - 24, class_="cover")
        yield svg.titled(f"{pair.name} {name}: {shares} of {pair.window_n:,}", area)
