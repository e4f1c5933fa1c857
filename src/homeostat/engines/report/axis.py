"""Where the ticks of an axis go, and where labels go so that none covers another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from homeostat.domain.units import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from homeostat.engines.report import words


@dataclass(frozen=True, slots=True)
class Tick:
    """`under` is the second line: the day under hours, the year under months; "" where it has not changed."""

    at: float
    text: str
    under: str = ""


def value_ticks(low: float, high: float, about: int = 4) -> list[Tick]:
    """Round values in [low, high], each a multiple of 1, 2, 2.5 or 5 times a power of ten."""
    span = high - low
    power = 10 ** math.floor(math.log10(span / about))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor * about >= span * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    places = max(0, math.isclose(step / power, 2.5) - math.floor(math.log10(step) + 1e-9))
    return [Tick(k * step, _plain(k * step, places)) for k in range(first, last + 1)]


def _plain(value: float, places: int) -> str:
    text = words.bare(f"{abs(value):,.{places}f}")
    return "0" if not float(text.replace(",", "")) else (words.MINUS if value < 0 else "") + text


def log_ticks(low: float, high: float) -> list[Tick]:
    """Powers of ten in [low, high], at most six."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    stride = max(1, math.ceil((last - first + 1) / 6))
    return [Tick(10.0**k, _power(k)) for k in range(first, last + 1, stride)]


def _power(k: int) -> str:
    """Written out while it is short: .01, 100, 10⁶."""
    return words.short(10.0**k) if -4 < k < 5 else "10" + str(k).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


_EVEN = (
    *(SECOND_MS * n for n in (1, 5, 15, 30)),
    *(MINUTE_MS * n for n in (1, 5, 15, 30)),
    *(HOUR_MS * n for n in (1, 3, 6, 12)),
    *(DAY_MS * n for n in (1, 2, 7, 14)),
)
_MONTHS = (1, 3, 6, 12, 24, 60, 120)


def time_ticks(start_ms: int, end_ms: int, about: int = 8) -> list[Tick]:
    """Ticks at whole minutes, hours, days, months or years (UTC), at most `about`."""
    span = end_ms - start_ms
    step = next((step for step in _EVEN if span <= step * about), None)
    times = list(_even(start_ms, end_ms, step) if step else _by_month(start_ms, end_ms, about))
    return list(_worded(times, hours=step is not None and step < DAY_MS, months=step is None))


def _even(start_ms: int, end_ms: int, step: int) -> Iterator[int]:
    first = -(-start_ms // step) * step
    return iter(range(first, end_ms + 1, step))


def _by_month(start_ms: int, end_ms: int, about: int) -> Iterator[int]:
    start, end = words.moment(start_ms), words.moment(end_ms)
    months = (end.year - start.year) * 12 + end.month - start.month + 1
    stride = next((stride for stride in _MONTHS if months <= stride * about), _MONTHS[-1])
    first = (start.year * 12 + start.month - 1) // stride * stride
    for month in range(first, end.year * 12 + end.month, stride):
        at = int(datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC).timestamp() * 1_000)
        if start_ms <= at <= end_ms:
            yield at


def _worded(times: Sequence[int], *, hours: bool, months: bool) -> Iterator[Tick]:
    above = ""
    for at in times:
        when = words.moment(at)
        text = f"{when:%H:%M}" if hours else f"{when:%b}" if months else f"{when.day} {when:%b}"
        under = words.day(at) if hours else str(when.year)
        yield Tick(at, text, under if under != above else "")
        above = under


def pushed_apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """(n,) positions in the order of `wanted`, each as near to it as `gap` between neighbours allows, within
    [low, high] while they fit. Neighbours that are too close are spread about their common middle."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    groups: list[tuple[list[int], float]] = []
    for i in order:
        members, middle = [i], wanted[i]
        while groups and middle - _half(members, gap) < groups[-1][1] + _half(groups[-1][0], gap) + gap:
            before, _ = groups.pop()
            members = before + members
            middle = _middle([wanted[m] for m in members], _half(members, gap), low, high)
        groups.append((members, _middle([middle], _half(members, gap), low, high)))
    placed = {m: middle - _half(members, gap) + k * gap for members, middle in groups for k, m in enumerate(members)}
    return [placed[i] for i in range(len(wanted))]


def _half(members: Sequence[int], gap: float) -> float:
    return (len(members) - 1) * gap / 2


def _middle(wanted: Sequence[float], half: float, low: float, high: float) -> float:
    return max(low + half, min(high - half, sum(wanted) / len(wanted)))


def in_rows(spans: Sequence[tuple[float, float]], rows: int) -> list[int | None]:
    """For each span (left, right), in order of importance, the first row where it covers no other; None: none."""
    taken: list[list[tuple[float, float]]] = [[] for _ in range(rows)]
    result: list[int | None] = []
    for left, right in spans:
        free = (k for k, row in enumerate(taken) if all(right <= a or b <= left for a, b in row))
        row = next(free, None)
        if row is not None:
            taken[row].append((left, right))
        result.append(row)
    return result
