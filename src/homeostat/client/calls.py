"""What can be asked of a data plane, and what its answers mean; no socket."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from secrets import token_hex
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from homeostat.client.attempts import Ask, Call, Got, Spent, Timeouts, once, repeated
from homeostat.client.results import Metadata, Prediction, Predictions
from homeostat.client.rows import Frame, Labels, Record, Rows, known, labels, records
from homeostat.domain.errors import HomeostatError, NotFound, RequestRefused, ServiceError, Unavailable, UsageError
from homeostat.domain.schema import Value

R = TypeVar("R")


class _Said(msgspec.Struct):
    id: str
    value: float | None = None
    score: float | None = None
    label: Value = None
    scores: dict[str, float] | None = None
    model_version: int | None = None
    explore: Value = None


class _Answer(msgspec.Struct):
    release: str
    model_version: int
    predictions: list[_Said]


class _Accepted(msgspec.Struct):
    accepted: int


class _Told(msgspec.Struct):
    message: str = ""
    field: str = ""
    rule: str = ""
    record: int | None = None


class _Error(msgspec.Struct):
    error: _Told


class Calls:
    """About one model. `now` is a monotonic clock in seconds."""

    def __init__(self, url: str, model: str, timeouts: Timeouts, now: Callable[[], float] = time.monotonic) -> None:
        self._url, self._model, self._name = url.rstrip("/"), model, quote(model, safe="")
        self._timeouts, self._now = timeouts, now
        self._shown = _address(self._url)

    def __str__(self) -> str:
        return f"{self._shown!r}, {self._model!r}"

    def predict(self, rows: Rows) -> Call[Prediction | Predictions]:
        """The key is made once: another attempt gets the ids, and so the record, of the first."""
        asked = records([rows] if isinstance(rows, Mapping) else rows)
        ask = self._post(f"/v1/models/{self._name}/predict", {"records": asked}, {"idempotency-key": token_hex(16)})
        answer = yield from self._answered(ask, _Answer)
        predictions = tuple(_prediction(answer, said) for said in answer.predictions)
        return predictions[0] if isinstance(rows, Mapping) else Predictions(answer.release, predictions)

    def feedback(self, given: Labels, source: str) -> Call[int]:
        said = [{"source": source} | one for one in labels(given)] if source else labels(given)
        return self._told({"labels": said})

    def signals(self, given: Sequence[Record] | Frame) -> Call[int]:
        return self._told({"signals": known(given)})

    def _told(self, told: Mapping[str, Any]) -> Call[int]:
        body = {**told, "model": self._model}
        return (yield from self._answered(self._post("/v1/feedback", body), _Accepted)).accepted

    def metadata(self) -> Call[Metadata]:
        return (yield from self._answered(Ask("GET", f"{self._url}/v2/models/{self._name}"), Metadata))

    def ready(self) -> Call[bool]:
        return self._well(f"/v2/models/{self._name}/ready")

    def live(self) -> Call[bool]:
        return self._well("/v2/health/live")

    def _post(self, path: str, value: Any, headers: Mapping[str, str] = MappingProxyType({})) -> Ask:
        typed = {"content-type": "application/json", **headers}
        return Ask("POST", self._url + path, msgspec.json.encode(value), typed)

    def _well(self, path: str) -> Call[bool]:
        """Asked once: that nothing answers is an answer too."""
        ask = Ask("GET", self._url + path)
        outcome = yield from once(ask, self._timeouts, self._now)
        if isinstance(outcome, Got) and not outcome.passing:
            return self._good(ask, outcome).status == 200
        return False

    def _answered(self, ask: Ask, kind: type[R]) -> Call[R]:
        outcome = yield from repeated(ask, self._timeouts, self._now)
        if isinstance(outcome, Spent):
            raise self._unavailable(outcome)
        try:
            return msgspec.json.decode(self._good(ask, outcome).body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise ServiceError("the answer is not that of a data plane", where=self._shown) from None

    def _good(self, ask: Ask, outcome: Got | httpx.RequestError) -> Got:
        """The answer, if it has status 200; else what the data plane says, in the words of our errors."""
        where = self._shown + ask.url.removeprefix(self._url)
        if not isinstance(outcome, Got):
            raise ServiceError(_failure(outcome), where=where)
        if outcome.status == 200:
            return outcome
        raise _error(outcome, where)

    def _unavailable(self, spent: Spent) -> Unavailable:
        last = spent.outcome
        why = _told(last).message if isinstance(last, Got) else _failure(last)
        times = "once" if spent.tries == 1 else f"{spent.tries} times"
        return Unavailable(
            f"{self._shown} can't answer: {why}",
            where=f"asked {times} in {spent.seconds:.1f} s",
            way_out="Is the data plane up, and has it room? Timeouts(total=...) gives a call more time.",
        )


def _error(got: Got, where: str) -> HomeostatError:
    told = _told(got)
    if got.status == 404:
        return NotFound(told.message, where=where, way_out="Does it serve a model of this name?")
    if got.status == 413:
        way_out = "Send fewer rows at once; `homeostat predict` scores whole files."
        return RequestRefused(told.message, address=where, rule=told.rule, way_out=way_out)
    if 400 <= got.status < 500:
        return RequestRefused(told.message, address=where, field=told.field, rule=told.rule, record=told.record)
    return ServiceError(told.message, where=where)


def _told(got: Got) -> _Told:
    """What the body says, where it has our form."""
    try:
        return msgspec.json.decode(got.body, type=_Error).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Told(f"status {got.status}")


def _failure(error: httpx.RequestError) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _prediction(answer: _Answer, said: _Said) -> Prediction:
    version = said.model_version or answer.model_version
    return Prediction(said.id, answer.release, version, said.value, said.score, said.label, said.scores, said.explore)


def _address(url: str) -> str:
    """The URL as it may be told: without a password. Errors: `UsageError` for what is none."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UsageError("this is not the URL of a data plane", way_out='Write it as "http://127.0.0.1:8701".')
    return str(parsed.copy_with(userinfo=b""))
