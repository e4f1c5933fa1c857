"""The data plane over real sockets: order, framing, limits, kills."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from live import Server
from plane_process import Folder
from worlds import GOOD, World, logistic

from homeostat import codec
from homeostat.adapters.plane import HttpPlane
from homeostat.domain.bundle import Bundle
from homeostat.domain.rollout import Arm, Route, Routing
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.serving.http import Limits
from homeostat.serving.tick import LARGE
from homeostat.stores.days import DayTables
from homeostat.stores.predictions import SegmentLog
from homeostat.stores.routing import FileRouter

PREDICT = b"POST /v1/models/fraud/predict HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture
def server() -> Iterator[Server]:
    world = World()
    world.route(world.bundle(logistic))
    server = Server(world, Limits(max_body=2_000, max_head=1_000, pipeline=4))
    yield server
    server.close()


def body_of(name: str, **changes: Any) -> bytes:
    return json.dumps({"records": [{**GOOD, "id": name, **changes}]}).encode()


def framed(body: bytes, extra: bytes = b"") -> bytes:
    return PREDICT + extra + b"content-length: %d\r\n\r\n" % len(body) + body


def client(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def answers(sock: socket.socket, n: int) -> list[tuple[int, Any]]:
    """n responses, parsed one after the other from one connection."""
    data, found = sock.makefile("rb"), []
    for _ in range(n):
        status = int(data.readline().split()[1])
        headers = dict(line.lower().split(b": ", 1) for line in iter(data.readline, b"\r\n"))
        found.append((status, json.loads(data.read(int(headers[b"content-length"])))))
    return found


def ids(found: list[tuple[int, Any]]) -> list[Any]:
    return [body["predictions"][0]["id"] if status == 200 else status for status, body in found]


class TestLoad:
    def test_what_can_not_wait_is_shed_at_once_in_its_place_and_logged(self) -> None:
        world = World()
        world.route(world.bundle(logistic))
        server = Server(world, Limits(queue=3))
        with client(server) as sock:
            sock.sendall(b"".join(framed(body_of(name)) for name in "abcde") + b"GET /v2/health/live HTTP/1.1\r\n\r\n")
            found = answers(sock, 6)
            sock.sendall(framed(body_of("f")))
            found += answers(sock, 1)
        server.close()
        assert [status for status, _ in found] == [200, 200, 200, 503, 503, 200, 200]
        assert found[3][1]["error"]["rule"] == "queue"
        assert [(row["id"], row["role"], row["status"]) for row in world.rows()] == [
            *((name, "answer", "ok") for name in "abc"),
            *((name, "shed", "shed") for name in ("p1", "p2")),
            ("f", "answer", "ok"),
        ]

    def test_a_large_request_keeps_nobody_waiting(self) -> None:
        """It is answered in a thread: here it can't end before the others have their answers."""
        world, others = World(), threading.Event()

        def model(x: Any, /) -> Any:
            assert len(x) < 100 or others.wait(10)
            return logistic(x)

        world.route(world.bundle(model))
        server = Server(world, Limits())
        large = json.dumps({"records": [GOOD] * 1_000}).encode()
        assert len(large) > LARGE
        with client(server) as slow, client(server) as quick:
            slow.sendall(framed(large))
            for name in "abc":
                quick.sendall(framed(body_of(name)))
                assert ids(answers(quick, 1)) == [name]
            others.set()
            ((status, body),) = answers(slow, 1)
        server.close()
        assert (status, len(body["predictions"])) == (200, 1_000)

    def test_shadow_waits_until_nobody_else_does(self) -> None:
        world, seen = World(), list[int]()

        def candidate(x: Any, /) -> Any:
            seen.append(len(world.rows()))
            return logistic(x)

        world.route(world.bundle(logistic), world.bundle(candidate), shadow=True)
        server = Server(world, Limits())
        with client(server) as sock:
            for name in "abc":
                sock.sendall(framed(body_of(name)))
                assert ids(answers(sock, 1)) == [name]
        server.close()
        assert len(seen) == 3
        assert [row["role"] for row in world.rows()].count("shadow") == 3

    def test_too_many_connections_are_told_so(self) -> None:
        world = World()
        world.route(world.bundle(logistic))
        server = Server(world, Limits(connections=1))
        with client(server) as first:
            first.sendall(framed(body_of("a")))
            assert ids(answers(first, 1)) == ["a"]
            with client(server) as second:
                assert answers(second, 1)[0][0] == 503
            first.sendall(framed(body_of("b")))
            assert ids(answers(first, 1)) == ["b"]
        server.close()


class TestFraming:
    def test_a_head_that_was_seen_before_means_the_same(self, server: Server) -> None:
        """The second time its bytes are recognised; all that differs still goes through the parser."""
        body = body_of("a")
        with client(server) as sock:
            for name in ("a", "b", "c"):
                sock.sendall(framed(body.replace(b'"a"', b'"%s"' % name.encode())))
                assert ids(answers(sock, 1)) == [name]
            sock.sendall(framed(body)[:-20])  # the rest comes later
            sock.sendall(framed(body)[-20:] + framed(body_of("d")))
            assert ids(answers(sock, 2)) == ["a", "d"]
            assert [head.length for head in server.hub.heads.values()] == [len(body)]
            once = b"connection: close\r\n"
            sock.sendall(framed(body, once))
            assert ids(answers(sock, 1)) == ["a"]
            assert sock.recv(1) == b""
        assert len(server.hub.heads) == 1

    def test_headers_are_handed_on_whatever_their_case(self, server: Server) -> None:
        with client(server) as sock:
            sock.sendall(framed(json.dumps({"records": [GOOD]}).encode(), b"Idempotency-KEY: order-7\r\n"))
            assert ids(answers(sock, 1)) == ["order-7"]
            sock.sendall(framed(body_of("a")))
            sock.sendall(framed(json.dumps({"records": [GOOD]}).encode()))
            assert ids(answers(sock, 2)) == ["a", "p1"]

    def test_pipelined_requests_are_answered_in_order(self, server: Server) -> None:
        with client(server) as sock:
            wrong = framed(body_of("x", amount=-1))
            health = b"GET /v2/health/live?x=1 HTTP/1.1\r\n\r\n"
            good = [framed(body_of(f"i{i}")) for i in range(9)]
            sock.sendall(b"".join([*good[:4], wrong, health, *good[4:]]))
            found = answers(sock, 11)
        assert ids(found[:5] + found[6:]) == ["i0", "i1", "i2", "i3", 422, "i4", "i5", "i6", "i7", "i8"]
        assert found[5] == (200, {"live": True})

    def test_a_byte_at_a_time_and_chunked(self, server: Server) -> None:
        body = body_of("slow")
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:30], body[30:]))
        message = PREDICT + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
        with client(server) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in message:
                sock.send(bytes([byte]))
            assert ids(answers(sock, 1)) == ["slow"]

    def test_head_has_no_body_and_the_connection_stays(self, server: Server) -> None:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("HEAD", "/v2/health/ready")
        response = connection.getresponse()
        assert (response.status, response.read(), response.headers["content-length"]) == (200, b"", "14")
        connection.request("POST", "/v1/models/fraud/predict", body_of("a"))
        response = connection.getresponse()
        assert response.headers["x-prediction-id"] == "a"
        assert response.read().startswith(b'{"release":"R1"')
        connection.close()

    def test_expect_100_continue(self, server: Server) -> None:
        with client(server) as sock:
            message = framed(body_of("a"), b"expect: 100-continue\r\n")
            head, _, body = message.partition(b"\r\n\r\n")
            sock.sendall(head + b"\r\n\r\n")
            assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            sock.sendall(body)
            assert ids(answers(sock, 1)) == ["a"]

    def test_an_offer_of_another_protocol_changes_nothing(self, server: Server) -> None:
        """As `curl --http2` and Java's client make it in every first request."""
        offer = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nidempotency-key: k\r\n"
        body = json.dumps({"records": [GOOD]}).encode()
        chunked = PREDICT + offer + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        live = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n" + offer + b"\r\n"
        with client(server) as sock:
            sock.sendall(framed(body_of("a")) + framed(body, offer) + chunked + live)
            *found, last = answers(sock, 4)
            assert (ids(found), last) == (["a", "k", "k"], (200, {"live": True}))
            head, _, rest = framed(body, offer + b"x: y\r\n").partition(b"\r\n\r\n")
            sock.sendall(head + b"\r\n\r\n" + rest[:9])
            sock.sendall(rest[9:])
            assert ids(answers(sock, 1)) == ["k"]
            sock.sendall(b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n")
            assert answers(sock, 1)[0][0] == 400
            assert sock.recv(1) == b""

    def test_a_whole_url_is_its_path(self, server: Server) -> None:
        with client(server) as sock:
            sock.sendall(framed(body_of("a")).replace(b"POST /", b"POST http://x:1/"))
            assert ids(answers(sock, 1)) == ["a"]

    def test_http_1_0_closes(self, server: Server) -> None:
        with client(server) as sock:
            sock.sendall(b"GET /v2/health/live HTTP/1.0\r\n\r\n")
            data = b"".join(iter(lambda: sock.recv(1000), b""))
        assert b"connection: close" in data
        assert data.endswith(b'{"live":true}')


class TestLimits:
    @pytest.mark.parametrize(
        ("message", "status"),
        [
            (b"BREW coffee\r\n\r\n", 400),
            (PREDICT + b"content-length: x\r\n\r\n", 400),
            (PREDICT + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", 400),
            (PREDICT + b"content-length: 2001\r\n\r\n", 413),
            (PREDICT + b"transfer-encoding: chunked\r\n\r\n" + (b"400\r\n" + b"x" * 1024 + b"\r\n") * 2, 413),
            (PREDICT + b"x-long: " + b"y" * 1001 + b"\r\n\r\n", 431),
        ],
    )  # fmt: skip
    def test_refused_in_turn_then_closed(self, server: Server, message: bytes, status: int) -> None:
        with client(server) as sock:
            sock.sendall(framed(body_of("before")) + message)
            assert ids(answers(sock, 2)) == ["before", status]
            assert sock.recv(1) == b""

    def test_a_client_that_takes_no_answer_is_let_go(self, server: Server) -> None:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            sock.connect(("127.0.0.1", server.port))
            while not server.hub.connections:
                server.expire(0)
            (connection,) = server.hub.connections
            connection._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
            sock.sendall(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * 50)
            while not connection._unsent:
                server.expire(0)
            server.expire(31)
            server.expire(31)  # the loop has turned meanwhile
            assert not server.hub.connections

    def test_silent_and_slow_clients_are_let_go(self, server: Server) -> None:
        with client(server) as idle, client(server) as slow:
            slow.sendall(framed(body_of("x"))[:-5])
            idle.sendall(framed(body_of("a")))
            assert ids(answers(idle, 1)) == ["a"]
            server.expire(31)
            assert answers(slow, 1)[0][0] == 408
            server.expire(76)
            assert idle.recv(1) == b""


def project(root: Path, onnx: bytes) -> str:
    """A folder that a worker can serve from. → the bundle."""
    blobs = Folder(root / "blobs")
    schema = Schema(tuple(Field(f"f{i}", Kind.NUMBER) for i in range(20)), Task.BINARY, "y", (0, 1))
    manifest = Bundle("fraud", schema, 0.5, 1.0, {"model.onnx": blobs.put(onnx)}, "run", 1, 0)
    bundle = blobs.put(codec.encode(manifest))
    FileRouter(root / "routing.json").publish(Routing(1, {"fraud": Route("R1", Arm(1, bundle))}))
    return bundle


class Worker:
    """A real process. `answered` collects the ids that its clients saw, `broken` counts the connections that it
    broke."""

    def __init__(self, root: Path, port: int = 0) -> None:
        script = Path(__file__).with_name("plane_process.py")
        self.process = subprocess.Popen([sys.executable, str(script), str(root), str(port)], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.answered: list[str] = []
        self.statuses: Counter[int] = Counter()
        self.release, self.broken = "", 0
        self.enough = threading.Semaphore(0)

    def load(self, going_on: Callable[[], bool] = lambda: True) -> None:
        """Ask until the worker is gone, or one need not go on."""
        record = {f"f{i}": i / 10 for i in range(20)}
        body = json.dumps({"records": [record, record]})
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            while going_on():
                connection.request("POST", "/v1/models/fraud/predict", body)
                response: HTTPResponse = connection.getresponse()
                said = json.loads(response.read())
                self.statuses[response.status] += 1
                self.answered += [one["id"] for one in said["predictions"]]
                self.release = said["release"]
                self.enough.release()
        except (OSError, HTTPException):
            self.broken += going_on()
        finally:
            connection.close()

    def end(self, how: int) -> int:
        self.process.send_signal(how)
        code = self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_every_answered_id_is_in_the_log(tmp_path: Path, lightgbm_onnx: bytes, how: int) -> None:
    project(tmp_path, lightgbm_onnx)
    answered: list[str] = []
    for _ in range(2):
        worker = Worker(tmp_path)
        clients = [threading.Thread(target=worker.load) for _ in range(4)]
        for thread in clients:
            thread.start()
        for _ in range(150):
            assert worker.enough.acquire(timeout=20)
        assert worker.end(how) == (-how if how == signal.SIGKILL else 0)
        for thread in clients:
            thread.join(20)
        answered += worker.answered
    logged = (
        SegmentLog(tmp_path / "log", "reader", DayTables(tmp_path / "tables")).read("fraud", 0, 2**62)["id"].to_list()
    )
    assert len(answered) >= 600
    assert set(answered) <= set(logged)
    assert len(logged) == len(set(logged))


def test_a_new_route_is_followed_and_readiness_is_told(tmp_path: Path, lightgbm_onnx: bytes) -> None:
    bundle = project(tmp_path, lightgbm_onnx)
    other = Folder(tmp_path / "blobs").put(
        Folder(tmp_path / "blobs").get(bundle).replace(b'"run":"run"', b'"run":"two"')
    )
    worker = Worker(tmp_path)
    plane = HttpPlane(lambda: [f"http://127.0.0.1:{worker.port}"])
    assert plane.ready("fraud", bundle)
    while not plane.ready("fraud", other):
        os.sched_yield()
    assert not plane.ready("fraud", "f" * 64)
    FileRouter(tmp_path / "routing.json").publish(Routing(2, {"fraud": Route("R2", Arm(2, other))}))
    release, connection = "R1", HTTPConnection("127.0.0.1", worker.port, timeout=10)
    while release == "R1":
        connection.request("POST", "/v1/models/fraud/predict", json.dumps({"records": [dict.fromkeys(
            (f"f{i}" for i in range(20)), 0)]}))  # fmt: skip
        response = connection.getresponse()
        assert response.status == 200
        release = json.loads(response.read())["release"]
    connection.close()
    assert release == "R2"
    assert not HttpPlane(lambda: ["http://127.0.0.1:1"]).ready("fraud", bundle)
    assert not HttpPlane(list).ready("fraud", bundle)
    assert worker.end(signal.SIGTERM) == 0


def test_a_hundred_swaps_under_load_fail_no_request(tmp_path: Path, lightgbm_onnx: bytes) -> None:
    bundle, blobs = project(tmp_path, lightgbm_onnx), Folder(tmp_path / "blobs")
    bundles = [bundle, blobs.put(blobs.get(bundle).replace(b'"run":"run"', b'"run":"two"'))]
    worker, swapped, router = Worker(tmp_path), threading.Event(), FileRouter(tmp_path / "routing.json")
    clients = [threading.Thread(target=worker.load, args=(lambda: not swapped.is_set(),)) for _ in range(4)]
    for thread in clients:
        thread.start()
    for version in range(2, 102):
        router.publish(Routing(version, {"fraud": Route(f"R{version}", Arm(version, bundles[version % 2]))}))
        while worker.release != f"R{version}":
            assert worker.enough.acquire(timeout=20)
    swapped.set()
    for thread in clients:
        thread.join(20)
    assert worker.broken == 0
    assert set(worker.statuses) == {200}
    assert len(worker.answered) == 2 * worker.statuses[200]
    assert worker.end(signal.SIGTERM) == 0
