"""Scenarios: disturbances laid over a history, each a pure function over its rows and labels.

A history that is rehearsed on has two more columns: the label as it is told (the target is the truth, and what is
measured against) and when it is told. A new kind is one function and one row of `KINDS`.
"""

from __future__ import annotations

import difflib
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.dataset import ENTITY, EVENT_MS
from homeostat.domain.errors import UsageError
from homeostat.domain.scenario import Injection
from homeostat.domain.units import ALL, duration_ms, iso, share_bp

TOLD = "__told"
"""The label as it is told, of the target's type."""
DUE_MS = "__due_ms"
"""When it is told: milliseconds since 1970."""
NEVER_MS = 2**62
BROKEN_RELEASE = "broken-release"

_SD = re.compile(r"([+-]\d+(?:\.\d+)?)sd")
_MONTH = re.compile(r"\d{4}-\d{2}")


@dataclass(frozen=True, slots=True)
class Frame:
    """The rows of a history, sorted by event time. `target` names the truth; `chance` draws for one injection."""

    rows: pl.DataFrame
    target: str
    chance: np.random.Generator

    def within(self, one: Injection) -> NDArray[np.bool_]:
        """(n,) the rows that happen while it is in force."""
        at_ms = self.rows[EVENT_MS].to_numpy()
        return (at_ms >= one.from_ms) & (at_ms < (NEVER_MS if one.until_ms is None else one.until_ms))

    def strength(self, one: Injection) -> NDArray[np.float64]:
        """(n,) 0 where it is not in force, growing to 1 over `over_ms`, else 1."""
        grown = (self.rows[EVENT_MS].to_numpy() - one.from_ms) / max(1, one.over_ms)
        return np.where(self.within(one), np.clip(grown, 0, 1) if one.over_ms else 1.0, 0.0)

    def put(self, name: str, values: pl.Series, where: NDArray[np.bool_]) -> pl.DataFrame:
        """The rows with other values (of any type that casts) in one column."""
        old = self.rows[name]
        return self.rows.with_columns(values.cast(old.dtype).zip_with(pl.Series(where), old).alias(name))


Change = Callable[[Frame, Injection], pl.DataFrame]


@dataclass(frozen=True, slots=True)
class Kind:
    """`takes`: what stands between its name and the @, by the names of `PARTS`; `when`: what stands after it."""

    takes: tuple[str, ...]
    when: Literal["WHEN", "WHEN..UNTIL", "WHEN[..UNTIL]", "[WHEN[..UNTIL]]"]
    change: Change
    says: str


def _drift(frame: Frame, one: Injection) -> pl.DataFrame:
    """Standard deviations of the rows before; values stay within the range of the history, so that a request is not
    refused for them."""
    column = frame.rows[one.field]
    before = column.filter(frame.rows[EVENT_MS] < one.from_ms).cast(pl.Float64)
    moved = column.cast(pl.Float64) + one.amount * float(np.std(before.drop_nulls().to_numpy())) * pl.Series(
        frame.strength(one)
    )
    low, high = float(str(column.min())), float(str(column.max()))
    moved = moved.clip(low, high)
    return frame.put(one.field, moved.round() if column.dtype.is_integer() else moved, frame.within(one))


def _concept(frame: Frame, one: Injection) -> pl.DataFrame:
    """What the highest values of a field say about the target turns round; while it grows, for more and more rows."""
    values = frame.rows[one.field].cast(pl.Float64)
    rank = (values.rank("ordinal") / max(1, values.count())).fill_null(0).to_numpy()
    turned = (rank > 1 - one.amount) & (frame.chance.random(len(rank)) < frame.strength(one))
    truth = mirrored(frame.rows[frame.target])
    told = replace(frame, rows=frame.put(frame.target, truth, turned))
    return told.put(TOLD, truth, turned)


def mirrored(target: pl.Series) -> pl.Series:
    """(n,) the lowest value becomes the highest, the first class the last; what lies in the middle stays."""
    if target.dtype.is_float():
        known = target.sort()
        return known.gather(len(known) - 1 - known.search_sorted(target, "left"))
    classes = target.unique().sort()
    return target.replace_strict(classes, classes.reverse(), return_dtype=target.dtype)


def _missing(frame: Frame, one: Injection) -> pl.DataFrame:
    gone = frame.within(one) & (frame.chance.random(len(frame.rows)) < one.amount)
    column = frame.rows[one.field]
    return frame.put(one.field, pl.Series([None] * len(column), dtype=column.dtype), gone)


def _zero(_: pl.Series, column: pl.Series) -> pl.Series:
    return pl.Series([0] * len(column))


def _stuck(before: pl.Series, column: pl.Series) -> pl.Series:
    last = before.drop_nulls().tail(1).to_list() or [None]
    return pl.Series(last * len(column), dtype=column.dtype)


def _hundredfold(_: pl.Series, column: pl.Series) -> pl.Series:
    return column * 100


MODES: Mapping[str, Callable[[pl.Series, pl.Series], pl.Series]] = {
    "zero": _zero,
    "stuck": _stuck,
    "x100": _hundredfold,
}
"""How a column breaks: (its values before, all its values) → what it holds while it is broken."""


def _broken(frame: Frame, one: Injection) -> pl.DataFrame:
    column = frame.rows[one.field]
    before = column.filter(frame.rows[EVENT_MS] < one.from_ms)
    return frame.put(one.field, MODES[one.mode](before, column), frame.within(one))


def _label_delay(frame: Frame, one: Injection) -> pl.DataFrame:
    return frame.put(DUE_MS, frame.rows[DUE_MS] + int(one.amount), frame.within(one))


def _label_outage(frame: Frame, one: Injection) -> pl.DataFrame:
    """Labels that are due meanwhile come all together at its end."""
    end = NEVER_MS if one.until_ms is None else one.until_ms
    due = frame.rows[DUE_MS].to_numpy()
    return frame.put(DUE_MS, pl.Series([end] * len(due)), (due >= one.from_ms) & (due < end))


def _poison(frame: Frame, one: Injection) -> pl.DataFrame:
    wrong = frame.within(one) & (frame.chance.random(len(frame.rows)) < one.amount)
    return frame.put(TOLD, mirrored(frame.rows[frame.target]), wrong)


def _outage(frame: Frame, one: Injection) -> pl.DataFrame:
    return frame.rows.filter(pl.Series(~frame.within(one)))


def _nothing(frame: Frame, _: Injection) -> pl.DataFrame:
    """The rows stay as they are: the rehearsal itself releases the version."""
    return frame.rows


KINDS: Mapping[str, Kind] = {
    "drift": Kind(("number", "sd", "over"), "WHEN[..UNTIL]", _drift, "a number moves; the truth stays"),
    "concept": Kind(
        ("number", "share", "over"), "WHEN[..UNTIL]", _concept, "what a field's highest values mean turns round"
    ),
    "missing": Kind(("field", "share"), "WHEN[..UNTIL]", _missing, "values are missing"),
    "broken": Kind(("field", "mode"), "WHEN[..UNTIL]", _broken, "a column breaks upstream"),
    "label-delay": Kind(("delay",), "[WHEN[..UNTIL]]", _label_delay, "labels come so much later"),
    "label-outage": Kind((), "WHEN[..UNTIL]", _label_outage, "no labels; those due meanwhile come at its end"),
    "poison": Kind(("share",), "WHEN[..UNTIL]", _poison, "labels are told wrong"),
    BROKEN_RELEASE: Kind((), "WHEN", _nothing, "a version that learned turned labels is released"),
    "outage": Kind((), "WHEN..UNTIL", _outage, "no traffic"),
}

PARTS = {
    "field": "FIELD",
    "number": "FIELD",
    "sd": "+0.5sd",
    "share": "30%",
    "mode": "|".join(MODES),
    "delay": "14d",
    "over": "[:OVER]",
}
"""How each part is written."""


def form(name: str) -> str:
    """`drift:FIELD:+0.5sd[:OVER]@WHEN[..UNTIL]`."""
    kind = KINDS[name]
    parts = "".join(PARTS[one] if one == "over" else f":{PARTS[one]}" for one in kind.takes)
    when = f"[@{kind.when[1:-1]}]" if kind.when.startswith("[") else f"@{kind.when}"
    return f"{name}{parts}{when}"


def read(texts: Iterable[str], rows: pl.DataFrame, target: str, start_ms: int, end_ms: int) -> tuple[Injection, ...]:
    """What `--inject` says, for rows that are streamed in [start_ms, end_ms). A text may hold several, with commas
    between. Errors: `UsageError` that names the nearest known kind or field and the form."""
    single = [one.strip() for text in texts for one in text.split(",") if one.strip()]
    fields = {name: rows.schema[name] for name in rows.columns if name not in (target, EVENT_MS, ENTITY)}
    return tuple(_one(text, fields, start_ms, end_ms) for text in single)


def _one(text: str, fields: Mapping[str, Any], start_ms: int, end_ms: int) -> Injection:
    head, at, when = text.partition("@")
    name, *parts = head.split(":")
    if name not in KINDS:
        raise UsageError(f"{name!r} is no kind of injection{_near(name, KINDS)}", where=_in(text), way_out=_forms())
    takes = KINDS[name].takes
    if len(parts) not in (len(takes), len(takes) - ("over" in takes)):
        raise _wrong(text, name, f"{name} takes other parts")
    made = Injection(text, name, start_ms)
    for kind, part in zip(takes, parts, strict=False):
        made = replace(made, **_part(kind, part, made, fields))
    if made.mode in ("zero", "x100") and not fields[made.field].is_numeric():
        raise _wrong(text, name, f"{made.field!r} is no number: it can only be stuck")
    return _timed(made, when if at else None, start_ms, end_ms)


def _part(kind: str, part: str, made: Injection, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What one part says, as attributes of the injection."""
    if kind in ("field", "number"):
        return {"field": _field(part, made.text, fields, kind == "number")}
    if kind == "mode" and part not in MODES:
        raise _wrong(made.text, made.kind, f"{part!r} is no way to break{_near(part, MODES)}")
    if kind == "mode":
        return {"mode": part}
    try:
        if kind == "sd":
            return {"amount": _sd(part)}
        if kind == "share":
            return {"amount": int(str(share_bp(part))) / ALL}
        return {"amount" if kind == "delay" else "over_ms": int(str(duration_ms(part)))}
    except ValueError as error:
        raise _wrong(made.text, made.kind, str(error)) from None


def _sd(text: str) -> float:
    match = _SD.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no shift: write +0.5sd or -1sd")
    return float(match[1])


def _field(part: str, text: str, fields: Mapping[str, Any], number: bool) -> str:
    if part not in fields:
        known = f"Inputs: {', '.join(fields)}."
        raise UsageError(f"{part!r} is no input{_near(part, fields)}", where=_in(text), way_out=known)
    if number and not (fields[part].is_numeric() or fields[part] == pl.Boolean):
        numbers = [name for name, kind in fields.items() if kind.is_numeric()]
        raise UsageError(f"{part!r} is no number", where=_in(text), way_out=f"Numbers: {', '.join(numbers)}.")
    return part


def _timed(made: Injection, when: str | None, start_ms: int, end_ms: int) -> Injection:
    form_of = KINDS[made.kind].when
    if when is None:
        if form_of.startswith("["):
            return made
        raise _wrong(made.text, made.kind, "when is missing")
    first, dots, last = when.partition("..")
    if (dots and form_of == "WHEN") or (not dots and form_of == "WHEN..UNTIL"):
        raise _wrong(made.text, made.kind, "it has no end" if dots else "its end is missing")
    from_ms, until_ms = _time(first, made), _time(last, made) if dots else None
    if until_ms is not None and until_ms <= from_ms:
        raise _wrong(made.text, made.kind, "it ends before it begins")
    if not start_ms <= from_ms < end_ms:
        raise UsageError(
            f"{iso(from_ms)} is not rehearsed",
            where=_in(made.text),
            way_out=f"Choose a time from {iso(start_ms)} on, before {iso(end_ms)}.",
        )
    return replace(made, from_ms=from_ms, until_ms=until_ms)


def _time(text: str, made: Injection) -> int:
    """A month, a date or a date-time; UTC where it names no zone."""
    try:
        at = datetime.fromisoformat(f"{text}-01" if _MONTH.fullmatch(text) else text)
    except ValueError:
        why = f"{text!r} is no time: write 2026-01, 2026-01-31 or 2026-01-31T14:30"
        raise _wrong(made.text, made.kind, why) from None
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1_000)


def _wrong(text: str, name: str, why: str) -> UsageError:
    return UsageError(why, where=_in(text), way_out=f"Write {form(name)}")


def _in(text: str) -> str:
    return f"--inject {text}"


def _near(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(known), 1, 0.5)
    return f": did you mean {found[0]!r}?" if found else ""


def _forms() -> str:
    return "Known: " + ", ".join(map(form, KINDS)) + "."


def told(history: pl.DataFrame, target: str, label_horizon_ms: int) -> pl.DataFrame:
    """A history as it was: every label is told, as it is, when its horizon is over."""
    return history.with_columns(pl.col(target).alias(TOLD), (pl.col(EVENT_MS) + label_horizon_ms).alias(DUE_MS))


def apply(history: pl.DataFrame, injections: Sequence[Injection], target: str, seed: int = 0) -> pl.DataFrame:
    """The history with each of them laid over it, in their order. `seed` and its text decide what chance does in
    one: the others change nothing about it."""
    for one in injections:
        chance = np.random.default_rng([seed, zlib.crc32(one.text.encode())])
        history = KINDS[one.kind].change(Frame(history, target, chance), one)
    return history


def misled(known: pl.DataFrame, target: str) -> pl.DataFrame:
    """What the broken version learns from: labels that say the opposite."""
    return known.with_columns(mirrored(known[target]))
