"""The engine without a socket: answers, refusals, fallback, shadow, and what each leaves in the log."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worlds import BINARY, GOOD, World, loads, logistic

from homeostat.domain.errors import Corrupt
from homeostat.domain.prediction import LogBatch
from homeostat.domain.rollout import Arm, Route, Routing
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.domain.units import ALL
from homeostat.serving.bundles import FOOTPRINT
from homeostat.serving.messages import Request
from homeostat.serving.typed import LONGEST_ID
from homeostat.stores.days import DayTables
from homeostat.stores.memory_log import MemoryLog
from homeostat.stores.predictions import SegmentLog


@pytest.fixture
def world() -> World:
    world = World()
    world.route(world.bundle(logistic))
    return world


def failing(x: Any, /) -> Any:
    raise RuntimeError(f"secret of {len(x)} rows")


def told(world: World, bundle: str) -> tuple[int, str]:
    """Is it ready, and why not?"""
    response = world.get(f"/v1/bundles/{bundle}/ready")
    return response.status, loads(response)["reason"]


def half_finite(x: Any, /) -> Any:
    output = logistic(x)
    output[x[:, 0] > 500] = np.nan
    return output


class TestAnswers:
    def test_a_record_is_answered_and_logged_as_served(self, world: World) -> None:
        response = world.records({**GOOD, "id": "a", "key": 7})
        assert response.status == 200
        assert loads(response) == {
            "release": "R1",
            "model_version": 1,
            "predictions": [{"id": "a", "score": 0.5, "label": "yes"}],
        }
        assert dict(response.headers) == {"x-prediction-id": "a", "x-release-id": "R1", "x-model-version": "1"}
        (row,) = world.rows()
        assert row == {
            "id": "a", "key": "7", "at_ms": world.clock.ms, "release": "R1", "version": 1, "arm": "champion",
            "role": "answer", "weight": 0, "status": "ok", "model_us": 7, "score": 0.5, "label": "yes",
            "scores": None, "inputs": GOOD,
        }  # fmt: skip

    def test_fresh_ids_and_order(self, world: World) -> None:
        body = loads(world.records(*[{**GOOD, "amount": float(i)} for i in range(5)]))
        assert [one["id"] for one in body["predictions"]] == ["p1", "p2", "p3", "p4", "p5"]
        scores = [one["score"] for one in body["predictions"]]
        assert scores == sorted(scores)
        assert len(set(scores)) == 5

    def test_a_request_that_names_itself_gets_the_same_ids_again(self, world: World) -> None:
        body = json.dumps({"records": [GOOD, {**GOOD, "id": "mine"}, GOOD]}).encode()
        request = Request("POST", "/v1/models/fraud/predict", body, {"idempotency-key": "order-7"})
        first, again = (world.engine.answer([request])[0] for _ in range(2))
        assert [one["id"] for one in loads(first)["predictions"]] == ["order-7", "mine", "order-7-1"]
        assert first == again
        assert [row["id"] for row in world.rows()] == ["order-7", "mine", "order-7-1"]

    @pytest.mark.parametrize("path", ["/v1/models/fraud/predict", "/v2/models/fraud/infer"])
    def test_long_names_of_requests_are_not_cut(self, world: World, path: str) -> None:
        """Two that differ in their last character alone are two, and no id is too long for its label."""
        ids: list[str] = []
        for key in ("k" * 255 + end for end in "ab"):
            kinds = {"amount": "FP64", "items": "INT64", "member": "BOOL", "country": "BYTES", "class": "BYTES"}
            inputs = [
                {"name": name, "datatype": kind, "shape": [2], "data": [GOOD[name]] * 2} for name, kind in kinds.items()
            ]
            body = {"records": [GOOD, GOOD]} if "v1" in path else {"id": key, "inputs": inputs}
            request = Request("POST", path, json.dumps(body).encode(), {"idempotency-key": key})
            ids += dict(world.engine.answer([request])[0].headers)["x-prediction-id"].split(",")
        assert len(set(ids)) == 4
        assert max(map(len, ids)) <= LONGEST_ID

    def test_labels_keep_the_type_of_the_data(self) -> None:
        world = World()
        x = (Field("x", Kind.NUMBER),)
        three = Schema(x, Task.MULTICLASS, "y", (1, 2, 3))
        world.route(world.bundle(lambda x: np.tile([0.2, 0.5, 0.3], (len(x), 1)), three))
        (answer,) = loads(world.records({"x": 1}))["predictions"]
        assert answer == {"id": "p1", "score": 0.5, "label": 2, "scores": {"1": 0.2, "2": 0.5, "3": 0.3}}
        assert world.rows()[0]["scores"] == [0.2, 0.5, 0.3]
        world.route(world.bundle(lambda x: x.astype(float) * 2, Schema(x, Task.REGRESSION, "y")))
        (answer,) = loads(world.records({"x": 1.5}))["predictions"]
        assert answer == {"id": "p2", "value": 3.0}

    def test_a_field_named_id_is_the_feature_and_the_id(self) -> None:
        world = World()
        schema = Schema((Field("id", Kind.INTEGER), Field("x", Kind.NUMBER)), Task.REGRESSION, "y")
        world.route(world.bundle(lambda x: x[:, :1].astype(float), schema))
        (answer,) = loads(world.records({"id": 12, "x": 1, "key": "k"}))["predictions"]
        assert answer == {"id": "12", "value": 12.0}
        assert (world.rows()[0]["key"], world.rows()[0]["inputs"]) == ("k", {"id": 12, "x": 1.0})

    def test_an_id_cannot_forge_a_header(self, world: World) -> None:
        response = world.records({**GOOD, "id": "a\r\nx-evil: 1,\u00e9"})
        assert dict(response.headers)["x-prediction-id"] == "a%0D%0Ax-evil: 1%2C%C3%A9"
        assert loads(response)["predictions"][0]["id"] == "a\r\nx-evil: 1,\u00e9"


REFUSED: list[tuple[Any, int, dict[str, Any]]] = [
    (b"{", 400, {"rule": "json"}),
    (b'{"records": [{"country": "\xff"}]}', 400, {"rule": "json"}),
    ({"records": []}, 422, {"field": "records", "rule": "not empty"}),
    ([], 422, {"rule": "type"}),
    ({"records": [GOOD, 5]}, 422, {"rule": "type", "record": 1}),
    ({"records": [GOOD, {**GOOD, "tip": 1}]}, 422, {"field": "tip", "rule": "unknown", "record": 1}),
    ({"records": [{"amount": 1.0}]}, 422, {"field": "items", "rule": "required", "record": 0}),
    ({"records": [{**GOOD, "amount": "12"}]}, 422, {"field": "amount", "rule": "a number", "record": 0}),
    ({"records": [{**GOOD, "amount": True}]}, 422, {"field": "amount", "rule": "a number", "record": 0}),
    ({"records": [{**GOOD, "items": 1.5}]}, 422, {"field": "items", "rule": "an integer", "record": 0}),
    ({"records": [{**GOOD, "items": 10**30}]}, 422, {"field": "items", "rule": "finite", "record": 0}),
    ({"records": [{**GOOD, "member": 1}]}, 422, {"field": "member", "rule": "true or false", "record": 0}),
    ({"records": [{**GOOD, "amount": None}]}, 422, {"field": "amount", "rule": "not null", "record": 0}),
    ({"records": [GOOD, {**GOOD, "amount": -1}]}, 422, {"field": "amount", "rule": "at least 0", "record": 1}),
    ({"records": [{**GOOD, "amount": 1000.5}]}, 422, {"field": "amount", "rule": "at most 1000", "record": 0}),
    ({"records": [{**GOOD, "class": 1e39}]}, 422, {"field": "class", "rule": "finite", "record": 0}),
    ({"records": [{**GOOD, "country": "xx"}]}, 422, {"field": "country", "rule": "one of de, fr, pl", "record": 0}),
    ({"records": [{**GOOD, "id": "a"}, {**GOOD, "id": "a"}]}, 422, {"field": "id", "rule": "once"}),
]


def asked(weight: int, bodies: list[Any], *, plain: bool) -> tuple[list[tuple[int, bytes]], list[str]]:
    """Answers and rows of a champion that fails on some rows, the ids that they did not bring left out."""
    world = World()
    world.route(world.bundle(half_finite), world.bundle(logistic), weight=weight)
    answers = world.ask(*bodies, plain=plain)
    rows = [{**row, "id": re.sub("^p[0-9]+$", "p", row["id"])} for row in world.rows()]
    return [(one.status, re.sub(rb'"p[0-9]+"', b'"p"', one.body)) for one in answers], sorted(map(str, rows))


class TestRefusals:
    @pytest.mark.parametrize(("body", "status", "detail"), REFUSED)
    def test_names_field_rule_and_record(self, world: World, body: Any, status: int, detail: dict[str, Any]) -> None:
        (response,) = world.ask(body)
        error = loads(response)["error"]
        error.pop("message")
        if error.get("rule") == "type" and "field" in detail:
            error["rule"] = detail["rule"]
        assert (response.status, error) == (status, detail)

    def test_fails_alone_and_is_logged(self, world: World) -> None:
        good = {"records": [GOOD]}
        bad = {"records": [{**GOOD, "amount": -1, "id": "far"}, GOOD]}
        odd = {"records": [{**GOOD, "items": "many", "id": "odd"}]}
        responses = world.ask(good, bad, b"{", odd, good)
        assert [response.status for response in responses] == [200, 422, 400, 422, 200]
        kept = {row["id"]: (row["role"], row["status"], row["inputs"]["items"]) for row in world.rows()}
        assert kept.pop("far") == ("rejected", "rejected", 3)
        assert kept.pop("odd") == ("rejected", "rejected", None)
        assert sorted(role for role, _, _ in kept.values()) == ["answer", "answer", "rejected", "rejected"]
        assert [loads(response).get("ids") for response in responses[1:4]] == [["far", "p3"], ["p4"], ["odd"]]
        assert dict(responses[2].headers)["x-prediction-id"] == "p4"
        broken = {row["id"]: row["label"] for row in world.rows() if row["role"] == "rejected"}
        assert broken == {
            "far": "amount: at least 0",
            "p3": "amount: at least 0",
            "p4": "json",
            "odd": "items: type",
        }

    @pytest.mark.parametrize("weight", [0, 5_000])
    def test_decoded_together_or_each_by_itself(self, weight: int) -> None:
        sound = [{"records": [{**GOOD, "id": f"g{i}", "amount": 50.0 * i}]} for i in range(20)]
        some = {"records": [{**GOOD, "id": f"s{i}"} for i in range(3)]}
        broken = [body for body, _, _ in REFUSED]
        for bodies in (sound[:5], [*sound, some, *broken, *reversed(sound[:7])]):
            told = [asked(weight, bodies, plain=plain) for plain in (True, False)]
            assert told[0] == told[1]
        assert {status for status, _ in told[0][0]} == {200, 400, 422, 500}

    def test_paths_and_methods(self, world: World) -> None:
        assert world.get("/v1/models/fraud/predict").status == 405
        assert dict(world.get("/v1/models/fraud/predict").headers) == {"allow": "POST"}
        assert world.ask({}, path="/v1/models/other/predict")[0].status == 404
        assert world.get("/nothing").status == 404
        assert World().ask({"records": [GOOD]})[0].status == 503

    def test_no_answer_without_a_record(self) -> None:
        class Full(MemoryLog):
            def append(self, batch: LogBatch) -> None:
                raise OSError(f"No space left on device: /secret/{batch.model}")

        world = World(log=Full())
        world.route(world.bundle(logistic))
        response = world.records(GOOD)
        assert (response.status, loads(response)["error"]["rule"]) == (503, "log")
        assert b"secret" not in response.body


class TestArms:
    def test_a_key_keeps_its_arm_and_shares_are_kept(self, world: World) -> None:
        world.route(world.bundle(logistic), world.bundle(lambda x: logistic(x + 1)), weight=1_000)
        keys = [{**GOOD, "key": f"k{i}"} for i in range(3_000)]
        assert world.records(*keys).status == 200
        first = {row["key"]: row["arm"] for row in world.rows()}
        assert 230 < sum(arm == "candidate" for arm in first.values()) < 370  # 300, six deviations wide
        world.records(*reversed(keys))
        assert all(first[row["key"]] == row["arm"] for row in world.rows())
        assert {(row["arm"], row["version"], row["weight"]) for row in world.rows()} == {
            ("champion", 1, 1_000),
            ("candidate", 2, 1_000),
        }

    def test_a_split_request_tells_each_version(self, world: World) -> None:
        world.route(world.bundle(logistic), world.bundle(logistic), weight=5_000)
        body = loads(world.records(*[{**GOOD, "key": f"k{i}"} for i in range(20)]))
        assert {one["model_version"] for one in body["predictions"]} == {1, 2}

    @pytest.mark.parametrize(
        ("model", "status"), [(failing, "error"), (lambda x: logistic(x)[:, :1], "error"), (half_finite, "nonfinite")]
    )
    def test_the_champion_answers_when_the_candidate_fails(self, world: World, model: Any, status: str) -> None:
        world.route(world.bundle(logistic), world.bundle(model), weight=10_000)
        response = world.records({**GOOD, "amount": 600.0, "id": "a"}, {**GOOD, "id": "b"})
        assert response.status == 200
        assert [one["score"] for one in loads(response)["predictions"]] == [1.0, 0.5]
        rows = {(row["id"], row["role"]): row for row in world.rows()}
        answer, failed = rows["a", "answer"], rows["a", "failed"]
        assert (answer["version"], answer["arm"], answer["status"]) == (1, "candidate", "ok")
        assert (failed["version"], failed["arm"], failed["status"], failed["score"]) == (2, "candidate", status, None)
        assert (("b", "failed") in rows) == (status == "error")

    def test_a_candidate_that_does_not_end_is_given_up(self) -> None:
        world, ended = World(timeout_s=0.05), threading.Event()

        def endless(x: Any, /) -> Any:
            ended.wait(60)
            return logistic(x)

        world.route(world.bundle(logistic), world.bundle(endless), weight=ALL)
        for _ in range(6):  # more than there are threads for
            response = world.records(GOOD)
            assert (response.status, loads(response)["model_version"]) == (200, 1)
        ended.set()
        rows = [(row["role"], row["arm"], row["status"]) for row in world.rows()]
        assert rows == [("answer", "candidate", "ok"), ("failed", "candidate", "timeout")] * 6

    def test_handing_a_call_to_another_thread_is_not_the_models_time(self) -> None:
        world = World(timeout_s=60.0)
        world.route(world.bundle(logistic), world.bundle(logistic), weight=ALL // 2)
        world.records(*[{**GOOD, "key": f"k{i}"} for i in range(20)])
        assert {(row["version"], row["model_us"]) for row in world.rows()} == {(1, 7), (2, 7)}

    def test_a_candidate_that_takes_ever_more_memory_is_unloaded(self) -> None:
        world, kept = World(timeout_s=60.0, memory=100e6), list[Any]()

        def leaking(x: Any, /) -> Any:
            kept.append(np.ones(4_300_000))  # 34 MB: so large that malloc gives no used memory
            return logistic(x)

        champion, candidate = world.bundle(logistic), world.bundle(leaking)
        world.route(champion, candidate, weight=ALL)
        for _ in range(10):
            assert world.records(GOOD).status == 200
        assert len(kept) in (3, 4)
        failed = [row["status"] for row in world.rows() if row["role"] == "failed"]
        assert failed == ["memory"] * (11 - len(kept))
        assert told(world, candidate) == (200, "")
        world.engine.refresh()
        assert told(world, candidate) == (503, "its calls took more memory than serving.memory leaves")
        assert world.records(GOOD).status == 200
        world.route(champion)
        told(world, candidate)
        world.engine.refresh()
        assert told(world, candidate) == (200, "")  # for another release

    def test_what_the_champion_keeps_and_a_candidate_gives_back_is_no_leak(self) -> None:
        world, kept = World(timeout_s=60.0, memory=60e6), list[Any]()

        def leaking(x: Any, /) -> Any:
            kept.append(np.ones(500_000))
            return logistic(x)

        def large(x: Any, /) -> Any:  # each of the threads that call it may keep as much
            return logistic(x) + 0 * np.ones(500_000).sum()

        world.route(world.bundle(leaking), world.bundle(large), weight=ALL // 2)
        for _ in range(20):
            world.records(*[{**GOOD, "key": f"k{i}"} for i in range(20)])
        assert len(kept) == 20
        assert {row["role"] for row in world.rows()} == {"answer"}

    @pytest.mark.parametrize("weight", [0, ALL])
    def test_a_row_that_the_model_can_not_take_fails_alone(self, world: World, weight: int) -> None:
        def picky(x: Any, /) -> Any:
            if (x[:, 0] > 500).any():
                raise ValueError("too large")
            return logistic(x)

        world.route(world.bundle(logistic if weight else picky), world.bundle(picky), weight=weight)
        bad = {"p3", "p4", "p17"}
        rows = [{**GOOD, "id": f"p{i}", "amount": 600.0 if f"p{i}" in bad else 1.0} for i in range(20)]
        asked = [Request("POST", "/v1/models/fraud/predict", json.dumps({"records": [row]}).encode()) for row in rows]
        statuses = [response.status for response in world.engine.answer(asked)]
        assert statuses == [200 if weight or row["id"] not in bad else 500 for row in rows]
        failed = {row["id"] for row in world.rows() if row["status"] == "error"}
        assert failed == bad

    def test_a_champion_that_fails_tells_nothing(self, world: World) -> None:
        world.route(world.bundle(failing))
        response = world.records(GOOD)
        assert response.status == 500
        assert b"secret" not in response.body
        assert [(row["role"], row["status"]) for row in world.rows()] == [("answer", "error")]

    def test_shadow_runs_after_the_answer(self, world: World) -> None:
        world.route(world.bundle(logistic), world.bundle(lambda x: logistic(x + 1)), weight=5_000, shadow=True)
        world.records(*[{**GOOD, "id": f"i{i}"} for i in range(40)])
        assert {row["role"] for row in world.rows()} == {"answer"}
        world.engine.shadow()
        rows = {(row["id"], row["role"]): row for row in world.rows()}
        assert len(rows) == 80
        for i in range(40):
            answer, shadow = rows[f"i{i}", "answer"], rows[f"i{i}", "shadow"]
            assert {answer["version"], shadow["version"]} == {1, 2}
            assert answer["arm"] == shadow["arm"] == ("champion" if answer["version"] == 1 else "candidate")
            assert (answer["score"] == 0.5) == (answer["version"] == 1)

    def test_a_row_that_breaks_the_champion_is_shown_to_the_candidate_too(self, world: World) -> None:
        world.route(world.bundle(half_finite), world.bundle(failing), weight=0, shadow=True)
        world.records({**GOOD, "amount": 600.0, "id": "a"}, {**GOOD, "id": "b"})
        world.engine.shadow()
        found = {(row["id"], row["role"], row["status"]) for row in world.rows()}
        assert {one[:2] for one in found} == {("a", "answer"), ("b", "answer"), ("a", "shadow"), ("b", "shadow")}
        assert {status for _, role, status in found if role == "shadow"} == {"error"}
        assert {status for _, role, status in found if role == "answer"} == {"ok", "nonfinite"}

    def test_a_candidate_without_the_champions_fields_sees_null(self, world: World) -> None:
        schema = Schema((*BINARY.fields, Field("new", Kind.NUMBER)), Task.BINARY, "fraud", BINARY.classes)
        seen: list[Any] = []
        world.route(
            world.bundle(logistic), world.bundle(lambda x: (seen.append(x), logistic(x))[1], schema), weight=10_000
        )
        assert world.records(GOOD).status == 200
        assert np.isnan(seen[0][0, 5])


class TestBundles:
    def test_models_beyond_the_memory_are_loaded_when_they_are_asked_for(self, linear_onnx: bytes) -> None:
        schema = Schema(tuple(Field(f"f{i}", Kind.NUMBER) for i in range(20)), Task.BINARY, "y", (0, 1))
        row = {f"f{i}": 0.0 for i in range(20)}
        two = FOOTPRINT * len(linear_onnx) * 2
        world, names = World(memory=two), ["a", "b", "c", "d"]
        bundles = {name: world.bundle(linear_onnx, schema, model=name) for name in names}
        routes = {name: Route(f"R{name}", Arm(1, bundle)) for name, bundle in bundles.items()}
        world.router.publish(Routing(1, routes))
        world.engine.refresh()

        def held() -> set[str]:
            return {name for name, bundle in bundles.items() if world.get(f"/v1/bundles/{bundle}/ready").status == 200}

        def asked(name: str) -> Request:
            return Request("POST", f"/v1/models/{name}/predict", json.dumps({"records": [row]}).encode())

        assert held() == {"a", "b"}
        assert not world.engine.slow(asked("a"))
        for name, left in (("c", "b"), ("a", "b"), ("d", "c")):
            world.clock.ms += 1
            assert world.engine.slow(asked(name)) == (name != "a")
            ((response,),) = [world.engine.answer([asked(name)])]
            assert (response.status, loads(response)["release"]) == (200, f"R{name}")
            assert left not in world.engine._plan.models
        assert set(world.engine._plan.models) == {"a", "d"}
        assert len(held()) <= 3  # one spare may stay
        assert world.get("/v2/health/ready").status == 200
        assert world.get("/v2/models/b").status == 200

    def test_a_wrong_sample_never_gets_traffic(self, world: World) -> None:
        row = (10.5, 3.0, 1.0, 0.0, 0.0)
        wrong = world.bundle(logistic, sample=((row, (0.4, 0.6)),))
        right = world.bundle(logistic, sample=((row, (0.5, 0.5)),))
        assert not world.engine.ready("fraud", wrong)
        assert world.engine.ready("fraud", right)
        assert "sample" in loads(world.get(f"/v1/bundles/{wrong}/ready"))["reason"]
        world.route(wrong)
        assert loads(world.records(GOOD))["model_version"] == 1  # by the route before
        assert world.get("/v2/health/ready").status == 503

    def test_a_document_that_can_not_be_read_is_told_once(
        self, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def torn() -> Routing:
            raise Corrupt("stored Routing can't be read")

        for _ in range(2):
            with monkeypatch.context() as patch:
                patch.setattr(world.router, "read", torn)
                assert not any(world.engine.refresh() for _ in range(3))
            world.engine.refresh()
        assert [one.message for one in caplog.records] == ["the routing document can't be read"] * 2
        assert world.records(GOOD).status == 200

    def test_asking_over_http_loads_at_the_next_refresh(self, world: World) -> None:
        fresh = world.bundle(lambda x: logistic(x + 2))
        assert world.get(f"/v1/bundles/{fresh}/ready").status == 503
        world.engine.refresh()
        assert world.get(f"/v1/bundles/{fresh}/ready").status == 200

    def test_an_unready_candidate_is_answered_by_the_champion(self, world: World) -> None:
        world.route(world.bundle(logistic), "f" * 64, weight=10_000)
        assert world.records(GOOD).status == 200
        assert sorted(row["role"] for row in world.rows()) == ["answer", "failed"]
        assert world.get("/v2/health/ready").status == 200


class TestFeedback:
    def test_late_repeated_corrected(self, world: World) -> None:
        def send(*labels: Any) -> Any:
            return world.ask({"labels": labels}, path="/v1/feedback")[0]

        at = "2023-11-14T22:13:20Z"  # 1,700,000,000 s
        assert loads(send({"id": "a", "label": "yes"}, {"id": 5, "label": "no", "at": at})) == {"accepted": 2}
        send({"id": "a", "label": "no", "at": world.clock.ms + 5})
        assert world.labels.read(0, 2**62).rows() == [
            ("5", "no", 1_700_000_000_000, ""),
            ("a", "no", world.clock.ms + 5, ""),
        ]
        error = loads(send({"id": "a", "label": "yes"}, {"id": "b", "label": "perhaps"}))["error"]
        assert (error["field"], error["record"]) == ("label", 1)
        assert world.labels.read(0, 2**62).height == 2
        assert send().status == 422
        assert world.ask(b"{", path="/v1/feedback")[0].status == 400


class TestV2:
    INPUTS = (
        ("amount", "FP64", [10.5, 11.5]), ("items", "INT64", [3, 4]), ("member", "BOOL", [True, False]),
        ("country", "BYTES", ["de", "pl"]), ("class", "FP32", [None, 2.0]),
    )  # fmt: skip

    def infer(self, world: World, path: str = "/v2/models/fraud/infer", **changes: Any) -> Any:
        inputs = [
            {"name": name, "datatype": changes.get(f"{name}_type", kind), "shape": [2], "data": changes.get(name, data)}
            for name, kind, data in self.INPUTS
        ]
        return world.ask({"id": "q", "inputs": inputs, **changes.get("more", {})}, path=path)[0]

    def test_answers_like_records(self, world: World) -> None:
        response = self.infer(world)
        body = loads(response)
        outputs = {one["name"]: (one["datatype"], one["shape"], one["data"]) for one in body["outputs"]}
        plain = loads(world.records(GOOD, {**GOOD, "amount": 11.5}))["predictions"]
        assert outputs == {
            "score": ("FP64", [2], [one["score"] for one in plain]),
            "label": ("BYTES", [2], ["yes", "yes"]),
            "id": ("BYTES", [2], ["q-0", "q-1"]),
        }
        assert (body["id"], body["model_version"], body["model_name"]) == ("q", "1", "fraud")
        assert body["parameters"] == {"release": "R1", "prediction_ids": "q-0,q-1"}
        assert world.rows()[1]["inputs"]["country"] == "pl"

    def test_nested_columns_and_chosen_outputs(self, world: World) -> None:
        inputs = [
            {"name": name, "datatype": kind, "shape": [2, 1], "data": [[value] for value in data]}
            for name, kind, data in self.INPUTS
        ]
        key = {"name": "key", "datatype": "BYTES", "shape": [2], "data": ["k", "l"]}
        body = {"inputs": [*inputs, key], "outputs": [{"name": "label"}]}
        (response,) = world.ask(body, path="/v2/models/fraud/infer")
        assert [one["name"] for one in loads(response)["outputs"]] == ["label"]
        assert [row["key"] for row in world.rows()] == ["k", "l"]

    @pytest.mark.parametrize(
        ("changes", "field", "rule"),
        [
            ({"amount": [1.0, "x"]}, "amount", "type FP64"),
            ({"amount_type": "BYTES"}, "amount", "datatype FP64"),
            ({"items": [1]}, "items", "shape"),
            ({"amount": [1.0, -1.0]}, "amount", "at least 0"),
            ({"more": {"inputs": []}}, "inputs", "not empty"),
        ],
    )
    def test_refusals_are_texts_with_details(self, world: World, changes: Any, field: str, rule: str) -> None:
        response = self.infer(world, **changes)
        body = loads(response)
        assert (response.status, body["field"], body["rule"]) == (422, field, rule)
        assert isinstance(body["error"], str)

    def test_metadata_and_health(self, world: World) -> None:
        world.route(world.bundle(logistic), world.bundle(logistic), weight=0)
        assert [world.get(path).status for path in ("/v2", "/v2/health/live", "/v2/health/ready")] == [200] * 3
        about = loads(world.get("/v2/models/fraud"))
        assert about["versions"] == ["1", "2"]
        assert about["inputs"][3] == {"name": "country", "datatype": "BYTES", "shape": [-1]}
        assert world.get("/v2/models/fraud/versions/2/ready").status == 200
        assert world.get("/v2/models/fraud/versions/3").status == 404
        assert loads(self.infer(world, "/v2/models/fraud/versions/2/infer"))["model_version"] == "2"


class Forgetful(MemoryLog):
    """Logging switched off."""

    def append(self, batch: LogBatch) -> None:
        pass


def test_alone_or_together_logged_or_not_byte_for_byte(
    lightgbm_onnx: bytes, linear_onnx: bytes, tmp_path: Path
) -> None:
    schema = Schema(tuple(Field(f"f{i}", Kind.NUMBER) for i in range(20)), Task.BINARY, "y", (0, 1))
    rows = np.random.default_rng(1).normal(size=(50, 20)).tolist()
    bodies = [
        json.dumps({"records": [{**{f"f{j}": x for j, x in enumerate(row)}, "id": str(i)}]}).encode()
        for i, row in enumerate(rows)
    ]
    for number, onnx in enumerate((lightgbm_onnx, linear_onnx)):
        log = SegmentLog(tmp_path / str(number), "w", DayTables(tmp_path))
        logged, forgotten = World(log=log), World(log=Forgetful())
        for world in (logged, forgotten):
            world.route(world.bundle(onnx, schema))
        together = logged.ask(*bodies)
        assert together == [logged.ask(body)[0] for body in bodies]
        assert together == forgotten.ask(*bodies)
        assert together == [forgotten.ask(body)[0] for body in bodies]
        assert len(logged.rows()) == 50
        assert not forgotten.rows()
