"""Which label counts, and how the sources of labels stand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import polars as pl

from homeostat.domain.event import Event
from homeostat.domain.feedback import EXPLORE, EventStanding, Hold, SourceStanding

NEVER = 2**62


def settle(received: pl.DataFrame, trust: Mapping[str, float]) -> pl.DataFrame:
    """One row an id, from `LabelLog.received`: what the most trusted source says; of equal trust, and of one source,
    the last by the sender's time. A source that is not named has trust 1."""
    ranked, last = received.sort("at_ms", maintain_order=True), pl.col("id").is_last_distinct()
    if set(trust.values()) <= {1.0}:
        return ranked.filter(last)
    trusted = pl.col("source").replace_strict(dict(trust), default=1.0, return_dtype=pl.Float64)
    kept = ranked.with_columns(trusted.alias("__trust")).sort("__trust", maintain_order=True).filter(last)
    return kept.drop("__trust").sort("at_ms", maintain_order=True)


def held(holds: Sequence[Hold]) -> pl.Expr:
    """Whether a label is held back."""
    source, at = pl.col("source"), pl.col("at_ms")
    each = [
        (source == one.source) & (at >= one.from_ms) & (True if one.until_ms is None else at < one.until_ms)
        for one in holds
    ]
    return pl.any_horizontal(*each) if each else pl.lit(False)


def explored(signals: pl.DataFrame) -> pl.Expr:
    """Whether a row is of a prediction in the exploration slice. `signals`: of `LabelLog.signals`."""
    return pl.col("id").is_in(signals.filter(pl.col("name") == EXPLORE)["id"].implode())


SUSPECTED, CLEARED, ACCEPTED, REJECTED = (f"feedback.{one}" for one in ("suspected", "cleared", "accepted", "rejected"))
"""Kinds of events about a source; their bodies have `source`, `from_ms`, `until_ms`, `reason` and `held`."""


def suspicions(told: Iterable[Event]) -> tuple[Hold, ...]:
    """What is suspicious after these events, in order. Who accepts labels from a time on takes away what was suspicious
    since; who rejects them confirms it, or begins it."""
    found: list[Hold] = []
    for event in told:
        source, at = str(event.body["source"]), int(event.body["from_ms"])
        mine = [one for one in found if one.source == source]
        others = [one for one in found if one.source != source]
        if event.kind == SUSPECTED:
            mine.append(Hold(source, at, None, event.body["reason"], bool(event.body["held"])))
        elif event.kind == CLEARED:
            until = int(event.body["until_ms"])
            mine = [replace(one, until_ms=until) if one.from_ms == at and one.until_ms is None else one for one in mine]
        elif event.kind == ACCEPTED:
            before = [one for one in mine if one.from_ms < at]
            mine = [replace(one, until_ms=at) if one.until_ms is None or one.until_ms > at else one for one in before]
        elif any(one.meets(at, NEVER) for one in mine):
            mine = [replace(one, held=True, rejected=True) if one.meets(at, NEVER) else one for one in mine]
        else:
            mine.append(Hold(source, at, None, event.body["reason"], rejected=True))
        found = [*others, *mine]
    return tuple(sorted(found, key=lambda one: (one.source, one.from_ms)))


def sources(
    received: pl.DataFrame,
    answered: pl.DataFrame,
    trust: Mapping[str, float],
    holds: Sequence[Hold],
    horizon_ms: int,
) -> tuple[SourceStanding, ...]:
    """How each source stands, by name. `received`: of `LabelLog.received`; `answered`: `id` and `at_ms` of the
    predictions in the log."""
    received = received.unique(maintain_order=True)  # what was sent twice and not compacted yet
    given = received.join(answered.select("id", asked_ms="at_ms"), on="id", how="left", maintain_order="left")
    last = given.unique(["id", "source"], keep="last", maintain_order=True)
    holds = [one for one in holds if one.held]
    counts = settle(received.filter(~held(holds)), trust)
    pairs = last.join(last.select("id", other="source", said="label"), on="id").filter(
        pl.col("source") != pl.col("other")
    )
    made = []
    for name in sorted({*received["source"], *trust}):
        mine, own = given.filter(pl.col("source") == name), last.filter(pl.col("source") == name)
        both = pairs.filter(pl.col("source") == name)
        before = pl.col("label").shift(1).over("id")
        changed, same = mine.select(
            changed=(before != pl.col("label")).sum(), same=(before == pl.col("label")).sum()
        ).row(0)
        counted = own.join(counts.filter(pl.col("source") == name), on="id", how="semi")
        made.append(
            SourceStanding(
                source=name,
                trust=trust.get(name, 1.0),
                labels=mine.height,
                ids=own.height,
                corrected=changed,
                repeated=same,
                late=mine.filter(pl.col("at_ms") > pl.col("asked_ms") + horizon_ms)["id"].n_unique(),
                unknown=own["asked_ms"].null_count(),
                shared=both["id"].n_unique(),
                agreed=both.filter(pl.col("label") == pl.col("said"))["id"].n_unique(),
                overruled=own.join(counts, on="id", how="semi").height - counted.height,
                held=mine.filter(held(holds)).height,
            )
        )
    return tuple(made)


def events(received: pl.DataFrame, answered: pl.DataFrame) -> tuple[EventStanding, ...]:
    """How many signals there are of each name, from `LabelLog.events`."""
    received = received.unique(maintain_order=True)  # a file may be sent again
    keyed = pl.col("id") == ""
    known = pl.col("id").is_in(answered["id"].implode())
    told = received.group_by("name").agg(pl.len(), keyed.sum().alias("keyed"), (~keyed & ~known).sum().alias("unknown"))
    return tuple(EventStanding(*row) for row in told.sort("name").iter_rows())
