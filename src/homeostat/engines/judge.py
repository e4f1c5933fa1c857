"""Every lane at once, pass after pass: what is new is looked at, and what it touches.

What is kept can be made from the log at any time, and says the same as judging all rows at once, to the last bit: rows
are digested once, and digests add up; pairs are made anew for the ids of which a row or a label is new, changed or
gone. What old rows still cost in a pass is a few scans of numbers.

Ids and entities are known by hashes of 64 bits: among ten million, two share one with a chance of 3 in a million, and
one caller is miscounted in the sample ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from homeostat.domain.prediction import SETTLED_MS
from homeostat.engines import lanes
from homeostat.engines.lanes import Case, Findings

_CHUNKS = 64  # a frame of more parts is laid out afresh


@dataclass(frozen=True, slots=True)
class _Digest:
    """Of rows in order of time. `ids`: each row's; `odd`: those with a bad answer, or one that is none; `answers` while
    both arms answered, and how each entity first `met` one; the `calls` behind them; the candidate's `first` rows."""

    ids: pl.DataFrame
    odd: pl.DataFrame
    answers: pl.DataFrame
    met: pl.DataFrame
    calls: pl.DataFrame
    first: pl.DataFrame

    @classmethod
    def of(cls, case: Case, log: pl.DataFrame) -> _Digest:
        rows = lanes.compared(case, log)
        answers = lanes.split(rows)
        return cls(
            log.select(pl.col("id").hash()),
            rows.filter(lanes.odd(case)).select(pl.col("id").hash()),
            answers,
            lanes.met(answers),
            lanes.summed(lanes.calls(rows, case.slow_us)),
            lanes.first_rows(rows.filter("candidate").select("id", "role", "bad")),
        )

    def plus(self, case: Case, log: pl.DataFrame) -> _Digest:
        """With the rows after them."""
        if log.is_empty():
            return self
        later = _Digest.of(case, log)
        anew = later.met.filter(~_among(later.met["entity"], _those(self.met["entity"], later.met["entity"])))
        return _Digest(
            grown(self.ids, later.ids),
            grown(self.odd, later.odd),
            grown(self.answers, later.answers),
            grown(self.met, anew),
            lanes.summed(grown(self.calls, later.calls)),
            lanes.first_rows(grown(self.first, later.first)),
        )


@dataclass(frozen=True, slots=True)
class _Told:
    """The labels that count, with hashes: of their ids, and of what they say of them."""

    labels: pl.DataFrame
    ids: pl.Series
    said: pl.Series

    @classmethod
    def of(cls, labels: pl.DataFrame) -> _Told:
        ids = labels["id"].hash()
        return cls(labels, ids, labels.select(ids ^ pl.col("label").hash(1)).to_series())

    def otherwise(self, before: _Told) -> Sequence[pl.Series]:
        """The ids of which something else was told before. Most of what is told is what was told, in its place."""
        here, there = self.said.to_numpy(), before.said.to_numpy()
        n = min(len(here), len(there))
        apart = here[:n] != there[:n]
        start = int(np.argmax(apart)) if apart.any() else n
        (ids, said), (old_ids, old) = ((one.ids.slice(start), one.said.slice(start)) for one in (self, before))
        return ids.filter(~_among(said, old)), old_ids.filter(~_among(old, said))


@dataclass(frozen=True, slots=True)
class _Known:
    """After a pass. `settled`: of the rows that can't change any more; `ends`: the first and the last of them. Of all
    rows: the `pairs`, with the `at_ms` of each, and how each entity first `met` an arm among the labelled answers."""

    case: Case
    settled: _Digest
    ends: list[tuple[object, ...]]
    told: _Told
    pairs: pl.DataFrame
    met: pl.DataFrame

    @property
    def n(self) -> int:
        return self.settled.ids.height

    @classmethod
    def nothing(cls, case: Case, log: pl.DataFrame, labels: pl.DataFrame) -> _Known:
        log, labels = log.clear(), labels.clear()
        digest = _Digest.of(case, log)
        return cls(case, digest, [], _Told.of(labels), _pairs(case, lanes.compared(case, log), labels), digest.met)


class Judge:
    """Of a log that grows: rows that are `SETTLED_MS` old stay, in their places."""

    def __init__(self) -> None:
        self._known: _Known | None = None

    def judge(self, case: Case, log: pl.DataFrame, labels: pl.DataFrame) -> Findings:
        """Another case, or another log, is begun anew."""
        fixed, known = replace(case, weight=0, now_ms=0, margin=0.0), self._known
        if known is None or known.case != fixed or known.ends != _ends(log, known.n):
            known = _Known.nothing(fixed, log, labels)
        fresh, told = log.slice(known.n), _Told.of(labels)
        old = _older(fresh, case.now_ms - SETTLED_MS)
        settled = known.settled.plus(case, fresh.head(old))
        seen = settled.plus(case, fresh.slice(old))
        touched = pl.concat([fresh["id"].hash(), *told.otherwise(known.told)]).unique()
        asked = pl.concat([touched, seen.odd["id"]])
        rows = lanes.compared(case, log.filter(_among(seen.ids["id"], asked)))
        again = _pairs(case, rows, labels.filter(_among(told.ids, touched)))
        pairs = grown(known.pairs.filter(~_among(known.pairs["id"], touched)), again)
        met = _met(known.met, seen.answers, told, touched)
        self._known = _Known(fixed, settled, _ends(log, settled.ids.height), told, pairs, met)
        return _findings(case, rows, seen, pairs, lanes.uneven(met))


def judge(case: Case, log: pl.DataFrame, labels: pl.DataFrame) -> Findings:
    """Every lane at once, of a whole log."""
    return Judge().judge(case, log, labels)


def _findings(case: Case, rows: pl.DataFrame, seen: _Digest, pairs: pl.DataFrame, uneven: str) -> Findings:
    """`rows`: all of the odd ids, among others."""
    pairs = pairs.with_columns(mature=pl.col("at_ms") + case.horizon_ms <= case.now_ms)
    found = [lanes.errors(rows, case.bound), lanes.sample_ratio(seen.met), lanes.quality(case, pairs, uneven)]
    if case.slow_us:
        found.insert(1, lanes.slow(seen.calls, case.slow_us, case.bound))
    if case.segments:
        found.append(lanes.segments(case, pairs, uneven))
    return Findings(tuple(found), lanes.hard_stop(case, rows, seen.first), int(pairs["mature"].sum()))


def _pairs(case: Case, rows: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """Of these labels."""
    pairs = lanes.paired(case, rows, labels)
    pairs = lanes.with_inputs(pairs, rows) if case.segments else pairs
    return pairs.with_columns(pl.col("id").hash()).drop("mature")


def _met(before: pl.DataFrame, answers: pl.DataFrame, told: _Told, touched: pl.Series) -> pl.DataFrame:
    """How each entity first met an arm among the labelled answers: anew for those of the ids touched."""
    if answers.is_empty():
        return answers.drop("id")
    entities = answers["entity"].filter(_among(answers["id"], touched)).unique()
    theirs = answers.filter(_among(answers["entity"], entities))
    theirs = theirs.filter(_among(theirs["id"], _those(told.ids, theirs["id"])))
    return grown(before.filter(~_among(before["entity"], entities)), lanes.met(theirs))


def _among(values: pl.Series, some: pl.Series) -> pl.Series:
    """(n,) bool. Quick where `some` are few."""
    return values.is_in(some.implode())


def _those(many: pl.Series, few: pl.Series) -> pl.Series:
    return many.filter(_among(many, few))


def _older(rows: pl.DataFrame, than_ms: int) -> int:
    """How many of the first rows."""
    young = rows["at_ms"].to_numpy() >= than_ms
    return int(np.argmax(young)) if young.any() else len(young)


def _ends(log: pl.DataFrame, n: int) -> list[tuple[object, ...]]:
    """The first row, and the nth; none of none."""
    some = log.select("id", "at_ms", "role", "version")
    return [some.row(place) for place in (0, n - 1)] if 0 < n <= log.height else []


def grown(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """The rows of both, in parts that stay few however often it grows."""
    rows = old.vstack(new)
    return rows.rechunk() if rows.n_chunks() > _CHUNKS else rows
