"""The rows and labels that a release is judged by, read once each; and what the log says before one starts."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from homeostat.domain.prediction import PINNED, SETTLED_MS, UNRELEASED, Role
from homeostat.domain.units import DAY_MS
from homeostat.engines.judge import grown
from homeostat.ports import LabelLog, PredictionLog

LEAST_ROWS = 100
"""Fewer answers do not fix a limit for slow ones."""
SLACK_US = 250
"""A candidate is called less often than the champion, and in another thread: from colder caches, the same model takes
20 to 100 us longer (measured with one of 70). That is no slow answer."""

_KEPT = ["id", "key", "at_ms", "release", "version", "arm", "role", "weight", "status", "model_us", "score", "scores"]


class EvidenceLog:
    """A cache of one release's rows. Of the inputs it keeps `guarded`, as texts. Labels are read anew each time: one
    that comes late, or counts no more, may be of any time."""

    def __init__(self, model: str, log: PredictionLog, labels: LabelLog, guarded: Sequence[str] = ()) -> None:
        self._model, self._log, self._labels, self._guarded = model, log, labels, guarded
        self._of = ("", 0)
        self._rows, self._settled_ms = _Grown(), 0

    def read(self, release: str, since_ms: int, now_ms: int) -> tuple[pl.DataFrame, pl.DataFrame]:
        """→ rows logged under the release since then, in order of time; the labels that count. Of an experiment: under
        all its splits."""
        if self._of != (release, since_ms) or now_ms < self._settled_ms:
            self._of, self._settled_ms = (release, since_ms), since_ms
            self._rows = _Grown()
        rows = self._log.read(self._model, self._settled_ms, now_ms + 1, bool(self._guarded))
        under = (pl.col("release") == release) | pl.col("release").str.starts_with(f"{release}.")
        rows = self.kept(rows.filter(under)).sort("at_ms", maintain_order=True)
        self._settled_ms = max(since_ms, now_ms - SETTLED_MS)
        return self._rows.grow(rows, self._settled_ms), self._labels.read(since_ms, now_ms + 1)

    def kept(self, rows: pl.DataFrame) -> pl.DataFrame:
        """What is kept of rows of the log."""
        return rows.select(*_KEPT, *self._inputs(rows.schema))

    def _inputs(self, schema: pl.Schema) -> list[pl.Expr]:
        """An input that was not logged is null."""
        if not self._guarded:
            return []
        logged, of = schema["inputs"], pl.col("inputs").struct
        there = {field.name for field in logged.fields} if isinstance(logged, pl.Struct) else set[str]()
        each = [(of.field(name) if name in there else pl.lit(None)).cast(pl.String) for name in self._guarded]
        return [pl.struct(one.alias(name) for one, name in zip(each, self._guarded, strict=True)).alias("inputs")]


class _Grown:
    """A frame that grows by what is new; the rows that will be read again are not kept."""

    def __init__(self) -> None:
        self._kept: pl.DataFrame | None = None

    def grow(self, fresh: pl.DataFrame, settled_ms: int) -> pl.DataFrame:
        """→ all rows so far."""
        before, old = self._kept, fresh.filter(pl.col("at_ms") < settled_ms)
        self._kept = old if before is None else grown(before, old)
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
    """The answers in the log, but for those that no release reaches: on the edge, in a batch, pinned."""
    away = pl.any_horizontal(pl.col("release").str.starts_with(prefix) for prefix in (*UNRELEASED, PINNED))
    return log.filter((pl.col("role") == Role.ANSWER.value) & ~away)


def rate(answers: int, first_ms: int, now_ms: int) -> float | None:
    """Answers a day, the first of which was given at `first_ms`."""
    span = now_ms - first_ms
    return answers * DAY_MS / span if span >= DAY_MS else None


def slow_limit(log: pl.DataFrame, version: int) -> int:
    """Microseconds beyond which a call is slow: the 99th percentile of the version's calls behind answers, and
    `SLACK_US`; 0 when too few are known."""
    answered = (pl.col("role") == Role.ANSWER.value) & (pl.col("version") == version) & (pl.col("status") == "ok")
    calls = log.filter(answered & (pl.col("model_us") > 0)).unique(["at_ms", "model_us"])["model_us"].to_numpy()
    if len(calls) < LEAST_ROWS:
        return 0
    return int(sorted(calls)[int(len(calls) * 0.99)]) + SLACK_US
