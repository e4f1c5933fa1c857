"""What a tick writes to the prediction log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from homeostat.domain.prediction import LogBatch, Role
from homeostat.domain.rollout import Arm
from homeostat.engines.answer import answers
from homeostat.serving.bundles import Loaded
from homeostat.serving.messages import Row
from homeostat.serving.score import OK, Attempt, Batch, Scored, Served, filled

_ARMS = ("champion", "candidate")
_COLUMNS = ("id", "key", "version", "arm", "role", "status", "model_us", "score", "label", "scores")


class Page:
    """Rows of one `LogBatch` under way."""

    def __init__(self, served: Served, at_ms: int) -> None:
        self._served, self._at_ms = served, at_ms
        self._rows: list[tuple[Any, ...]] = []  # in the order of _COLUMNS
        self._inputs: list[Row] = []

    def answered(self, batch: Batch, scored: Scored) -> None:
        """Every row of the batch, and the candidate's failed attempts beside them."""
        arms = [_ARMS[chosen] for chosen in scored.on_candidate.tolist()]
        roles = [Role.ANSWER.value] * len(arms)
        columns = (batch.ids, batch.keys, scored.version, arms, roles, scored.status, scored.us)
        self._rows += zip(*columns, scored.score, scored.label, scored.scores, strict=True)
        self._inputs += zip(*batch.columns.values(), strict=True)
        if scored.failed is not None:
            self._failed(batch, scored.failed)

    def _failed(self, batch: Batch, made: Attempt) -> None:
        arm = self._served.route.candidate
        version = arm.version if arm else 0
        for row in made.rows[~made.good].tolist():
            who = (batch.ids[row], batch.keys[row], version, _ARMS[1], Role.FAILED.value, made.status, made.us)
            self._rows.append((*who, None, None, None))
            self._inputs.append(self._blank())

    def rejected(self, rows: Sequence[Row], ids: Sequence[str], keys: Sequence[str | None]) -> None:
        """Rows that no model saw."""
        version = self._served.route.champion.version
        for row, name, key in zip(rows, ids, keys, strict=True):
            self._rows.append((name, key, version, _ARMS[0], Role.REJECTED.value, "rejected", 0, None, None, None))
            self._inputs.append(row)

    def batch(self) -> LogBatch | None:
        """None when there is nothing to write."""
        if not self._rows:
            return None
        names = self._served.champion.schema.names
        inputs = dict(zip(names, zip(*self._inputs, strict=True), strict=True))
        return _batch(self._served, self._at_ms, self._rows, inputs)

    def _blank(self) -> Row:
        return (None,) * len(self._served.champion.schema.names)


def shadowed(
    served: Served, at_ms: int, batch: Batch, arm: int, loaded: Loaded, scorer: Arm, made: Attempt
) -> LogBatch:
    """The scores of the model that did not answer. The inputs stand in the answer's row, and are not repeated."""
    given = answers(loaded.schema, loaded.manifest.threshold, filled(made)) if made.good.any() else None
    rows = []
    for i, (row, good) in enumerate(zip(made.rows.tolist(), made.good.tolist(), strict=True)):
        who = (
            batch.ids[row],
            batch.keys[row],
            scorer.version,
            _ARMS[arm],
            Role.SHADOW.value,
            OK if good else made.status,
        )
        seen = (given.score[i], given.label[i], given.scores[i]) if given and good else (None, None, None)
        rows.append((*who, made.us, *seen))
    return _batch(served, at_ms, rows, {})


def _batch(served: Served, at_ms: int, rows: Sequence[tuple[Any, ...]], inputs: dict[str, Any]) -> LogBatch:
    route = served.route
    columns = dict(zip(_COLUMNS, zip(*rows, strict=True), strict=True))
    return LogBatch(served.model, at_ms, route.release, route.weight, inputs=inputs, **columns)
