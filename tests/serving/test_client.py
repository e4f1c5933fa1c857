"""The client against real data planes: right answers, typed errors, and what it does when one goes away."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import polars as pl
import pytest
from test_http import Server, Worker, project
from worlds import GOOD, World, logistic

import homeostat
from homeostat.client import AsyncClient, Client, Timeouts
from homeostat.client.attempts import Ask, Attempt, Call, Got, Outcome, Spent, Wait, pause, repeated
from homeostat.domain.errors import DataError, NotFound, RequestRefused, ServiceError, Unavailable, UsageError
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.serving.http import Limits
from homeostat.serving.limit import Limit
from homeostat.stores.days import DayTables
from homeostat.stores.predictions import SegmentLog

Make = Callable[..., Client]


class Awaited(Client):
    """An `AsyncClient` on a loop of its own, with the face of a `Client`: what holds for one is tried on both."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self.client = AsyncClient(*arguments, **options)

    def __getattribute__(self, name: str) -> Any:
        if name not in ("predict", "feedback", "signals", "ready", "live", "metadata", "close"):
            return super().__getattribute__(name)
        return lambda *given, **named: self._runner.run(getattr(self.client, name)(*given, **named))


@pytest.fixture(params=[Client, Awaited])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    made: list[Client] = []

    def client(*arguments: Any, **options: Any) -> Client:
        made.append(request.param(*arguments, **options))
        return made[-1]

    yield client
    for one in made:
        one.close()
        if isinstance(one, Awaited):
            one._runner.close()


@pytest.fixture
def server() -> Iterator[Server]:
    world = World()
    world.route(world.bundle(logistic))
    server = Server(world, Limits(max_body=20_000))
    yield server
    server.close()


def room(server: Server, requests: int) -> None:
    """So many may wait; it sheds the others."""
    server.hub._quick.limit = Limit(requests)


def url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


class TestAnswers:
    def test_a_record_records_and_frames(self, server: Server, make: Make) -> None:
        client = make(url(server.port), "fraud")
        one = client.predict({**GOOD, "id": "a"})
        assert (one.id, one.label, one.score, one.release, one.model_version) == ("a", "yes", 0.5, "R1", 1)
        rows = [{**GOOD, "id": f"r{i}", "amount": i + 0.5} for i in range(12)]
        listed = client.predict(rows)
        assert [one.id for one in listed] == [row["id"] for row in rows]
        assert [one.label for one in listed] == ["no"] * 10 + ["yes"] * 2
        frame = pl.DataFrame(rows, schema_overrides={"class": pl.Float64})
        assert list(client.predict(frame)) == list(listed)
        assert list(client.predict(frame.with_columns(pl.lit(float("nan")).alias("class")))) == list(listed)
        pandas = pd.DataFrame(rows).astype({"class": "float64", "amount": "float32"})
        assert np.isnan(pandas["class"]).all()
        assert list(client.predict(pandas)) == list(listed)
        assert repr(one) == "Prediction(id='a', label='yes', score=0.5, model_version=1)"
        assert repr(listed).splitlines()[::11] == ["12 predictions by release R1", "  and 2 more"]
        assert listed[1:3] == listed.all[1:3]

    def test_several_classes_and_values(self, make: Make) -> None:
        world = World()
        x = (Field("x", Kind.NUMBER),)
        server = Server(world, Limits())
        client = make(url(server.port), "fraud")
        world.route(world.bundle(lambda x: np.tile([0.2, 0.8], (len(x), 1)), Schema(x, Task.MULTICLASS, "y", (1, 2))))
        many = client.predict({"x": np.float32(1)})
        assert (many.label, many.scores, many.value) == (2, {"1": 0.2, "2": 0.8}, None)
        world.route(world.bundle(lambda x: x.astype(float), Schema(x, Task.REGRESSION, "y")))
        value = client.predict({"x": 1.5})
        assert (value.value, value.label, "value=1.5" in repr(value)) == (1.5, None, True)
        server.close()

    def test_labels_find_their_predictions(self, server: Server, make: Make) -> None:
        client = make(url(server.port), "fraud")
        assert client.feedback({client.predict(GOOD).id: "no"}) == 1
        assert client.feedback([{"id": "b", "label": "yes", "at": 5}, {"id": "c", "label": "no"}]) == 2
        assert client.feedback(pl.DataFrame({"id": ["d"], "label": ["no"], "at": [None]})) == 1
        assert client.feedback({"e": "no"}, source="clerk") == 1
        found = server.world.labels.read(0, 2**62)
        assert sorted(found.select("label", "at_ms", "source").rows())[-1] == ("yes", 5, "")
        assert (found.height, found.filter(source="clerk")["id"].to_list()) == (5, ["e"])
        thumbs = {"id": "b", "name": "thumbs", "value": "up", "key": None}
        assert client.signals([thumbs, {"key": 7, "name": "bought", "at": 9}]) == 2
        events = server.world.labels.events(0, 2**62)
        assert events.select("id", "key", "value").rows() == [("", "7", 1.0), ("b", None, 1.0)]
        with pytest.raises(RequestRefused, match="an id or a key"):
            client.signals([thumbs | {"key": "k"}])
        with pytest.raises(RequestRefused, match="one of no, yes") as refused:
            client.feedback({"a": "maybe"})
        assert (refused.value.field, refused.value.record, "maybe" in str(refused.value)) == ("label", 0, False)

    def test_health_and_metadata(self, server: Server, make: Make) -> None:
        client, other = make(url(server.port), "fraud"), make(url(server.port), "other")
        assert (client.live(), client.ready()) == (True, True)
        found = client.metadata()
        assert (found.name, found.versions, found.inputs[0].datatype) == ("fraud", ("1",), "FP64")
        with pytest.raises(NotFound):
            other.ready()
        empty = Server(World(), Limits())
        client = make(url(empty.port), "fraud")
        assert (client.live(), client.ready()) == (True, False)
        empty.close()
        assert (client.live(), client.ready()) == (False, False)

    def test_one_connection_serves_all_calls(self, server: Server, make: Make) -> None:
        client = make(url(server.port), "fraud")
        for _ in range(5):
            client.predict(GOOD)
        assert len(server.hub.connections) == 1


class TestErrors:
    def test_a_refusal_names_record_field_and_rule_but_no_value(self, server: Server, make: Make) -> None:
        client = make(url(server.port), "fraud")
        with pytest.raises(RequestRefused) as refused:
            client.predict([GOOD, {**GOOD, "amount": -77.25}])
        error = refused.value
        assert (error.field, error.rule, error.record) == ("amount", "at least 0", 1)
        assert error.where == f"record 1 of {url(server.port)}/v1/models/fraud/predict"
        assert isinstance(error, DataError)
        assert "77.25" not in str(error)
        with pytest.raises(RequestRefused, match=r"too large(.|\n)*Send fewer rows"):
            client.predict([{**GOOD, "country": "x" * 30_000}])
        with pytest.raises(NotFound, match="no model other"):
            make(url(server.port), "other").predict(GOOD)

    @pytest.mark.parametrize("value", [float("inf"), np.float64("-inf"), b"secret", {"secret": 1}, 1 + 2j])
    def test_a_value_that_has_no_json_is_never_sent_nor_told(self, server: Server, value: Any) -> None:
        with Client(url(server.port), "fraud") as client, pytest.raises(DataError, match="amount") as refused:
            client.predict([GOOD, {**GOOD, "amount": value}])
        assert refused.value.where == "record 1"
        assert "secret" not in str(refused.value)
        assert server.world.rows() == []

    @pytest.mark.parametrize("rows", ["abc", 5, None, pl.LazyFrame({"a": [1]}), [5], iter([GOOD])])
    def test_what_are_no_rows(self, rows: Any) -> None:
        with Client("http://127.0.0.1:1", "fraud") as client, pytest.raises(DataError):
            client.predict(rows)

    def test_a_model_that_fails_is_not_asked_again(self, make: Make) -> None:
        asked: list[int] = []

        def failing(x: Any, /) -> Any:
            asked.append(len(x))
            raise RuntimeError("secret")

        world = World()
        world.route(world.bundle(failing))
        server = Server(world, Limits())
        with pytest.raises(ServiceError, match="could not answer") as failed:
            make(url(server.port), "fraud").predict(GOOD)
        assert type(failed.value) is ServiceError
        assert len(asked) == 1
        server.close()

    def test_nobody_there(self, make: Make) -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))  # not listening
            client = make(url(bound.getsockname()[1]), "fraud", timeouts=Timeouts(total=0.15))
            with pytest.raises(Unavailable, match="ConnectError") as gone:
                client.predict(GOOD)
        assert "asked" in gone.value.where
        with pytest.raises(UsageError, match="not the URL"):
            Client("localhost:8701", "fraud")

    def test_a_password_is_not_shown(self, server: Server) -> None:
        with Client(f"http://me:secret@127.0.0.1:{server.port}", "fraud", Timeouts(total=0.2)) as client:
            assert repr(client) == f"Client('{url(server.port)}', 'fraud')"
            with pytest.raises(RequestRefused) as refused:
                client.predict({})
            room(server, 0)
            with pytest.raises(Unavailable) as shed:
                client.predict(GOOD)
        assert "secret" not in f"{refused.value} {shed.value}"


class Relay:
    """A way to a server that loses the first answer: it closes the connection instead."""

    def __init__(self, port: int) -> None:
        self._bound = socket.create_server(("127.0.0.1", 0))
        self.port, self._to = self._bound.getsockname()[1], port
        self.heard: list[bytes] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for lost in (True, False):
            near, _ = self._bound.accept()
            with near, socket.create_connection(("127.0.0.1", self._to)) as far:
                self.heard.append(self._request(near))
                far.sendall(self.heard[-1])
                answer = far.recv(65_536)
                if not lost:
                    near.sendall(answer)

    @staticmethod
    def _request(near: socket.socket) -> bytes:
        data = b""
        while not data.endswith(b"]}"):
            data += near.recv(65_536)
        return data

    def close(self) -> None:
        self._thread.join(10)
        self._bound.close()


def test_an_answer_that_was_lost_is_given_again_under_the_same_id(server: Server, make: Make) -> None:
    relay = Relay(server.port)
    answers = make(url(relay.port), "fraud").predict([GOOD, GOOD])
    relay.close()
    first, second = relay.heard
    assert first == second
    assert [row["id"] for row in server.world.rows()] == [one.id for one in answers]
    assert len({one.id for one in answers}) == 2


def test_a_server_that_sheds_at_first(server: Server) -> None:
    room(server, 0)
    waits: list[float] = []

    class Patient(Client):
        def _do(self, step: Attempt | Wait) -> Outcome:
            if isinstance(step, Attempt):
                return super()._do(step)
            waits.append(step.seconds)
            if len(waits) == 2:
                room(server, 1)
            return None

    with Patient(url(server.port), "fraud") as client:
        assert client.predict(GOOD).label == "yes"
    assert len(waits) == 2
    assert all(1 <= seconds <= 1.1 for seconds in waits)  # it says: retry-after: 1


@pytest.mark.slow
def test_a_server_that_is_killed_and_comes_back(tmp_path: Path, lightgbm_onnx: bytes, make: Make) -> None:
    project(tmp_path, lightgbm_onnx)
    worker = Worker(tmp_path)
    client = make(url(worker.port), "fraud", timeouts=Timeouts(total=60))
    record = {f"f{i}": i / 10 for i in range(20)}
    ids, failures, enough = list[str](), list[Exception](), threading.Semaphore(0)
    last = threading.Event()

    def ask() -> None:
        try:
            while not last.is_set():
                ids.extend(one.id for one in client.predict([record, record]))
                enough.release()
        except Exception as error:
            failures.append(error)
            enough.release(10_000)

    thread = threading.Thread(target=ask)
    thread.start()
    for _ in range(3):
        for _ in range(20):
            assert enough.acquire(timeout=60)
        assert worker.end(signal.SIGKILL) == -signal.SIGKILL
        worker = Worker(tmp_path, worker.port)
    assert enough.acquire(timeout=60)
    last.set()
    thread.join(60)
    assert worker.end(signal.SIGTERM) == 0
    assert failures == []
    log = SegmentLog(tmp_path / "log", "reader", DayTables(tmp_path / "tables"))
    logged = log.read("fraud", 0, 2**62)["id"].to_list()
    assert len(ids) == len(set(ids)) >= 120
    assert set(ids) <= set(logged)
    assert len(logged) == len(set(logged))


class Clock:
    """Monotonic seconds, as told."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def got(status: int, **headers: str) -> Got:
    return Got(status, {name.replace("_", "-"): value for name, value in headers.items()}, b"")


def played(call: Call[Any], clock: Clock, *outcomes: Outcome, takes: float = 0.0) -> tuple[list[float], Any]:
    """The pauses that a call makes when this comes of its attempts, and its end."""
    waits, left, outcome = list[float](), list(outcomes), None
    try:
        while True:
            step = call.send(outcome)
            if isinstance(step, Wait):
                waits.append(step.seconds)
                clock.at += step.seconds
                outcome = None
            else:
                clock.at += takes
                outcome = left.pop(0)
    except StopIteration as done:
        return waits, done.value


class TestRepetition:
    def test_ever_later_then_the_answer(self) -> None:
        clock, gone = Clock(), httpx.ConnectError("refused")
        call = repeated(Ask("GET", "x"), Timeouts(), clock, lambda: 1.0)
        waits, end = played(call, clock, gone, got(502), httpx.ReadTimeout(""), got(504), got(503), got(200))
        assert (waits, end.status) == ([0.1, 0.2, 0.4, 0.8, 1.6], 200)

    @pytest.mark.parametrize("outcome", [got(422), got(500), got(429), httpx.UnsupportedProtocol(""), got(200)])
    def test_what_no_other_attempt_would_change(self, outcome: Outcome) -> None:
        clock = Clock()
        assert played(repeated(Ask("GET", "x"), Timeouts(), clock), clock, outcome) == ([], outcome)

    def test_it_ends_when_the_time_is_up_and_no_later(self) -> None:
        clock = Clock()
        call = repeated(Ask("GET", "x"), Timeouts(total=2.0), clock, lambda: 1.0)
        waits, end = played(call, clock, *[got(503)] * 9, takes=0.3)
        assert waits == [0.1, 0.2, 0.4]
        assert end == Spent(got(503), 4, pytest.approx(1.9))
        patient = repeated(Ask("GET", "x"), Timeouts(total=2.0), clock)
        assert played(patient, clock, got(503, retry_after="3"))[0] == []

    def test_the_pause_is_spread_bounded_and_as_long_as_asked(self) -> None:
        assert [pause(1, None, chance) for chance in (0.0, 1.0)] == [0.05, 0.1]
        assert pause(30, None, 1.0) == 5.0
        assert pause(1, got(503, retry_after="7"), 0.0) == 7.0
        assert pause(1, got(503, retry_after="Wed, 21 Oct 2015 07:28:00 GMT"), 1.0) == 0.1
        assert pause(1, got(503, retry_after="Wed, 21 Oct 2115 07:28:00 GMT"), 1.0) > 1e9
        for unread in ("", "soon", "-1", "1.5"):
            assert pause(1, got(503, retry_after=unread), 1.0) == 0.1

    def test_an_attempt_never_lasts_beyond_the_call(self) -> None:
        clock = Clock()
        attempt = Attempt(Ask("GET", "x"), Timeouts(connect=2, read=10, total=30), 105.0, clock)
        assert attempt.asked()["timeout"] == httpx.Timeout(5.0, connect=2.0)
        attempt.check()
        clock.at = 105.1
        with pytest.raises(httpx.ReadTimeout):
            attempt.check()


def test_importing_homeostat_stays_quick() -> None:
    code = "import sys, homeostat; print([name for name in ('httpx', 'msgspec', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert (homeostat.Client, homeostat.AsyncClient) == (Client, AsyncClient)
    with pytest.raises(AttributeError):
        getattr(homeostat, "Nothing_" * 2)
