"""The rows and labels that a release is judged by, read once each; and what the log says before one starts."""

from __future__ import annotations

import polars as pl

from homeostat.domain.prediction import SETTLED_MS, UNRELEASED, Role
from homeostat.domain.units import DAY_MS
from homeostat.ports import LabelLog, PredictionLog

LEAST_ROWS = 100
"""Fewer answers do not fix a limit for slow ones."""

_KEPT = ["id", "key", "at_ms", "version", "arm", "role", "weight", "status", "model_us", "score", "scores"]


class EvidenceLog:
    """A cache of one release's rows, and of the labels since it began."""

    def __init__(self, model: str, log: PredictionLog, labels: LabelLog) -> None:
        self._model, self._log, self._labels = model, log, labels
        self._of = ("", 0)
        self._rows, self._received, self._settled_ms = _Grown(), _Grown(), 0

    def read(self, release: str, since_ms: int, now_ms: int) -> tuple[pl.DataFrame, pl.DataFrame]:
        """→ rows logged under the release since then, in order of time, without inputs; the last label of each id."""
        if self._of != (release, since_ms) or now_ms < self._settled_ms:
            self._of, self._settled_ms = (release, since_ms), since_ms
            self._rows, self._received = _Grown(), _Grown()
        rows = self._log.read(self._model, self._settled_ms, now_ms + 1)
        rows = rows.filter(pl.col("release") == release).select(_KEPT).sort("at_ms", maintain_order=True)
        labels = self._labels.read(self._settled_ms, now_ms + 1)
        self._settled_ms = max(since_ms, now_ms - SETTLED_MS)
        return self._rows.grow(rows, self._settled_ms), self._received.grow(labels, self._settled_ms).unique(
            "id", keep="last", maintain_order=True
        )


class _Grown:
    """A frame that grows by what is new; the rows that will be read again are not kept."""

    def __init__(self) -> None:
        self._kept: pl.DataFrame | None = None

    def grow(self, fresh: pl.DataFrame, settled_ms: int) -> pl.DataFrame:
        """→ all rows so far."""
        before, old = self._kept, fresh.filter(pl.col("at_ms") < settled_ms)
        self._kept = old if before is None else before.vstack(old)
        return fresh if before is None else before.vstack(fresh)


def requests_seen(rows: pl.DataFrame, version: int, since_ms: int, shadowed: bool) -> int:
    """Rows that the version answered, or tried to, since then; in shadow if nobody is to be answered by it."""
    roles = [Role.SHADOW.value] if shadowed else [Role.ANSWER.value, Role.FAILED.value]
    mine = (pl.col("version") == version) & pl.col("role").is_in(roles) & (pl.col("at_ms") >= since_ms)
    return rows.filter(mine)["id"].n_unique()


def traffic(log: pl.DataFrame, now_ms: int) -> float | None:
    """Requests a day by the `answered` ones; None where they go back less than a day: an hour is no measure."""
    found = answered(log)
    return rate(found.height, int(found["at_ms"].to_numpy().min(initial=now_ms)), now_ms)


def answered(log: pl.DataFrame) -> pl.DataFrame:
    """The answers in the log, but for those given away from the data plane, which no release reaches."""
    away = pl.any_horizontal(pl.col("release").str.starts_with(prefix) for prefix in UNRELEASED)
    return log.filter((pl.col("role") == Role.ANSWER.value) & ~away)


def rate(answers: int, first_ms: int, now_ms: int) -> float | None:
    """Answers a day, the first of which was given at `first_ms`."""
    span = now_ms - first_ms
    return answers * DAY_MS / span if span >= DAY_MS else None


def slow_limit(log: pl.DataFrame, version: int) -> int:
    """The 99th percentile of the version's model calls behind answers, in microseconds; 0 when too few are known."""
    answered = (pl.col("role") == Role.ANSWER.value) & (pl.col("version") == version) & (pl.col("status") == "ok")
    calls = log.filter(answered & (pl.col("model_us") > 0)).unique(["at_ms", "model_us"])["model_us"].to_numpy()
    if len(calls) < LEAST_ROWS:
        return 0
    return int(sorted(calls)[int(len(calls) * 0.99)])
