"""What became of predictions, by id: labels and named signals, late, repeated or corrected."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec

from homeostat.domain.feedback import EXPLORE, RULES, UNNAMED, FeedbackPolicy
from homeostat.domain.prediction import LabelBatch, SignalBatch
from homeostat.domain.schema import Schema
from homeostat.domain.units import DAY_MS
from homeostat.engines.labels import named
from homeostat.serving.messages import Refusal
from homeostat.serving.typed import LONGEST_ID, Int64

_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_ID)] | Int64

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]

_Ms = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]  # the year 9999


class Given(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    id: _Id
    label: str | int | float | bool
    at: _Ms | datetime | None = None
    source: _Name | None = None


class Signal(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A number that a caller measured: conversion (true or false is 1 or 0), thumbs (up or down), amount, rating; or
    the event that something happened (1). Of a prediction, or of an entity."""

    name: _Name
    id: _Id | None = None
    key: _Id | None = None
    value: float | bool | Literal["up", "down"] = True
    at: _Ms | datetime | None = None


class Body(msgspec.Struct, forbid_unknown_fields=True):
    labels: Annotated[list[Given], msgspec.Meta(min_length=1)] = []
    signals: Annotated[list[Signal], msgspec.Meta(min_length=1)] = []
    model: str | None = None


SIGNALS = "signals."
"""How the name of a wrong field begins where it is a signal's."""
_PLACE = re.compile(r"\$\.(labels|signals)\[(\d+)\](?:\.(\w+))?")

_FORMS = {
    "value": "a value is a number, true or false, up or down",
    "at": "a time is a date-time, as 2026-01-31T14:30:00, or milliseconds since 1970",
}

_decode = msgspec.json.Decoder(Body).decode


def parse(body: bytes) -> Body:
    """Errors: `Refusal`, 400 when it is not JSON, 422 when it has another form."""
    try:
        parsed = _decode(body)
    except msgspec.ValidationError as error:
        raise _misshapen(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refusal(400, "the body is not JSON", rule="json") from None
    if not (parsed.labels or parsed.signals):
        raise Refusal(422, "send labels or signals", rule="not empty", name="labels")
    return parsed


def _misshapen(message: str) -> Refusal:
    """With the place that msgspec names, as `$.signals[3].id`."""
    place = _PLACE.search(message)
    record, name = (int(place[2]), place[3] or "") if place else (None, "")
    prefix = SIGNALS if place and place[1] == "signals" else ""
    text = _FORMS.get(name) or f"not feedback: {message}"
    return Refusal(422, text, rule="form", name=prefix + name, record=record)


def batch(schema: Schema, policy: FeedbackPolicy, labels: Sequence[Given], now_ms: int) -> LabelBatch:
    """All of them or none. Errors: `Refusal` that names the first wrong one."""
    texts, sources = [], []
    for record, given in enumerate(labels):
        try:
            texts.append(named(schema, given.label))
        except (ValueError, OverflowError) as error:
            raise Refusal(422, str(error), rule="label", name="label", record=record) from None
        sources.append(given.source or UNNAMED)
        if given.source == RULES or not policy.takes(sources[-1]):
            raise Refusal(422, _sources(policy, sources[-1]), rule="source", name="source", record=record)
    return LabelBatch([str(one.id) for one in labels], texts, _times(labels, now_ms), sources)


def _sources(policy: FeedbackPolicy, source: str) -> str:
    if source == RULES:
        return f"{RULES!r} is the source of the labels that feedback.rules make: name another"
    known = ", ".join(name for name in policy.sources if name != RULES)
    wrong = f"{source!r} is no source of labels" if source else "a label must name its source"
    return f"{wrong}; feedback.sources has: {known}"


def signal_batch(policy: FeedbackPolicy, signals: Sequence[Signal], now_ms: int) -> SignalBatch:
    """All of them or none. Errors: as `batch`."""
    for record, one in enumerate(signals):
        if one.name == EXPLORE:
            raise Refusal(422, f"{EXPLORE} is the data plane's own", rule="name", name=SIGNALS + "name", record=record)
        if (one.id is None) == (one.key is None):
            raise Refusal(422, "a signal has an id or a key", rule="id", name=SIGNALS + "id", record=record)
        low, high = policy.signals.get(one.name, (-math.inf, math.inf))
        if not low <= _number(one.value) <= high:
            text = f"{one.name} must be from {low:g} to {high:g}"
            raise Refusal(422, text, rule="bounds", name=SIGNALS + "value", record=record)
    return SignalBatch(
        ["" if one.id is None else str(one.id) for one in signals],
        [one.name for one in signals],
        [_number(one.value) for one in signals],
        _times(signals, now_ms, SIGNALS),
        [None if one.key is None else str(one.key) for one in signals],
    )


def _times(told: Sequence[Given | Signal], now_ms: int, prefix: str = "") -> list[int]:
    """(n,) when each was known. Of one source the last counts: one of next year would never be corrected. Clocks may
    differ, by a day. Errors: `Refusal`."""
    times = [_ms(one.at, now_ms) for one in told]
    for record, at in enumerate(times):
        if at > now_ms + DAY_MS:
            text = "at lies in the future: a date-time, or milliseconds since 1970"
            raise Refusal(422, text, rule="time", name=prefix + "at", record=record)
    return times


def _number(value: float | bool | str) -> float:
    return float(value == "up") if isinstance(value, str) else float(value)


def _ms(at: int | datetime | None, now_ms: int) -> int:
    """A date-time without a zone is UTC."""
    if isinstance(at, datetime):
        return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1_000)
    return now_ms if at is None else at
