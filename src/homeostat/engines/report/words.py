"""Numbers as people read them: three significant digits, units, counts. One place for page and terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

from homeostat.domain.gate import Measurement, Verdict
from homeostat.domain.units import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS

CHALLENGER = "a challenger trained in the background"
UNMEASURED = "not measured"
MINUS = "\N{MINUS SIGN}"
SPACE = "\N{NO-BREAK SPACE}"

MARKS = {Verdict.OK: "●", Verdict.HARM: "▲", Verdict.UNKNOWN: "○", Verdict.INVALID: "✕"}
"""The shape of each verdict, so that colour is never the only sign."""

NAMES = {
    "roc_auc": "ROC AUC",
    "log_loss": "log loss",
    "brier": "Brier score",
    "ece": "calibration error",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R²",
}


def metric(name: str) -> str:
    """`roc_auc` → `ROC AUC`: the field's own spelling; a name that has none stays as it is."""
    return " ".join(NAMES.get(part, part.replace("_", " ")) for part in name.split(" "))


def number(value: float | None) -> str:
    """Three significant digits, no leading zero: .842, 75.9, 1,185, 1.2e-07. None and NaN are not measured."""
    if value is None or math.isnan(value):
        return UNMEASURED
    if math.isinf(value):
        return (MINUS if value < 0 else "") + "∞"
    size = float(f"{abs(value):.3g}") if abs(value) < 1_000 else abs(value)
    if size >= 1_000:
        text = f"{size:,.0f}" if size < 1e9 else f"{size:.3g}"
    elif size == 0 or size < 1e-4:
        text = f"{size:.3g}"
    else:
        text = bare(f"{size:.{max(0, 2 - math.floor(math.log10(size)))}f}")
    return (MINUS if value < 0 and text != "0" else "") + text


def bare(text: str) -> str:
    """Without the leading zero: `0.842` → `.842`."""
    return text[1:] if text.startswith("0.") else text


def short(value: float) -> str:
    """A round number without the zeros that say nothing: 100, 50, .8."""
    text = number(value)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def percent(share: float) -> str:
    """`.9` → `90 %`, `.0123` → `1.23 %`."""
    return f"{share * 100:.3g}{SPACE}%"


def span(low: float, high: float) -> str:
    """`.836 to .848`."""
    known = math.isfinite(low) and math.isfinite(high)
    return f"{number(low)} to {number(high)}" if known else UNMEASURED


def interval(value: float | None, low: float | None, high: float | None) -> str:
    """`.842 [.836, .848]`; only the value where there is no interval."""
    if low is None or high is None or value is None or math.isnan(low) or math.isnan(high):
        return number(value)
    return f"{number(value)} [{number(low)}, {number(high)}]"


def measured(measurement: Measurement) -> str:
    """`ROC AUC .842 [.836, .848], 1,185 rows`."""
    span = interval(measurement.value, measurement.low, measurement.high)
    return f"{metric(measurement.metric)} {span}, {counted(measurement.n, 'row')}"


def counted(n: int, noun: str, plural: str = "") -> str:
    """`1 training`, `31 trainings`, `1,185 labels`."""
    return f"{n:,}{SPACE}{noun if n == 1 else plural or noun + 's'}"


def duration(ms: int) -> str:
    """The largest unit that fits, three digits at most: `17 min`, `2.4 h`, `90 d`, `2.52 years`."""
    units = (("years", 365 * DAY_MS), ("d", DAY_MS), ("h", HOUR_MS), ("min", MINUTE_MS), ("s", SECOND_MS))
    for unit, size in units:
        if ms >= size:
            return f"{ms / size:.3g}{SPACE}{'year' if ms == size and unit == 'years' else unit}"
    return f"{ms}{SPACE}ms"


def moment(ms: int) -> datetime:
    """Milliseconds since 1970 as a UTC time."""
    return datetime.fromtimestamp(ms / 1_000, UTC)


def day(ms: int) -> str:
    """`7 May 1996`, UTC."""
    at = moment(ms)
    return f"{at.day} {at:%b %Y}"


def time(ms: int) -> str:
    """`7 May 1996 14:00`, UTC."""
    return f"{day(ms)} {moment(ms):%H:%M}"


def listed(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(part for part in (", ".join(parts[:-1]), *parts[-1:]) if part)


def verdict(value: Verdict) -> str:
    """`● ok`: the mark and the word."""
    return f"{MARKS[value]} {value.value}"
