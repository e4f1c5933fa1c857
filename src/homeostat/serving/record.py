"""What a tick writes to the prediction log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import compress
from types import MappingProxyType
from typing import Any

from homeostat.domain.prediction import LogBatch, Role
from homeostat.domain.rollout import Arm, Route
from homeostat.domain.schema import Value
from homeostat.domain.units import ALL
from homeostat.engines.answer import answers
from homeostat.serving.bundles import Loaded
from homeostat.serving.messages import Refusal, Row
from homeostat.serving.score import OK, Attempt, Batch, Scored, Served, filled

_ARMS = ("champion", "candidate")
_COLUMNS = ("id", "key", "version", "arm", "role", "status", "model_us", "score", "label", "scores")

_RULE = 40  # characters


class Page:
    """Rows of one `LogBatch` under way, column by column; `traces` by prediction id."""

    def __init__(self, served: Served, at_ms: int, traces: Mapping[str, str] = MappingProxyType({})) -> None:
        self._served, self._at_ms, self._traces = served, at_ms, traces
        self._columns: dict[str, Sequence[Any]] = {}
        self._inputs: Mapping[str, Sequence[Value]] = {}
        self._arms = arms_of(served.route) if served.route.more else _ARMS
        self._kept: Sequence[bool] = ()

    def answered(self, batch: Batch, scored: Scored) -> None:
        """Every row of the batch, and the failed attempts beside them. Before anything else."""
        n, names, route = len(batch.ids), self._arms, self._served.route
        split = route.weight or route.more
        arms = [names[chosen] for chosen in scored.arm.tolist()] if split else [names[0]] * n
        who = (batch.ids, batch.keys, scored.version, arms, [Role.ANSWER.value] * n, scored.status, scored.us)
        self._add((*who, scored.score, scored.label, scored.scores), batch.columns)
        self._kept = () if scored.kept is None else scored.kept.tolist()
        for number, made in scored.failed:
            self._failed(batch, number, made)

    def _failed(self, batch: Batch, number: int, made: Attempt) -> None:
        version = self._served.route.shares[number - 1].arm.version
        rows = made.rows[~made.good].tolist()
        named = [batch.ids[row] for row in rows], [batch.keys[row] for row in rows]
        self._unscored(*named, (version, self._arms[number], Role.FAILED.value, made.status, made.us))

    def rejected(self, rows: Sequence[Row], ids: Sequence[str], keys: Sequence[str | None], why: Refusal) -> None:
        """Rows that no model saw."""
        version = self._served.route.champion.version
        inputs = zip(self._served.champion.schema.names, zip(*rows, strict=True), strict=True) if rows else ()
        self._unscored(
            ids, keys, (version, _ARMS[0], Role.REJECTED.value, "rejected", 0), dict(inputs), self._cause(why)
        )

    def _cause(self, why: Refusal) -> str:
        """Of a field that the schema knows: a caller may make up any other. A rule that lists what it allows is cut."""
        rule = why.rule[:_RULE]
        return f"{why.field}: {rule}" if why.field in self._served.champion.schema.names else rule

    def shed(self, ids: Sequence[str]) -> None:
        """Requests that were refused unread."""
        version = self._served.route.champion.version
        self._unscored(ids, [None] * len(ids), (version, _ARMS[0], Role.SHED.value, "shed", 0))

    def _unscored(
        self,
        ids: Sequence[str],
        keys: Sequence[str | None],
        alike: Sequence[Value],
        inputs: Mapping[str, Sequence[Value]] = MappingProxyType({}),
        label: str | None = None,
    ) -> None:
        blank = [None] * len(ids)
        self._add((ids, keys, *([value] * len(ids) for value in alike), blank, [label] * len(ids), blank), inputs)

    def _add(self, columns: Sequence[Sequence[Any]], inputs: Mapping[str, Sequence[Value]]) -> None:
        """All fields are among the inputs, or none: then they are null."""
        given = inputs or dict.fromkeys(self._served.champion.schema.names, [None] * len(columns[0]))
        if not self._columns:
            self._columns, self._inputs = dict(zip(_COLUMNS, columns, strict=True)), given
            return
        for name, values in zip(_COLUMNS, columns, strict=True):
            self._columns[name] = [*self._columns[name], *values]
        self._inputs = {name: [*self._inputs[name], *values] for name, values in given.items()}

    def batches(self) -> list[LogBatch]:
        """Nothing when there is nothing to write; two where a rule keeps some rows, which have no weight."""
        route, n = self._served.route, len(self._columns.get("id", ()))
        weight = ALL - route.weights[0] if route.more else route.weight
        if not any(self._kept):
            return [self._batch(weight, self._columns, self._inputs)] if n else []
        kept = [*self._kept, *[False] * (n - len(self._kept))]
        parts = (0, kept), (weight, [not one for one in kept])
        return [self._batch(w, _some(self._columns, rows), _some(self._inputs, rows)) for w, rows in parts if any(rows)]

    def _batch(
        self, weight: int, columns: Mapping[str, Sequence[Any]], inputs: Mapping[str, Sequence[Value]]
    ) -> LogBatch:
        model, release = self._served.model, self._served.route.release
        trace = [self._traces.get(one) for one in columns["id"]] if self._traces else ()
        return LogBatch(model, self._at_ms, release, weight, inputs=inputs, trace=trace, **columns)


def arms_of(route: Route) -> tuple[str, ...]:
    """As the log names them."""
    return (*_ARMS, *(f"version {share.arm.version}" for share in route.more))


def _some(columns: Mapping[str, Sequence[Any]], rows: Sequence[bool]) -> dict[str, list[Any]]:
    return {name: list(compress(column, rows)) for name, column in columns.items()}


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
    route = served.route
    columns = dict(zip(_COLUMNS, zip(*rows, strict=True), strict=True))
    return LogBatch(served.model, at_ms, route.release, route.weight, inputs={}, **columns)
