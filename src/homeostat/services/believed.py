"""Which labels count: of contradictory ones the most trusted, none that is held back, none of an unknown class."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import polars as pl

from homeostat.domain.feedback import EXPLORE, FeedbackPolicy, Hold
from homeostat.domain.prediction import LabelBatch, SignalBatch
from homeostat.domain.units import DAY_MS
from homeostat.engines import feedback
from homeostat.ports import LabelLog

KEPT, KEPT_ROWS = 4, 5_000_000
"""Beginnings from which labels are kept between two reads, and labels of all of them, at most."""
NEVER = 2**62
Rule = tuple[Sequence[Hold], Collection[str] | None]


@dataclass(frozen=True, slots=True)
class _Kept:
    """What counted of [start, end_ms) under `rule` (`told`, one row an id), read whole at `whole_ms`; what had come of
    a time after that (`later`); `mark`: of the arrivals that are in it."""

    rule: Rule
    whole_ms: int
    end_ms: int
    mark: int
    told: pl.DataFrame
    later: pl.DataFrame


class BelievedLabels:
    """`ports.LabelLog` for all that learns and judges. Who reads on from the same beginning is told what was kept and
    what has arrived since: the same as if all were read again."""

    def __init__(
        self,
        labels: LabelLog,
        policy: FeedbackPolicy,
        holds: Callable[[], Sequence[Hold]],
        classes: Callable[[], Collection[str] | None] = lambda: None,
    ) -> None:
        """`classes`: what a label must say to count; None: anything."""
        self._labels, self._policy, self._holds, self._classes = labels, policy, holds, classes
        self._kept: dict[int, _Kept] = {}
        self._lock = threading.Lock()

    def read(self, start_ms: int, end_ms: int, ids: pl.Series | None = None) -> pl.DataFrame:
        rule = tuple(self._holds()), self._classes()
        if ids is not None:
            return self._whole(rule, start_ms, end_ms, ids).told
        with self._lock:
            kept = self._kept.pop(start_ms, None)
            if kept is None or kept.rule != rule or not kept.end_ms <= end_ms < kept.whole_ms + DAY_MS:
                kept = self._whole(rule, start_ms, end_ms)
            else:
                kept = self._grown(kept, start_ms, end_ms)
            self._keep(start_ms, kept)
        return kept.told

    def _whole(self, rule: Rule, start_ms: int, end_ms: int, ids: pl.Series | None = None) -> _Kept:
        mark = self._labels.mark()
        received = self._labels.received(start_ms, NEVER, ids).filter(_counts(rule))
        ripe = pl.col("at_ms") < end_ms
        told = feedback.settle(received.filter(ripe), self._policy.sources)
        return _Kept(rule, end_ms, end_ms, mark, told, received.filter(~ripe))

    def _grown(self, kept: _Kept, start_ms: int, end_ms: int) -> _Kept:
        mark, ripe = self._labels.mark(), pl.col("at_ms") < end_ms
        arrived = self._labels.arrived(kept.mark, start_ms).filter(_counts(kept.rule))
        fresh = pl.concat([kept.later, arrived])
        now, told = fresh.filter(ripe), kept.told
        if now.height:
            again = pl.col("id").is_in(now["id"].unique().implode())
            changed = feedback.settle(pl.concat([told.filter(again), now]), self._policy.sources)
            told = pl.concat([told.filter(~again), changed]).sort("at_ms", maintain_order=True)
        return _Kept(kept.rule, kept.whole_ms, end_ms, mark, told, fresh.filter(~ripe).unique(maintain_order=True))

    def _keep(self, start_ms: int, kept: _Kept) -> None:
        """The last ones that were asked for."""
        self._kept[start_ms] = kept
        rows = sum(one.told.height + one.later.height for one in self._kept.values())
        while self._kept and (len(self._kept) > KEPT or rows > KEPT_ROWS):
            gone = self._kept.pop(next(iter(self._kept)))
            rows -= gone.told.height + gone.later.height

    def received(self, start_ms: int, end_ms: int, ids: pl.Series | None = None) -> pl.DataFrame:
        return self._labels.received(start_ms, end_ms, ids)

    def mark(self) -> int:
        return self._labels.mark()

    def arrived(self, mark: int, start_ms: int) -> pl.DataFrame:
        return self._labels.arrived(mark, start_ms)

    def append(self, batch: LabelBatch) -> None:
        self._labels.append(batch)

    def append_signals(self, batch: SignalBatch) -> None:
        self._labels.append_signals(batch)

    def signals(self, start_ms: int, end_ms: int, name: str = "") -> pl.DataFrame:
        return self._labels.signals(start_ms, end_ms, name)

    def events(self, start_ms: int, end_ms: int) -> pl.DataFrame:
        return self._labels.events(start_ms, end_ms)


def _counts(rule: Rule) -> pl.Expr:
    holds, classes = rule
    known = pl.lit(True) if classes is None else pl.col("label").is_in(list(classes))
    return ~feedback.held(holds) & known


class JudgedLabels(BelievedLabels):
    """`ports.LabelLog` for all that judges a model, over those that are believed: where its answers decide which
    predictions get a label, those of the exploration slice alone."""

    def __init__(self, believed: LabelLog, policy: FeedbackPolicy) -> None:
        super().__init__(believed, policy, lambda: ())

    def read(self, start_ms: int, end_ms: int, ids: pl.Series | None = None) -> pl.DataFrame:
        told = self._labels.read(start_ms, end_ms, ids)
        if not self._policy.selective:
            return told
        return told.filter(feedback.explored(self._labels.signals(start_ms, end_ms, EXPLORE)))
