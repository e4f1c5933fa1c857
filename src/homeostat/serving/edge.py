"""Predictions that were made away from the data plane, on the edge, and come back when there is a network.

They are answers that somebody saw: their role is `answer`, so that labels find them, drift and performance of their
version count them, and training learns from them. Their release is `edge:<bundle>`, for no release had a part in them:
no route chose the arm, so that they are no evidence for or against a candidate, and no traffic that a release could
have had. `model_us` is 0, not measured: another machine's time says nothing about this one's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, Any

import msgspec
import numpy as np

from homeostat import codec
from homeostat.domain.bundle import Bundle
from homeostat.domain.errors import Corrupt, NotFound
from homeostat.domain.prediction import EDGE, LogBatch, Role
from homeostat.domain.rollout import Route
from homeostat.domain.schema import Schema, Task, Value
from homeostat.engines.answer import answers
from homeostat.engines.labels import canonical
from homeostat.engines.transform import codes, narrow
from homeostat.ports import Blobs
from homeostat.serving.limits import Limits
from homeostat.serving.messages import Refusal, Request, Response, Row, json, lines, refused
from homeostat.serving.score import OK
from homeostat.serving.typed import LONGEST_ID, Int64, Name, name_text, refusal, row_type

MOST = 200
"""Predictions a request: each is checked and logged within one turn of the event loop."""
_ANYWHERE = lines(("access-control-allow-origin", "*"))  # a page on the edge has another origin


class _Answer(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    value: float | None = None
    score: float | None = None
    label: str | int | float | bool | None = None
    scores: dict[str, float] | None = None


class _Given(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_ID)]
    at: Int64
    bundle: str
    version: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    inputs: msgspec.Raw
    answer: _Answer
    key: Name = None


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    predictions: list[msgspec.Raw]


_body, _given = msgspec.json.Decoder(_Body).decode, msgspec.json.Decoder(_Given).decode
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True, slots=True)
class _Known:
    """A bundle, ready to check what it is said to have answered."""

    manifest: Bundle
    limits: Limits
    decode: Callable[[msgspec.Raw], Any]


@dataclass(frozen=True, slots=True)
class _Row:
    """One row of the log."""

    at_ms: int
    bundle: str
    version: int
    id: str
    key: str | None
    score: float
    label: str | None
    scores: Sequence[float] | None
    names: tuple[str, ...]
    inputs: Row


def model_of(path: str) -> str | None:
    """The model whose predictions come back at this path."""
    match path.strip("/").split("/"):
        case ["v1", "models", name, "predictions"]:
            return name
    return None


class Edge:
    """Takes predictions up. `blobs` hold the bundles that there are."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._bundles: dict[str, _Known] = {}

    def answer(
        self, request: Request, route: Callable[[], Route], write: Callable[[LogBatch], bool], now_ms: int
    ) -> Response:
        """Every row by itself: 200 with the number `accepted`, and what was `refused` and why. A prediction sent again
        is kept once, so that whoever got no answer sends the same again."""
        try:
            if request.method != "POST":
                raise Refusal(405, "use POST", rule="POST")
            rows, faults = self._rows(str(model_of(request.path)), _listed(request.body), route(), now_ms)
            if not all(write(batch) for batch in _batches(str(model_of(request.path)), rows)):
                raise Refusal(503, "the prediction log can't be written", rule="log")
        except Refusal as error:
            response = refused(error)
            return Response(response.status, response.body, response.lines + _ANYWHERE)
        return json(200, {"accepted": len(rows), "refused": faults}, _ANYWHERE)

    def _rows(
        self, model: str, given: Sequence[msgspec.Raw], route: Route, now_ms: int
    ) -> tuple[list[_Row], list[dict[str, Any]]]:
        rows: list[_Row] = []
        faults: list[dict[str, Any]] = []
        for record, raw in enumerate(given):
            try:
                rows.append(self._row(model, raw, route, now_ms))
            except Refusal as error:
                faults.append({**error.detail, "record": record})
        return rows, faults

    def _row(self, model: str, raw: msgspec.Raw, route: Route, now_ms: int) -> _Row:
        """Errors: `Refusal`."""
        try:
            given = _given(raw)
        except _BROKEN as error:
            raise Refusal(422, f"not a prediction: {error}", rule="form") from None
        known = self._known(model, given.bundle)
        _same_version(route, given)
        if given.at < known.manifest.trained_until_ms:
            raise Refusal(422, "at is before the model was made: a clock is wrong", rule="at", name="at")
        inputs = _inputs(known, given.inputs)
        said = _said(known.manifest, given.answer)
        names, at_ms = known.manifest.schema.names, min(given.at, now_ms)
        return _Row(at_ms, given.bundle, given.version, given.id, name_text(given.key), *said, names, inputs)

    def _known(self, model: str, bundle: str) -> _Known:
        """Errors: `Refusal` for a bundle that is not here, or of another model."""
        if bundle not in self._bundles:
            try:
                manifest = codec.decode(self._blobs.get(bundle), Bundle)
            except (NotFound, Corrupt):
                raise Refusal(422, "no such bundle is known here", rule="known", name="bundle") from None
            decode = msgspec.json.Decoder(row_type(manifest.schema)).decode
            self._bundles[bundle] = _Known(manifest, Limits(manifest.schema), decode)
        known = self._bundles[bundle]
        if known.manifest.model != model:
            raise Refusal(422, f"the bundle is not one of {model}", rule="model", name="bundle")
        return known


def _listed(body: bytes) -> Sequence[msgspec.Raw]:
    try:
        given = _body(body).predictions
    except msgspec.ValidationError as error:
        raise Refusal(422, f"not predictions: {error}", rule="form") from None
    except _BROKEN:
        raise Refusal(400, "the body is not JSON", rule="json") from None
    if not 0 < len(given) <= MOST:
        raise Refusal(422, f"send 1 to {MOST} predictions at once", rule=f"at most {MOST}", name="predictions")
    return given


def _same_version(route: Route, given: _Given) -> None:
    """A version that is in the routing document stands for that bundle and no other: else its answers would be
    counted as those of another model."""
    for arm in (route.champion, route.candidate):
        if arm is not None and (arm.version == given.version) != (arm.bundle == given.bundle):
            raise Refusal(422, f"version {given.version} is not this bundle", rule="version", name="version")


def _inputs(known: _Known, raw: msgspec.Raw) -> Row:
    """The values in the order of the fields, checked as those of a request are."""
    schema = known.manifest.schema
    try:
        values: Row = msgspec.structs.astuple(known.decode(raw))[: len(schema.fields)]
    except _BROKEN as error:
        raise refusal(schema, error) from None
    columns: dict[str, Sequence[Value]] = {name: (value,) for name, value in zip(schema.names, values, strict=True)}
    exact = codes(schema, columns)
    for fault in known.limits.faults(columns, exact, narrow(exact)).values():
        raise Refusal(422, fault.message, rule=fault.rule, name=fault.field)
    return values


def _said(manifest: Bundle, answer: _Answer) -> tuple[float, str | None, Sequence[float] | None]:
    """Score, label and scores as the log has them. The label must follow from the scores."""
    schema = manifest.schema
    output = np.array([_output(schema, answer)], np.float64)
    given = answers(schema, manifest.threshold, output)
    if schema.task is not Task.REGRESSION and _label(schema, answer.label) != given.label[0]:
        raise Refusal(422, "the label does not follow from the scores", rule="label", name="answer")
    return given.score[0], given.label[0], given.scores[0]


def _output(schema: Schema, answer: _Answer) -> list[float]:
    """(c,) what the model gave."""
    match schema.task, answer:
        case Task.REGRESSION, _Answer(value=float(value), score=None, label=None, scores=None):
            return [value]
        case Task.BINARY, _Answer(value=None, score=float(score), scores=None):
            return [1 - score, score]
        case Task.MULTICLASS, _Answer(value=None, scores=dict(scores)) if scores.keys() == _texts(schema):
            return [scores[str(known)] for known in schema.classes]
    raise Refusal(422, f"the answer is not one of a {schema.task.value} model", rule="form", name="answer")


def _texts(schema: Schema) -> set[str]:
    return {str(known) for known in schema.classes}


def _label(schema: Schema, label: Value) -> str:
    try:
        return canonical(schema, label)
    except (ValueError, OverflowError) as error:
        raise Refusal(422, str(error), rule="label", name="answer") from None


def _batches(model: str, rows: Sequence[_Row]) -> list[LogBatch]:
    """One for each time, bundle and version."""

    def alike(row: _Row) -> tuple[int, str, int]:
        return row.at_ms, row.bundle, row.version

    return [_batch(model, list(group)) for _, group in groupby(sorted(rows, key=alike), alike)]


def _batch(model: str, rows: Sequence[_Row]) -> LogBatch:
    n, first = len(rows), rows[0]
    return LogBatch(
        model=model,
        at_ms=first.at_ms,
        release=EDGE + first.bundle,
        weight=0,
        id=[row.id for row in rows],
        key=[row.key for row in rows],
        version=[first.version] * n,
        arm=["champion"] * n,
        role=[Role.ANSWER.value] * n,
        status=[OK] * n,
        model_us=[0] * n,
        score=[row.score for row in rows],
        label=[row.label for row in rows],
        scores=[row.scores for row in rows],
        inputs=dict(zip(first.names, zip(*(row.inputs for row in rows), strict=True), strict=True)),
    )
