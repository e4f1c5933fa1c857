"""Whatever a caller sends: no crash, no hang; a 200 or a 4xx that tells no more than it should; and the others in the
same turn get their own answers."""

from __future__ import annotations

import json
import math
from typing import Any, ClassVar
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from worlds import GOOD, World, loads, logistic

from homeostat.domain.prediction import LogBatch
from homeostat.serving.messages import HEADERS, Request
from homeostat.stores.days import DayTables
from homeostat.stores.predictions import SegmentLabels, SegmentLog

SAFE = "!#$&'()*+/:;=?@[]~ "
PREDICT, INFER, INVOKE = "/v1/models/fraud/predict", "/v2/models/fraud/infer", "/invocations"
NAMES = ["records", "amount", "items", "member", "country", "class", "id", "key", "inputs", "name", "shape", "datatype",
         "data", "parameters", "binary_data_size", "binary_data_output", "outputs", "instances", "columns", "index",
         "dataframe_split", "dataframe_records", "labels", "label", "at", "model"]  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 1, 2, -1, 2**31, 2**63, 2**64, 10**400])
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["de", "FP64", "INT64", "BYTES", "BOOL", "amount", "2024-01-01T00:00:00Z"])
    | st.sampled_from(["\ud800", "\0", "a,b\r\n"])
)  # fmt: skip
ANY = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip


def rarely(values: st.SearchStrategy[Any], others: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 19).flatmap(lambda die: others if die == 7 else values)


def of(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly that, now and then anything."""
    return rarely(values, ANY)


def some(known: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    return of(st.fixed_dictionaries({}, optional=known))


def all_of(known: dict[str, st.SearchStrategy[Any]], **more: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return of(st.fixed_dictionaries(known, optional=more))


FIELD = {"amount": of(st.floats(0, 1_000)), "items": of(st.integers(0, 9)), "member": of(st.booleans()),
         "country": of(st.sampled_from(["de", "fr"])), "class": of(st.none() | st.floats(-9, 9)),
         "id": of(st.text(min_size=1)), "key": of(st.text(min_size=1))}  # fmt: skip
RECORD = all_of({name: FIELD[name] for name in GOOD}, id=FIELD["id"], key=FIELD["key"])
RECORDS = all_of({"records": of(st.lists(RECORD, min_size=1, max_size=3))})
TYPES = {"amount": "FP64", "items": "INT64", "member": "BOOL", "country": "BYTES", "class": "FP64"}


def tensor(name: str) -> st.SearchStrategy[Any]:
    """With its data in the JSON, behind it, in both places or in none."""
    parts: dict[str, st.SearchStrategy[Any]] = {
        "name": st.just(name),
        "shape": rarely(st.just([1]), st.sampled_from([[2], [1, 1], [0], [-1], [10**12], []])),
        "datatype": rarely(st.just(TYPES.get(name, "BYTES")), st.sampled_from(["FP16", "UINT64", "BYTES"])),
    }
    more = {"data": of(st.lists(FIELD[name], min_size=1, max_size=1))}
    raw = {"parameters": of(st.fixed_dictionaries({"binary_data_size": of(st.sampled_from([1, 2, 4, 6, 8]))}))}
    return of(rarely(st.fixed_dictionaries(parts | more), st.fixed_dictionaries(parts | raw)))


INPUTS = rarely(st.tuples(*map(tensor, GOOD)), st.lists(st.sampled_from(list(FIELD)).flatmap(tensor), max_size=7))
OUTPUT = all_of({"name": st.sampled_from(["score", "label", "id"])}, parameters=some({"binary_data": st.booleans()}))
V2 = all_of(
    {"inputs": of(INPUTS)},
    id=of(st.text()),
    outputs=of(st.lists(OUTPUT, max_size=3)),
    parameters=some({"binary_data_output": st.booleans()}),
)
ROWS = st.lists(RECORD, max_size=3) | st.lists(of(st.tuples(*[FIELD[name] for name in GOOD])), max_size=3)
COLUMNS = st.integers(0, 3).flatmap(
    lambda n: all_of({name: of(st.lists(FIELD[name], min_size=n, max_size=n)) for name in GOOD})
)
SPLIT = all_of({"data": of(ROWS)}, columns=of(st.permutations(list(GOOD))), index=ANY)
FORM = {"inputs": of(ROWS | COLUMNS), "instances": of(ROWS), "dataframe_records": of(ROWS), "dataframe_split": SPLIT}
MLFLOW = st.one_of(*[all_of({name: form}) for name, form in FORM.items()], some(FORM))
CSV = st.text(alphabet='amountie,",\n\r01.5-\0é', max_size=80).map(
    lambda rows: f"amount,items,member,country,class\n1,2,true,de,\n{rows}"
)
PARTS = ["v1", "v2", "models", "fraud", "versions", "1", "ready", "health", "live", "bundles", "docs", "", "é", "\0"]
LABEL = some({"id": SCALARS, "label": SCALARS, "at": SCALARS})
FEEDBACK = some({"labels": of(st.lists(LABEL, max_size=3)), "model": SCALARS})
HEADER = st.dictionaries(
    st.sampled_from(HEADERS).filter(lambda name: name not in ("content-encoding", "content-type", "idempotency-key")),
    st.text(st.characters(max_codepoint=255), max_size=30) | st.integers(-5, 400).map(str),
    max_size=3,
)


class Counted(SegmentLog):
    """The log of a worker, as it is on disk."""

    def append(self, batch: LogBatch) -> None:
        super().append(batch)
        self.told += batch.id

    told: ClassVar[list[str]] = []


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("log")
    log = Counted(folder, "w", DayTables(folder / "tables"))
    world = World(log=log, labels=SegmentLabels(folder, "w", DayTables(folder / "tables")))
    world.route(world.bundle(logistic))
    return world


def encoded(value: Any) -> bytes:
    """NaN and halves of characters included."""
    return json.dumps(value).encode() if not isinstance(value, bytes) else value


def ask(world: World, path: str, body: bytes, headers: dict[str, str]) -> None:
    """Between two good requests."""
    good = Request("POST", PREDICT, json.dumps({"records": [GOOD]}).encode())
    Counted.told.clear()
    first, response, last = world.engine.answer([good, Request("POST", path, body, headers), good])
    assert (first.status, last.status) == (200, 200)
    assert loads(first)["predictions"][0]["score"] == loads(last)["predictions"][0]["score"] == 0.5
    assert response.status == 200 or 400 <= response.status < 500, response
    assert all(name.isascii() and "\n" not in text and "\r" not in text for name, text in response.headers)
    if path != "/v1/feedback":
        shown = [name for one in (first, response, last) for name in dict(one.headers)["x-prediction-id"].split(",")]
        assert sorted(shown) == sorted(quote(name, safe=SAFE) for name in Counted.told)


@settings(max_examples=300)
@given(RECORDS.map(encoded) | st.binary(max_size=60), HEADER)
@example(b'{"records":' + b"[" * 100_000, {})
@example(b'{"records":[{"amount":' + b"9" * 5_000 + b"}]}", {})
def test_records(world: World, body: bytes, headers: dict[str, str]) -> None:
    ask(world, PREDICT, body, headers)


@settings(max_examples=400)
@given(V2.map(encoded), st.binary(max_size=60), HEADER, st.booleans())
@example(b'{"inputs":' + b"[" * 100_000, b"", {}, False)
def test_v2(world: World, head: bytes, rest: bytes, headers: dict[str, str], told: bool) -> None:
    length = {"inference-header-content-length": str(len(head))} if told else {}
    ask(world, INFER, head + rest if told else head, {**headers, **length})


@settings(max_examples=300)
@given(MLFLOW.map(encoded) | st.binary(max_size=60), HEADER)
@example(b'{"inputs":' + b"[" * 100_000, {})
@example(b'{"inputs":[' + b'{"a":NaN},' * 9 + b"]}", {})
@example(b'{"inputs":[NaN,"' + b'\\"' * 200_000, {})
def test_mlflow(world: World, body: bytes, headers: dict[str, str]) -> None:
    ask(world, INVOKE, body, headers)


@settings(max_examples=200)
@given(CSV.map(str.encode) | st.binary(max_size=60), HEADER)
@example(b"amount\n" + b'"' * 200_000, {})
def test_csv(world: World, body: bytes, headers: dict[str, str]) -> None:
    ask(world, INVOKE, body, {**headers, "content-type": "text/csv"})


@settings(max_examples=200)
@given(FEEDBACK.map(encoded) | st.binary(max_size=60))
@example(encoded({"labels": [{"id": 1, "label": "yes", "at": 10**30}]}))
@example(encoded({"labels": [{"id": 1, "label": math.nan}]}))
def test_feedback(world: World, body: bytes) -> None:
    ask(world, "/v1/feedback", body, {})


@settings(max_examples=200)
@given(st.sampled_from(["GET", "POST", "PUT"]), st.lists(st.sampled_from(PARTS), max_size=6), st.text(max_size=40))
def test_paths_and_content_types(world: World, method: str, parts: list[str], kind: str) -> None:
    request = Request(method, "/" + "/".join(parts), b"{}", {"content-type": kind})
    (response,) = world.engine.answer([request])
    assert response.status in (200, 400, 404, 405, 415, 422, 503)
    for path in (PREDICT, INFER, INVOKE, "/v1/feedback"):
        (response,) = world.engine.answer([Request("POST", path, b"{}", {"content-type": kind})])
        assert response.status in (400, 415, 422)
