"""Binary tensors, MLflow's forms, content types, health, trace context: what each protocol takes and answers."""

from __future__ import annotations

import json
import math
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from queue import Queue
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.utils.proto_json_utils import dataframe_from_parsed_json, dump_input_data, parse_tf_serving_input
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from worlds import GOOD, World, loads, logistic

from homeostat.adapters import otel
from homeostat.domain.errors import ConfigError
from homeostat.domain.rollout import Arm, Route, Routing
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.serving.messages import Request, Response
from homeostat.wiring import plane

INFER, INVOKE = "/v2/models/fraud/infer", "/v1/models/fraud/invocations"
LENGTH = "inference-header-content-length"


@pytest.fixture
def world() -> World:
    world = World()
    world.route(world.bundle(logistic))
    return world


def post(world: World, path: str, body: Any, **headers: str) -> Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return world.engine.answer([Request("POST", path, data, named)])[0]


def tensor(name: str, datatype: str, raw: bytes, n: int = 2) -> tuple[dict[str, Any], bytes]:
    return {"name": name, "shape": [n], "datatype": datatype, "parameters": {"binary_data_size": len(raw)}}, raw


TEXTS = b"\2\0\0\0de\2\0\0\0pl"
COLUMNS = [
    tensor("amount", "FP32", np.array([10.5, 11.5], "<f4").tobytes()),
    tensor("items", "UINT16", np.array([3, 65_535], "<u2").tobytes()),
    tensor("member", "BOOL", b"\1\0"),
    tensor("country", "BYTES", TEXTS),
    tensor("class", "FP64", np.array([math.nan, 2.5], "<f8").tobytes()),
]


def binary(*inputs: tuple[dict[str, Any], bytes], told: int | str | None = None, **more: Any) -> Request:
    head = json.dumps({"inputs": [one for one, _ in inputs], **more}).encode()
    headers = {LENGTH: str(len(head) if told is None else told)}
    return Request("POST", INFER, head + b"".join(raw for _, raw in inputs), headers)


class TestBinary:
    def test_raw_tensors_say_the_same_as_json(self, world: World) -> None:
        (response,) = world.engine.answer([binary(*COLUMNS, id="q")])
        records = [{**GOOD}, {**GOOD, "amount": 11.5, "items": 65_535, "member": False, "country": "pl", "class": 2.5}]
        plain = loads(world.records(*records))["predictions"]
        outputs = {one["name"]: one["data"] for one in loads(response)["outputs"]}
        assert outputs["score"] == [one["score"] for one in plain]
        assert [row["inputs"] for row in world.rows()[:2]] == records

    def test_raw_and_json_side_by_side(self, world: World) -> None:
        items = {"name": "items", "shape": [2, 1], "datatype": "INT64", "data": [[3], [4]]}
        (response,) = world.engine.answer([binary(COLUMNS[0], (items, b""), *COLUMNS[2:])])
        assert response.status == 200
        assert [row["inputs"]["items"] for row in world.rows()] == [3, 4]

    def test_binary_answers(self, world: World) -> None:
        wanted = [{"name": "score", "parameters": {"binary_data": False}}, {"name": "label"}, {"name": "id"}]
        request = binary(*COLUMNS, outputs=wanted, parameters={"binary_data_output": True}, id="q")
        (response,) = world.engine.answer([request])
        assert response.media == "application/octet-stream"
        length = int(dict(response.headers)[LENGTH])
        score, label, name = json.loads(response.body[:length])["outputs"]
        assert score["data"] == [0.5, 1 / (1 + math.exp(-1))]
        assert (label["parameters"], name["parameters"]) == ({"binary_data_size": 14}, {"binary_data_size": 14})
        assert response.body[length:] == b"\3\0\0\0yes\3\0\0\0yes\3\0\0\0q-0\3\0\0\0q-1"

    @pytest.mark.parametrize(
        ("request_", "status", "field", "rule"),
        [
            (binary(*COLUMNS, told=10**6), 400, LENGTH, "length"),
            (binary(*COLUMNS, told="-1"), 400, LENGTH, "length"),
            (binary(*COLUMNS, told="²"), 400, LENGTH, "length"),
            (binary(*COLUMNS[:4], ({"name": "class"}, b"more")), 422, None, "form"),
            (binary(*COLUMNS[:4], (COLUMNS[4][0], bytes(17))), 400, None, "binary_data_size"),
            (binary(*COLUMNS[:4], (COLUMNS[4][0], bytes(15))), 400, "class", "binary_data_size"),
            (binary(tensor("amount", "FP64", bytes(15)), *COLUMNS[1:]), 422, "amount", "binary data"),
            (binary(COLUMNS[0], tensor("items", "UINT64", b"\xff" * 16), *COLUMNS[2:]), 422, "items", "type UINT64"),
            (binary(tensor("amount", "FP16", b"\0\x7e\0\0"), *COLUMNS[1:]), 422, "amount", "type FP16"),
            (binary(*COLUMNS[:3], tensor("country", "BYTES", b"\xff" * 4), COLUMNS[4]), 422, "country", "binary data"),
        ],
    )  # fmt: skip
    def test_refusals(self, world: World, request_: Request, status: int, field: str | None, rule: str) -> None:
        (response,) = world.engine.answer([request_])
        body = loads(response)
        assert (response.status, body.get("field"), body["rule"]) == (status, field, rule)
        assert body["ids"] == [row["id"] for row in world.rows()]
        assert dict(response.headers)["x-prediction-id"] == ",".join(body["ids"])

    def test_a_shape_promises_no_memory(self, world: World) -> None:
        huge = [({**one, "shape": [10**15]}, raw) for one, raw in COLUMNS]
        (response,) = world.engine.answer([binary(*huge)])
        assert response.status == 422
        assert len(world.rows()) == 1

    def test_the_extension_is_named(self, world: World) -> None:
        assert loads(world.get("/v2"))["extensions"] == ["binary_tensor_data"]


ROWS = [{**GOOD, "class": 1.5}, {**GOOD, "amount": 2.5, "country": "pl", "class": 2.5}]
TABLE = pd.DataFrame(ROWS, index=[7, 9])
FORMS: list[Any] = [
    {"dataframe_split": TABLE.to_dict(orient="split")},
    {"dataframe_split": {"data": [list(row.values()) for row in ROWS]}, "params": {"t": 1}},
    {"dataframe_records": TABLE.to_dict(orient="records")},
    {"dataframe_records": [{**row, "tip": "not a feature"} for row in ROWS]},
    {"instances": ROWS},
    {"instances": [list(row.values()) for row in ROWS]},
    {"inputs": {name: list(values) for name, values in TABLE.items()}},
    {"inputs": {name: [[value] for value in values] for name, values in TABLE.items()}},
    {"inputs": ROWS},
]


class TestMlflow:
    @pytest.mark.parametrize("form", FORMS)
    def test_every_form_is_answered_with_labels(self, world: World, form: Any) -> None:
        response = post(world, INVOKE, form, content_type="application/json; charset=utf-8")
        assert loads(response) == {"predictions": ["yes", "no"], "ids": ["p1", "p2"]}
        assert dict(response.headers)["x-prediction-id"] == "p1,p2"
        assert [row["inputs"] for row in world.rows()] == ROWS

    def test_mlflow_reads_the_same_tables(self) -> None:
        split, records = FORMS[0]["dataframe_split"], FORMS[2]["dataframe_records"]
        tables = [dataframe_from_parsed_json(split, "split"), dataframe_from_parsed_json(records, "records")]
        for form in (FORMS[4], FORMS[6]):
            columns = parse_tf_serving_input(form)
            tables.append(pd.DataFrame({name: list(values) for name, values in columns.items()}))
        assert all(table.to_dict(orient="records") == ROWS for table in tables)

    def test_the_payload_of_mlflows_own_client(self, world: World) -> None:
        missing = TABLE.assign(**{"class": [1.5, math.nan]})
        payload = dump_input_data(missing)
        assert "NaN" in payload
        assert loads(post(world, "/invocations", payload.encode()))["predictions"] == ["yes", "no"]
        assert world.rows()[1]["inputs"]["class"] is None

    def test_csv_as_pandas_writes_it(self, world: World) -> None:
        text = TABLE.assign(**{"class": [1.5, math.nan]}).to_csv(index=False)
        response = post(world, INVOKE, text.encode(), content_type="text/csv")
        assert loads(response)["predictions"] == ["yes", "no"]
        assert [row["inputs"] for row in world.rows()] == [ROWS[0], {**ROWS[1], "class": None}]

    def test_values_of_a_regression(self) -> None:
        world = World()
        schema = Schema((Field("x", Kind.NUMBER), Field("id", Kind.INTEGER)), Task.REGRESSION, "y")
        world.route(world.bundle(lambda x: x[:, :1].astype(float) * 2, schema))
        response = post(world, INVOKE, {"inputs": {"x": 1.5, "id": 4}})
        assert loads(response) == {"predictions": [3.0], "ids": ["4"]}

    @pytest.mark.parametrize(
        ("body", "kind", "status", "told"),
        [
            (b"{", "", 400, {"rule": "json"}),
            ([], "", 422, {"rule": "type"}),
            ({"data": []}, "", 422, {"rule": "one of dataframe_split, dataframe_records, instances, inputs"}),
            ({"instances": ROWS, "inputs": ROWS}, "", 422, {}),
            ({"instances": []}, "", 422, {"rule": "not empty"}),
            ({"inputs": {"amount": [1]}}, "", 422, {"field": "items", "rule": "required"}),
            ({"inputs": {**FORMS[6]["inputs"], "items": [1]}}, "", 422, {"field": "items", "rule": "length"}),
            ({"instances": [ROWS[0], {**ROWS[1], "items": "x"}]}, "", 422, {"field": "items", "record": 1}),
            ({"instances": [ROWS[0], 5]}, "", 422, {"record": 1}),
            ({"instances": [[1, 2]]}, "", 422, {"record": 0}),
            ({"dataframe_split": {"columns": ["amount", "amount"], "data": []}}, "", 422, {"field": "columns"}),
            ({"dataframe_records": [dict(list(GOOD.items())[:-1])]}, "", 422, {"field": "class", "rule": "required"}),
            ({"dataframe_records": [{**GOOD, "amount": -1}]}, "", 422, {"field": "amount", "rule": "at least 0"}),
            (b"amount\n\xff", "text/csv", 400, {"rule": "csv"}),
            (b"amount,items\n1\n", "text/csv", 422, {"record": 0}),
            (b"amount,items,member,country,class\n1,x,true,de,\n", "text/csv", 422, {"field": "items", "record": 0}),
            (b"x", "application/vnd.apache.parquet", 415, {"rule": "application/json, text/csv"}),
        ],
    )
    def test_refusals(self, world: World, body: Any, kind: str, status: int, told: dict[str, Any]) -> None:
        response = post(world, INVOKE, body, **({"content_type": kind} if kind else {}))
        said = loads(response)
        assert (response.status, {name: said.get(name) for name in told}) == (status, told)
        assert said["message"] and said["error_code"].isupper()
        assert said["ids"] == [row["id"] for row in world.rows()]

    def test_the_plain_path_needs_one_model(self, world: World) -> None:
        assert post(world, "/invocations", FORMS[0]).status == 200
        arm = Arm(1, world.bundle(logistic))
        routes = {name: Route("R1", arm, None, salt="s") for name in ("fraud", "churn")}
        world.router.publish(Routing(world.router.read().version + 1, routes))
        world.engine.refresh()
        response = post(world, "/invocations", FORMS[0])
        assert (response.status, loads(response)["field"]) == (422, "model")
        assert post(world, "/v1/models/churn/invocations", FORMS[0]).status == 200
        assert post(world, "/v1/models/none/invocations", FORMS[0]).status == 404


class TestContentTypes:
    @pytest.mark.parametrize(
        ("path", "accept"),
        [
            ("/v1/models/fraud/predict", "application/json"),
            (INFER, "application/json, application/octet-stream"),
            (INVOKE, "application/json, text/csv"),
            ("/v1/feedback", "application/json"),
        ],
    )
    def test_what_is_not_spoken_is_told(self, world: World, path: str, accept: str) -> None:
        for kind in ("text/plain", "application/xml", "application/json; charset=utf-16", "x" * 500):
            response = post(world, path, {}, content_type=kind)
            assert response.status == 415
            assert dict(response.headers)["accept"] in (accept, "charset=utf-8")

    @pytest.mark.parametrize(
        "kind",
        ["application/json", "Application/JSON ; charset=UTF-8", "application/x-www-form-urlencoded", "text/json"],
    )
    def test_what_curl_and_others_send(self, world: World, kind: str) -> None:
        response = post(world, "/v1/models/fraud/predict", {"records": [GOOD]}, content_type=kind, accept="image/png")
        assert response.status == 200


class TestDocument:
    def test_tells_of_every_model_and_of_the_plain_path_while_there_is_one(self, world: World) -> None:
        paths = loads(world.get("/openapi.json"))["paths"]
        assert {INVOKE, INFER, "/invocations", "/v1/models/fraud/predict", "/v1/feedback", "/v2/health/startup"} <= set(
            paths
        )
        given = paths["/v1/models/fraud/predict"]["post"]["requestBody"]["content"]["application/json"]
        assert post(world, "/v1/models/fraud/predict", given["example"]).status == 200
        known = given["schema"]["properties"]["records"]["items"]["properties"]
        assert known["country"] == {"type": "string", "enum": ["de", "fr", "pl"]}
        assert (
            -known["class"]["exclusiveMinimum"] == known["class"]["exclusiveMaximum"] > float(np.finfo(np.float32).max)
        )
        assert (known["amount"]["minimum"], known["amount"]["maximum"]) == (0, 1_000)

    def test_every_example_is_answered(self, world: World) -> None:
        for path, one in loads(world.get("/openapi.json"))["paths"].items():
            if "post" in one:
                example = one["post"]["requestBody"]["content"]["application/json"]["example"]
                assert post(world, path, example).status == 200, path
            else:
                assert world.get(path).status == 200, path

    def test_the_page_shows_what_a_schema_says_as_text(self) -> None:
        world = World()
        schema = Schema((Field("<script>", Kind.TEXT, values=("</pre>", "'")),), Task.REGRESSION, "y")
        world.route(world.bundle(lambda x: x, schema))
        page = world.get("/docs").body
        assert b"<script" not in page and b'</pre>"' not in page
        assert b"//" not in page.replace(b"http://localhost:8701/", b"")


class TestHealth:
    def test_not_ready_before_a_release_and_started_for_good_after_it(self) -> None:
        world = World()
        paths = ("/v2/health/ready", "/v2/health/startup", "/ping", "/health")
        assert [world.get(path).status for path in ("/v2/health/live", *paths)] == [200, 503, 503, 503, 503]
        world.route(world.bundle(logistic))
        assert [world.get(path).status for path in paths] == [200] * 4
        world.route(world.blobs.put(b"no bundle"))
        assert [world.get(path).status for path in paths] == [503, 200, 503, 503]
        assert post(world, INFER, {}).status == 422  # the champion before goes on answering

    def test_a_sample_that_gives_other_scores_is_not_ready(self) -> None:
        world = World()
        sample = (((10.5, 3.0, 1.0, 0.0, 1.0), (0.4, 0.6)),)
        world.route(world.bundle(logistic, sample=sample))
        ready = world.get("/v2/health/ready")
        assert (ready.status, "stored scores" in loads(ready)["reason"]) == (503, True)

    def test_wrong_methods(self, world: World) -> None:
        for path in ("/v2/health/ready", "/v2/models/fraud", "/ping", "/openapi.json", "/docs", "/version", "/v2"):
            response = post(world, path, b"")
            assert (response.status, dict(response.headers)["allow"]) == (405, "GET, HEAD"), path
        for path in ("/invocations", INVOKE, INFER, "/v1/feedback"):
            response = world.get(path)
            assert (response.status, dict(response.headers)["allow"]) == (405, "POST"), path
        assert isinstance(loads(world.get(INFER))["error"], str)
        assert loads(world.get("/invocations"))["error_code"] == "BAD_REQUEST"


class TestTraceContext:
    PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    def test_is_carried_on_under_a_span_of_our_own(self, world: World) -> None:
        body = {"records": [GOOD]}
        response = post(world, "/v1/models/fraud/predict", body, traceparent=self.PARENT, tracestate="a=1,b=2")
        headers = dict(response.headers)
        version, trace, span, flags = headers["traceparent"].split("-")
        assert (version, trace, flags) == ("00", "4bf92f3577b34da6a3ce929d0e0e4736", "01")
        assert len(span) == 16 and span != "00f067aa0ba902b7"
        assert headers["tracestate"] == "a=1,b=2"

    def test_rows_are_found_by_it(self, world: World) -> None:
        def traced(record: Any, parent: str) -> Request:
            body = json.dumps({"records": [record]}).encode()
            return Request("POST", "/v1/models/fraud/predict", body, {"traceparent": parent})

        plain = Request("POST", "/v1/models/fraud/predict", json.dumps({"records": [{**GOOD, "id": "b"}]}).encode())
        refused = traced({**GOOD, "id": "c", "amount": -1}, self.PARENT)
        world.engine.answer(
            [traced({**GOOD, "id": "a"}, self.PARENT), plain, refused, traced({**GOOD, "id": "d"}, "x")]
        )
        assert sorted(world.log.find(self.PARENT[3:35])["id"]) == ["a", "c"]
        assert len(world.rows()) == 4

    @pytest.mark.parametrize(
        "parent", ["", "x", PARENT.upper(), "ff" + PARENT[2:], PARENT + "-more", "00-" + "0" * 32 + PARENT[35:]]
    )
    def test_what_is_none_is_left(self, world: World, parent: str) -> None:
        response = post(world, "/v1/models/fraud/predict", {"records": [GOOD]}, traceparent=parent)
        assert response.status == 200
        assert "traceparent" not in dict(response.headers)

    def test_spans_of_requests_and_stages(self, world: World) -> None:
        seen, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(seen))
        world = replace(world, tracing=otel.Spans(provider.get_tracer("test")))
        world.route(world.bundle(logistic))
        body = json.dumps({"records": [GOOD]}).encode()
        good = Request("POST", "/v1/models/fraud/predict", body, {"traceparent": self.PARENT})
        responses = world.engine.answer([good, Request("GET", "/secret")])
        spans = {span.name: span for span in seen.get_finished_spans()}
        assert list(spans) == ["decode", "check", "predict", "log", "encode", "tick", f"POST {good.path}", "GET"]
        mine, tick = spans[f"POST {good.path}"], spans["tick"]
        assert f"{mine.context.trace_id:032x}" == self.PARENT[3:35]
        assert f"{mine.parent.span_id:016x}" == self.PARENT[36:52]
        assert dict(responses[0].headers)["traceparent"][36:52] == f"{mine.context.span_id:016x}"
        assert mine.attributes["homeostat.prediction-id"] == "p1"
        assert mine.links[0].context.span_id == tick.context.span_id
        assert all(spans[name].parent.span_id == tick.context.span_id for name in ("decode", "predict"))
        assert tick.start_time <= spans["decode"].end_time <= spans["log"].end_time <= tick.end_time

    @pytest.mark.parametrize(
        ("variables", "name"),
        [
            ({}, None),
            ({"OTEL_SERVICE_NAME": "fraud"}, None),
            ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, "otlp"),
            ({"OTEL_TRACES_EXPORTER": "console"}, "console"),
            ({"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"}, None),
        ],
    )
    def test_only_when_it_is_asked_for(self, variables: dict[str, str], name: str | None) -> None:
        assert plane._exporter(variables) == name

    def test_spans_over_the_wire(self, monkeypatch: pytest.MonkeyPatch) -> None:
        received: Queue[tuple[str, bytes]] = Queue()

        class Collector(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.put((self.path, self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        with HTTPServer(("127.0.0.1", 0), Collector) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
            monkeypatch.setenv("OTEL_SERVICE_NAME", "fraud")
            provider = otel.provider("otlp")
            otel.Spans(provider.get_tracer("test")).tick().end([], [])
            provider.shutdown()
            server.shutdown()
            thread.join()
        path, body = received.get_nowait()
        assert (path, b"tick" in body, b"fraud" in body) == ("/v1/traces", True, True)

    def test_an_exporter_that_is_not_there_is_an_error(self) -> None:
        with pytest.raises(ConfigError, match="carrier-pigeon is not installed"):
            otel.provider("carrier-pigeon")
        otel.provider("console").shutdown()
