"""The whole loop on a small history."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

import homeostat
import projects
from homeostat.adapters.source import Source
from homeostat.config import read_policy
from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.errors import DataError
from homeostat.domain.event import Event
from homeostat.domain.prediction import Role
from homeostat.domain.rehearsal import RehearsalResult
from homeostat.domain.rollout import Arm, Route, Routing
from homeostat.domain.units import DAY_MS
from homeostat.engines.inject import told
from homeostat.rehearsal import WEEK_MS, known_at
from homeostat.serving.messages import Request
from homeostat.wiring.system import System, rehearsal

DAYS, CHANGE, WARMUP = 34, 18, 10
START_MS, END_MS = projects.START_MS + WARMUP * DAY_MS, projects.START_MS + DAYS * DAY_MS
HORIZON_MS = DAY_MS


def quiet(_done: int, _total: int, _doing: str) -> None:
    pass


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return projects.make(tmp_path_factory.mktemp("rehearsal") / "cards", projects.rows(DAYS, change_day=CHANGE))


@pytest.fixture(scope="module")
def history(root: Path) -> pl.DataFrame:
    policy = read_policy(root)
    return Source(root, policy.data, policy.task)()


def lived(root: Path, history: pl.DataFrame) -> tuple[RehearsalResult, System]:
    staged, system = rehearsal(root, read_policy(root), history, START_MS, END_MS)
    return staged.run(quiet), system


@pytest.fixture(scope="module")
def life(root: Path, history: pl.DataFrame) -> tuple[RehearsalResult, System]:
    return lived(root, history)


def before(system: System, at_ms: int) -> tuple[pl.DataFrame, list[Event]]:
    """What was answered and decided before a moment."""
    log = system.stores.log.read("cards", 0, at_ms)
    return log, [event for event in system.stores.journal.read("cards") if event.at_ms < at_ms]


def test_the_loop_repairs_what_a_frozen_model_can_not(life: tuple[RehearsalResult, System]) -> None:
    result, system = life
    assert (result.rows, result.failed_requests) == ((DAYS - WARMUP) * 72, 0)
    assert result.loop.whole.value > result.frozen.whole.value
    assert result.loop.periods[-1][1].value > result.frozen.periods[-1][1].value + 0.2
    assert 2 <= result.loop.trainings <= 8
    assert result.weekly.trainings == -(-(DAYS - WARMUP) // 7)
    assert result.releases[1].status.value == "promoted"
    assert {"trigger.fired", "training.done", "release.promoted"} <= {event.kind for event in result.events}
    assert int(system.source()[EVENT_MS].max()) < START_MS  # what is younger it learned from its own log
    assert system.data.versions()[-1].until_ms > START_MS + CHANGE // 2 * DAY_MS


def test_the_json_is_as_promised(life: tuple[RehearsalResult, System]) -> None:
    said = json.loads(msgspec.json.encode(life[0].json()))
    assert said.keys() >= {
        "rows", "from", "to", "metric", "loop", "frozen", "weekly", "trainings", "weekly_trainings", "releases",
        "rollbacks", "failed_requests", "wall_s",
    }  # fmt: skip
    assert said["releases"][0].keys() == {"id", "version", "started", "ended", "outcome", "reason"}


def test_the_same_history_gives_the_same_life(
    root: Path, history: pl.DataFrame, life: tuple[RehearsalResult, System]
) -> None:
    again, system = lived(root, history)
    assert replace(again, wall_ms=0) == replace(life[0], wall_ms=0)
    assert before(system, END_MS)[0].equals(before(life[1], END_MS)[0])


@pytest.mark.parametrize("column", ["fraud", "amount"])
def test_what_comes_later_changes_nothing_before(
    root: Path, history: pl.DataFrame, life: tuple[RehearsalResult, System], column: str
) -> None:
    """Labels (or inputs) from day 20 on are others: until then every answer, score, event and its evidence is the same;
    for labels, until their horizon has passed, too."""
    at_ms = projects.START_MS + 20 * DAY_MS
    other = 1 - pl.col("fraud") if column == "fraud" else pl.col("amount") * 3 + 1
    changed = history.with_columns(
        pl.when(pl.col(EVENT_MS) >= at_ms).then(other).otherwise(pl.col(column)).alias(column)
    )
    _, system = lived(root, changed)
    until = at_ms + HORIZON_MS if column == "fraud" else at_ms
    (log, events), (log_then, events_then) = before(life[1], until), before(system, until)
    released, released_then = (
        [one.candidate for one in each.releases.history() if one.started_ms < until] for each in (life[1], system)
    )
    assert len(events) > 20
    assert events == events_then
    assert released == released_then  # their bundles too: the digest of a bundle is that of the model's bytes
    assert log.equals(log_then)
    later = before(life[1], END_MS)[0], before(system, END_MS)[0]
    assert not later[0].equals(later[1])  # else the change was none


def test_a_label_is_there_when_its_horizon_is_over_and_not_before(root: Path, history: pl.DataFrame) -> None:
    staged, system = rehearsal(root, read_policy(root), history, START_MS, START_MS + 5 * DAY_MS)
    seen = []

    def look(now_ms: int) -> None:
        labelled = system.stores.labels.read(0, now_ms + 1).join(system.stores.log.read("cards", 0, now_ms), on="id")
        seen.append(len(labelled))
        assert labelled.is_empty() or int(labelled["at_ms_right"].max()) <= now_ms - HORIZON_MS
        due = system.stores.log.read("cards", 0, now_ms - HORIZON_MS).filter(pl.col("role") == Role.ANSWER.value)
        assert set(due["id"]) <= set(labelled["id"])

    replace(staged, each_turn=look).run(quiet)
    assert seen[-1] > 3 * 72


def test_the_baselines_know_as_little(history: pl.DataFrame, root: Path) -> None:
    policy = read_policy(root)
    now = START_MS + WEEK_MS
    known = known_at(told(history, "fraud", HORIZON_MS), now, policy)
    assert known[EVENT_MS].max() == now - HORIZON_MS
    assert known[EVENT_MS].min() == max(
        int(history[EVENT_MS][0]), now - HORIZON_MS - policy.train.window + DAY_MS // 72
    )


def test_a_long_life_has_its_baselines_from_another_process(
    root: Path, history: pl.DataFrame, life: tuple[RehearsalResult, System], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rehearsal(root, read_policy(root), history, START_MS, END_MS)[0].beside is None
    monkeypatch.setattr("homeostat.wiring.system.LONG_MS", DAY_MS)
    monkeypatch.setattr("homeostat.wiring.system.cores", lambda: 2)
    staged, _ = rehearsal(root, read_policy(root), history, START_MS, END_MS)
    assert staged.beside is not None
    there = staged.run(quiet)
    assert (there.frozen, there.weekly, there.events) == (life[0].frozen, life[0].weekly, life[0].events)


def test_nothing_to_stream_is_said(root: Path, history: pl.DataFrame) -> None:
    staged, _ = rehearsal(root, read_policy(root), history, END_MS + DAY_MS, END_MS + 2 * DAY_MS)
    with pytest.raises(DataError, match="no rows to rehearse on"):
        staged.run(quiet)


def test_a_start_without_a_past_is_said(root: Path, history: pl.DataFrame) -> None:
    staged, _ = rehearsal(root, read_policy(root), history, projects.START_MS, END_MS)
    with pytest.raises(DataError, match=r"no first champion(.|\n)*older than the label horizon: there is none"):
        staged.run(quiet)


def test_a_first_training_that_fails_ends_it(tmp_path: Path) -> None:
    root = projects.make(tmp_path / "cards")
    projects.edited(root, "pipelines/train.py", "return LGBM", "raise ValueError('no')\n    return LGBM")
    with pytest.raises(DataError, match=r"no first champion(.|\n)*ValueError: no"):
        homeostat.load(root).rehearse()


@pytest.fixture
def canary(tmp_path: Path) -> tuple[Path, System]:
    """A project on disk in the middle of a canary at 50 %: two real versions, sticky by key."""
    root = projects.make(tmp_path / "cards")
    system = homeostat.load(root).system
    arms = []
    for depth in (7, 4):
        (root / "lib.py").write_text(f"def depth() -> int:\n    return {depth}\n")
        version = system.runs.run().version
        assert version is not None
        arms.append(Arm(version.number, version.bundle))
    route = Route("R2", arms[0], arms[1], 5_000, True, "salt")
    system.stores.router.publish(Routing(1, {"cards": route}))
    return root, system


def over_http(root: Path, bodies: list[bytes]) -> Iterator[bytes]:
    """The answers of a data plane in a process of its own, over a real socket."""
    command = [sys.executable, "-m", "homeostat", "serve", "-p", str(root), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        address = process.stderr.readline().strip().rpartition("//")[2]
        connection = http.client.HTTPConnection(address, timeout=30)
        try:
            _until_ready(connection)
            for body in bodies:
                connection.request("POST", "/v1/models/cards/predict", body)
                response = connection.getresponse()
                assert response.status == 200
                yield response.read()
        finally:
            connection.close()
            process.terminate()


def _until_ready(connection: http.client.HTTPConnection) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        connection.request("GET", "/v2/models/cards/ready")
        response = connection.getresponse()
        response.read()
        if response.status == 200:
            return
    raise AssertionError("not ready")


def test_the_rehearsal_answers_as_the_data_plane_does(canary: tuple[Path, System]) -> None:
    """The same records over HTTP and as a rehearsal sends them: the same bytes, the ids that were not given apart."""
    root, system = canary
    frame = projects.rows(5).with_columns(pl.int_range(pl.len()).alias("n"))
    bodies = []
    for row in frame.drop("at", "fraud").iter_rows(named=True):
        number = row.pop("n")
        known = {"id": f"r{number}"} if number % 3 else {}
        bodies.append(msgspec.json.encode({"records": [{**row, **known, "key": f"card-{number % 50}"}]}))
    staged, memory = rehearsal(root, system.policy, system.source(), START_MS, END_MS)
    for digest in _blobs(system):
        memory.stores.blobs.put(system.stores.blobs.get(digest))
    memory.stores.router.publish(system.stores.router.read())
    memory.engine.refresh()
    arms: dict[str, set[int]] = {}
    for body, answer in zip(bodies, over_http(root, bodies), strict=True):
        rehearsed = staged.loop.engine.answer([Request("POST", "/v1/models/cards/predict", body)])[0].body
        assert _without_fresh_id(answer, body) == _without_fresh_id(rehearsed, body)
        arms.setdefault(json.loads(body)["records"][0]["key"], set()).add(json.loads(answer)["model_version"])
    assert set(map(frozenset, arms.values())) == {frozenset({1}), frozenset({2})}  # both arms, each key on one


def _blobs(system: System) -> Iterator[str]:
    route = system.stores.router.read().routes["cards"]
    for arm in (route.champion, route.candidate):
        assert arm is not None
        yield arm.bundle
        yield from system.bundles.load(arm.bundle).files.values()


def _without_fresh_id(answer: bytes, body: bytes) -> bytes:
    if b'"id"' in body:
        return answer
    return answer.replace(json.loads(answer)["predictions"][0]["id"].encode(), b"FRESH")


def test_python_and_the_command_line_do_the_same(root: Path, life: tuple[RehearsalResult, System]) -> None:
    command = [sys.executable, "-m", "homeostat", "rehearse", "-p", str(root), "--warmup", f"{WARMUP}d", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said: dict[str, Any] = json.loads(done.stdout)
    assert Path(said["report"]).read_text().startswith("<!doctype html>")
    expected = json.loads(msgspec.json.encode(life[0].json()))
    assert {**said, "wall_s": 0, "report": ""} == {**expected, "wall_s": 0, "report": ""}
    assert np.isfinite(said["loop"])
