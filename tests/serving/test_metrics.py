"""What the data plane counts, over several processes and lives."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from live import Server
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain
from worlds import GOOD, World, logistic

from homeostat.domain.prediction import LogBatch
from homeostat.serving import sheet as sheets
from homeostat.serving.exposition import exposed
from homeostat.serving.http import Limits
from homeostat.serving.messages import Request
from homeostat.serving.meter import Meter, key
from homeostat.serving.sheet import Sheet
from homeostat.stores.shared import SharedMemory

Found = dict[tuple[str, ...], float]


def told(meter: Meter) -> dict[str, Found]:
    """Sample → labels' values, without the names → number."""
    text = exposed(meter, "").body.decode()
    found: dict[str, Found] = {}
    for family in plain(text):
        for one in family.samples:
            labels = tuple(value for _, value in sorted(one.labels.items()))
            assert labels not in found.setdefault(one.name, {}), "a series stands there twice"
            found[one.name][labels] = one.value
    return found


def batch(release: str = "R1", version: int = 1, n: int = 3, model: str = "m", us: int = 300) -> LogBatch:
    same = ["answer"] * n, ["ok"] * n, [us] * n, [None] * n, [None] * n, [None] * n
    return LogBatch(model, 0, release, 0, ["i"] * n, [None] * n, [version] * n, ["champion"] * n, *same, inputs={})


def test_what_is_counted_is_what_is_logged() -> None:
    world = World()
    world.route(world.bundle(logistic), world.bundle(lambda x: logistic(x) * float("nan")), weight=5_000)
    good = {"records": [{**GOOD, "id": f"g{i}"} for i in range(40)]}
    counted: list[Any] = []
    bodies = [good, {"records": [{**GOOD, "amount": "much"}]}, b"{"]
    requests = [
        Request("POST", "/v1/models/fraud/predict", one if isinstance(one, bytes) else json.dumps(one).encode())
        for one in bodies
    ]
    answers = world.engine.answer([*requests, Request("GET", "/nowhere")], None, counted)
    world.engine.meter.tick(key("queue", "quick"), 4, 0.002, counted, 0.003)
    found = told(world.engine.meter)
    logged = [(row["version"], row["role"], row["status"]) for row in world.rows()]
    assert {role for _, role, _ in logged} == {"answer", "failed", "rejected"}
    kept = {labels: n for labels, n in found["homeostat_predictions_total"].items() if n}
    assert kept == {
        ("fraud", "R1", role, status, str(v)): logged.count((v, role, status)) for v, role, status in logged
    }
    statuses = {labels[2]: n for labels, n in found["homeostat_requests_total"].items() if n}
    assert statuses == {str(answer.status): 1 for answer in answers}
    assert {labels[:2] for labels in found["homeostat_requests_total"]} == {("fraud", "R1"), ("", "")}
    assert found["homeostat_request_seconds_count"] == {("fraud", "R1"): 3}
    assert found["homeostat_request_seconds_bucket"]["0.0025", "fraud", "R1"] == 0
    assert found["homeostat_request_seconds_bucket"]["0.005", "fraud", "R1"] == 3
    assert found["homeostat_request_seconds_sum"]["fraud", "R1"] == pytest.approx(0.009)
    assert found["homeostat_tick_requests_sum"] == {("quick",): 4}
    assert found["homeostat_model_seconds_count"].keys() == {("fraud", "R1", "1"), ("fraud", "R1", "2")}


def count_and_die(folder: Path) -> None:
    meter = Meter(SharedMemory(folder, "worker-2"))
    meter.rows(batch())
    meter.follows(4, {"m": False})
    os.kill(os.getpid(), 9)


def test_counts_of_a_killed_worker_stay_and_its_states_go(tmp_path: Path) -> None:
    mine = Meter(SharedMemory(tmp_path, "worker-1"))
    mine.rows(batch())
    mine.follows(4, {"m": True})
    worker = multiprocessing.get_context("spawn").Process(target=count_and_die, args=(tmp_path,))
    worker.start()
    worker.join()
    found = told(mine)
    answered = ("m", "R1", "answer", "ok", "1")
    assert found["homeostat_predictions_total"][answered] == 6
    assert found["homeostat_model_seconds_count"]["m", "R1", "1"] == 2
    assert found["homeostat_ready"] == {("m", "worker-1"): 1}
    assert found["homeostat_workers"] == {(): 1}
    again = Meter(SharedMemory(tmp_path, "worker-2"))  # it is started again, and goes on counting
    assert told(again)["homeostat_predictions_total"] == found["homeostat_predictions_total"]
    again.rows(batch())
    again.follows(5, {})
    found = told(mine)
    assert found["homeostat_predictions_total"][answered] == 9
    assert found["homeostat_ready"] == {("m", "worker-1"): 1}, "it has not said yet"
    assert found["homeostat_routing_version"] == {("worker-1",): 4, ("worker-2",): 5}
    same = Meter(SharedMemory(tmp_path, "worker-1"))  # another process of this name while the first lives
    same.rows(batch())
    assert told(mine)["homeostat_predictions_total"][answered] == 12
    assert told(mine)["homeostat_workers"] == {(): 3}


def test_no_caller_makes_a_series() -> None:
    meter = Meter()
    for i in range(50):
        meter.rows(batch(release=f"edge:{i:064}", version=i + 1, us=0))
        meter.rows(batch(release=f"batch:{i:064}", version=i + 1, us=0))
    labels = {labels[:2] + labels[4:] for labels in told(meter)["homeostat_predictions_total"]}
    assert labels == {("m", "batch", ""), ("m", "edge", "")}


def test_old_releases_make_room_and_lasting_rows_stay(tmp_path: Path) -> None:
    meter = Meter(SharedMemory(tmp_path, "worker-1"))
    meter.follows(1, {"m": True})
    for i in range(sheets.ROWS + 20):
        meter.rows(batch(release=f"R{i}"))
    meter.rows(batch(release="R0"))  # its row was given away: it begins anew
    found = told(meter)
    releases = {labels[1] for labels in found["homeostat_predictions_total"]}
    assert len(releases) == sheets.ROWS - 2
    assert "R1" not in releases
    assert all(n in (0, 3) for n in found["homeostat_predictions_total"].values())
    assert found["homeostat_ready"] == {("m", "worker-1"): 1}
    reopened = Sheet(SharedMemory(tmp_path, "other").own(), bool)
    assert reopened.rows == {}


def test_a_file_that_is_no_sheet_counts_nothing(tmp_path: Path) -> None:
    (tmp_path / "old.sheet").write_bytes(b"something else")
    (tmp_path / "older.sheet").write_bytes(b"x" * 500_000)
    meter = Meter(SharedMemory(tmp_path, "old"))
    meter.rows(batch())
    assert told(meter)["homeostat_predictions_total"]["m", "R1", "answer", "ok", "1"] == 3


def test_over_http() -> None:
    world = World()
    world.route(world.bundle(logistic))
    server = Server(world, Limits(max_body=2_000))
    try:

        def ask(method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, str, str]:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
            connection.request(method, path, body, {"content-type": "application/json", **headers})
            answer = connection.getresponse()
            said = answer.read().decode()
            connection.close()
            return answer.status, answer.headers["content-type"], said

        assert ask("POST", "/v1/models/fraud/predict", json.dumps({"records": [GOOD]}).encode())[0] == HTTPStatus.OK
        assert ask("POST", "/v1/models/fraud/predict", b"x" * 3_000)[0] == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        assert ask("POST", "/metrics")[0] == HTTPStatus.METHOD_NOT_ALLOWED
        _, media, text = ask("GET", "/metrics", accept="application/openmetrics-text; version=1.0.0")
        assert media.startswith("application/openmetrics-text; version=1.0.0")
        families = {family.name: family for family in openmetrics(text)}
        statuses = {one.labels["status"]: one.value for one in families["homeostat_requests"].samples}
        assert (statuses["413"], statuses["405"]) == (1, 1)
        _, media, text = ask("GET", "/metrics")
        assert media.startswith("text/plain; version=0.0.4")
        assert [one.value for family in plain(text) if family.name == "homeostat_request_seconds"
                for one in family.samples if one.name.endswith("_count")] == [1]  # fmt: skip
    finally:
        server.close()
