"""Predictions that come back from the edge."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from worlds import BINARY, GOOD, World, loads, logistic

from homeostat.domain.prediction import EDGE, LogBatch
from homeostat.domain.schema import Schema, Task
from homeostat.serving.edge import MOST
from homeostat.serving.messages import Response
from homeostat.stores.memory_log import MemoryLog

PATH = "/v1/models/fraud/predictions"


@pytest.fixture
def world() -> World:
    made = World()
    made.route(made.bundle(logistic))
    return made


def row(world: World, **changes: Any) -> dict[str, Any]:
    bundle = world.router.read().routes["fraud"].champion.bundle
    answer = {"score": 0.75, "label": "yes"}
    given = {"id": "e1", "at": 1_600_000_000_000, "bundle": bundle, "version": 1, "inputs": GOOD, "answer": answer}
    return {**given, **changes}


def send(world: World, *rows: Any) -> Response:
    return world.ask({"predictions": list(rows)}, path=PATH)[0]


def test_they_are_answers_of_their_bundle_under_no_release(world: World) -> None:
    first = row(world, key=7)
    response = send(world, first, row(world, id="e2", at=1_600_000_000_001), row(world, id="e3", at=2**60))
    assert (response.status, loads(response)) == (200, {"accepted": 3, "refused": []})
    assert ("access-control-allow-origin", "*") in response.headers
    one, two, three = world.rows()
    assert {name: one.pop(name) for name in ("id", "key", "at_ms", "inputs")} == {
        "id": "e1",
        "key": "7",
        "at_ms": first["at"],
        "inputs": GOOD,
    }
    assert list(one.values()) == [EDGE + first["bundle"], 1, "champion", "answer", 0, "ok", 0, 0.75, "yes", None]
    assert (two["at_ms"], three["at_ms"]) == (first["at"] + 1, world.clock.ms)  # a clock that is ahead


def test_sent_again_it_is_kept_once(world: World) -> None:
    for _ in range(2):
        assert loads(send(world, row(world)))["accepted"] == 1
    assert len(world.rows()) == 1


@pytest.mark.parametrize(
    ("change", "field", "rule"),
    [
        ({"bundle": "0" * 64}, "bundle", "known"),
        ({"bundle": "../../key"}, "bundle", "known"),
        ({"version": 2}, "version", "version"),
        ({"at": 5}, "at", "at"),
        ({"inputs": {**GOOD, "amount": -1}}, "amount", "at least 0"),
        ({"inputs": {**GOOD, "country": "xx"}}, "country", "one of de, fr, pl"),
        ({"inputs": {**GOOD, "items": 1.5}}, "items", "type"),
        ({"inputs": {}}, "amount", "required"),
        ({"answer": {"score": 0.75, "label": "no"}}, "answer", "label"),
        ({"answer": {"score": 0.75, "label": "maybe"}}, "answer", "label"),
        ({"answer": {"value": 0.75}}, "answer", "form"),
        ({"answer": {"label": "yes"}}, "answer", "form"),
        ({"id": ""}, None, "form"),
        ({"extra": 1}, None, "form"),
    ],
)
def test_a_row_that_is_wrong_is_refused_alone(world: World, change: dict[str, Any], field: Any, rule: str) -> None:
    world.route(world.bundle(logistic, trained_until_ms=1_500_000_000_000))
    told = loads(send(world, row(world), row(world, **{"id": "bad", **change})))
    assert told["accepted"] == 1
    (fault,) = told["refused"]
    assert (fault["record"], fault.get("field"), fault["rule"]) == (1, field, rule)
    assert [one["id"] for one in world.rows()] == ["e1"]


def test_a_bundle_that_does_not_serve_may_not_pass_for_one_that_does(world: World) -> None:
    old = world.bundle(logistic, run="older")
    told = loads(send(world, row(world, bundle=old, version=1), row(world, id="e2", bundle=old, version=5)))
    assert (told["accepted"], told["refused"][0]["rule"]) == (1, "version")
    assert [(one["version"], one["release"]) for one in world.rows()] == [(5, EDGE + old)]
    stranger = world.bundle(logistic, model="other")
    assert loads(send(world, row(world, bundle=stranger, version=5)))["refused"][0]["rule"] == "model"


def test_every_task_comes_back() -> None:
    world = World()
    many = Schema(BINARY.fields, Task.MULTICLASS, "y", (1.0, 2.0, 3.0))
    value = replace(many, task=Task.REGRESSION, classes=())
    world.route(world.bundle(logistic))
    several = row(world, bundle=world.bundle(logistic, many), version=8)
    scores = {"1.0": 0.2, "2.0": 0.5, "3.0": 0.3}
    number = row(world, id="e2", bundle=world.bundle(logistic, value), version=9, answer={"value": -3})
    good = [{**several, "answer": {"score": 0.5, "label": 2, "scores": scores}}, number]  # JavaScript has no 2.0
    few = {**several, "id": "e3", "answer": {"score": 0.5, "label": 2, "scores": {"1.0": 0.5}}}
    told = loads(send(world, *good, few))
    assert (told["accepted"], told["refused"][0]["rule"]) == (2, "form")
    one, two = world.rows()
    assert (one["score"], one["label"], one["scores"]) == (0.5, "2.0", [0.2, 0.5, 0.3])
    assert (two["score"], two["label"], two["scores"]) == (-3.0, None, None)


def test_requests_that_are_none(world: World) -> None:
    for body, status in ((b"{", 400), ({"predictions": []}, 422), ({"predictions": [{}] * (MOST + 1)}, 422), ([], 422)):
        response = world.ask(body, path=PATH)[0]
        assert (response.status, response.headers[-1]) == (status, ("access-control-allow-origin", "*"))
    assert world.get(PATH).status == 405
    assert world.ask({"predictions": [row(world)]}, path="/v1/models/none/predictions")[0].status == 404
    assert json.loads(world.ask({"predictions": [7, "x", None]}, path=PATH)[0].body)["accepted"] == 0
    assert world.rows() == []


def test_without_a_log_nothing_is_accepted() -> None:
    class Full(MemoryLog):
        def append(self, batch: LogBatch) -> None:
            raise OSError(f"no space left for {batch.model}")

    broken = World(log=Full())
    broken.route(broken.bundle(logistic))
    assert send(broken, row(broken)).status == 503
