"""Answers of a job in the prediction log: answers under no release."""

from __future__ import annotations

import threading
from collections.abc import Collection

import polars as pl

from homeostat.batch.work import Record, Scored
from homeostat.domain.bundle import Bundle
from homeostat.domain.feedback import Exploration
from homeostat.domain.prediction import BATCH, LogBatch, Role
from homeostat.domain.rollout import Arm
from homeostat.engines.answer import answers
from homeostat.ports import Clock, LabelLog, PredictionLog
from homeostat.serving.explore import marked

Logs = tuple[PredictionLog, LabelLog]
ROWS = 10_000
"""Rows a frame of the log: one that is torn loses no more."""


def recorder(logs: Logs, clock: Clock, bundle: Bundle, arm: Arm, slice_: Exploration | None) -> Record:
    """They are answers by `arm` that somebody will use: labels find them, drift and performance of the version count
    them, training learns from them. No route chose them: they are no evidence for or against a candidate. Those in the
    exploration slice are marked as the data plane marks its own."""
    log, labels = logs
    alone = threading.Lock()  # a writer of the log has one thread

    def record(scored: Scored) -> Collection[str]:
        explored: set[str] = set()
        good = pl.Series(scored.good)
        ids, inputs = scored.ids.filter(good), {name: one.filter(good) for name, one in scored.inputs.items()}
        keys = pl.Series([None] * len(ids), dtype=pl.String) if scored.keys is None else scored.keys.filter(good)
        given = answers(bundle.schema, bundle.threshold, scored.output)
        for start in range(0, len(ids), ROWS):
            here = slice(start, start + ROWS)
            n = len(ids[here])
            batch = LogBatch(
                model=bundle.model,
                at_ms=clock.now_ms(),
                release=BATCH + arm.bundle,
                weight=0,
                id=ids[here].to_list(),
                key=keys[here].to_list(),
                version=[arm.version] * n,
                arm=["champion"] * n,
                role=[Role.ANSWER.value] * n,
                status=["ok"] * n,
                model_us=[0] * n,
                score=given.score[here],
                label=given.label[here],
                scores=given.scores[here],
                inputs={name: column[here].to_list() for name, column in inputs.items()},
            )
            with alone:
                log.append(batch)
                if slice_:
                    explored |= marked(slice_, bundle.model, batch.id, batch.at_ms, labels)
        return explored

    return record
