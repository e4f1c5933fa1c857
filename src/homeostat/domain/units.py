"""Durations and shares as people write them: `30m`, `90d`, `1%`. Integers inside: milliseconds, basis points."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
ALL = 10_000
"""The whole traffic, in basis points."""

_UNITS = {"ms": 1, "s": SECOND_MS, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS, "w": 7 * DAY_MS}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")
_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|KB|MB|GB|TB)")
_RANGE = re.compile(r"(\d+)(?:\s*-\s*(\d+))?")
_NAME = re.compile(r"\w[\w .+-]*")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")


def duration_ms(text: object) -> object:
    """`"30m"` → 1,800,000. Anything but text passes through unchanged, for the type check that follows."""
    if not isinstance(text, str):
        return text
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a duration: write a number and a unit, as 30m, 12h or 90d")
    return round(float(match[1]) * _UNITS[match[2]])


def is_duration(text: str) -> bool:
    return _DURATION.fullmatch(text.strip()) is not None


def window_ms(text: object) -> object:
    """A duration, or `"all"` → 0."""
    return 0 if text == "all" else duration_ms(text)


def share_bp(text: object) -> object:
    """`"10%"` → 1,000 basis points; a number between 0 and 1 is a share too."""
    if isinstance(text, float | int) and not isinstance(text, bool) and 0 <= text <= 1:
        return round(text * ALL)
    if not isinstance(text, str):
        return text
    match = _PERCENT.fullmatch(text.strip())
    if not match or float(match[1]) > 100:
        raise ValueError(f"{text!r} is not a share: write a percentage, as 1% or 10%")
    return round(float(match[1]) * 100)


def fraction(text: object) -> object:
    """`"1%"` → .01; a number passes through."""
    return int(str(share_bp(text))) / ALL if isinstance(text, str) else text


def size_bytes(text: object) -> object:
    """`"50GB"` → 50,000,000,000; a number passes through."""
    if not isinstance(text, str):
        return text
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a size: write a number and a unit, as 500MB or 50GB")
    return round(float(match[1]) * _BYTES[match[2]])


def workers(text: object) -> object:
    """`2` → (2, 2), `"1-4"` → (1, 4), `"auto"` → (1, 0): fewest and most, 0 for as many as there are cores."""
    if text == "auto":
        return 1, 0
    match = _RANGE.fullmatch(str(text).strip()) if isinstance(text, str | int) else None
    if match is None:
        return text
    least, most = int(match[1]), int(match[2] or match[1])
    if not 1 <= least <= most:
        raise ValueError(f"{text!r} is not a number of workers: write auto, 2, or 1-4")
    return least, most


def model_name(text: object) -> object:
    """Good in MLflow's registry, in its filters and as a folder."""
    if isinstance(text, str) and not _NAME.fullmatch(text):
        rule = "use letters, digits, spaces and . _ + -, a letter or digit first"
        raise ValueError(f"{text!r} can't be the name of a model: {rule}")
    return text


class Text:
    """Marks a setting that may be written as text. Whoever reads the policy file (config) finds `parse` here;
    the method is the hook by which pydantic asks for it, so that the domain need not import pydantic."""

    def __init__(self, parse: Callable[[object], object]) -> None:
        self.parse = parse

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        inner = {"type": "no-info", "function": self.parse}
        return {"type": "function-before", "function": inner, "schema": handler(source)}


Millis = Annotated[int, Text(duration_ms)]
Window = Annotated[int, Text(window_ms)]
BasisPoints = Annotated[int, Text(share_bp)]
Fraction = Annotated[float, Text(fraction)]
Size = Annotated[int, Text(size_bytes)]
ModelName = Annotated[str, Text(model_name)]
Workers = Annotated[tuple[int, int], Text(workers)]


def show_duration(ms: int) -> str:
    """The largest unit that keeps it exact or close: 90,000 → `1.5 min`, 86,400,000 → `1 d`."""
    for unit, size in (("d", DAY_MS), ("h", HOUR_MS), ("min", MINUTE_MS), ("s", SECOND_MS)):
        if ms >= size:
            return f"{ms / size:,.0f} {unit}" if ms >= 1_000 * size else f"{ms / size:.3g} {unit}"
    return f"{ms} ms"


def show_size(size: int) -> str:
    """50,000,000,000 → `50 GB`."""
    for unit, least in reversed(_BYTES.items()):
        if size >= least:
            return f"{size / least:.3g} {unit}"
    return "0 B"


def show_share(bp: int) -> str:
    """1,000 → `10 %`."""
    return f"{bp / 100:g} %"


def iso(ms: int) -> str:
    """Milliseconds since 1970 as an ISO 8601 time in UTC."""
    return datetime.fromtimestamp(ms / 1_000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
