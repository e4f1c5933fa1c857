"""Clients that others have written, and the proxy that others put in front: right answers, right errors."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import h11
import numpy as np
import pytest
from live import Server
from worlds import BINARY, GOOD, World, logistic

from homeostat.domain.rollout import Arm, Route, Routing
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.serving.http import Limits
from needs import packages as installed
from needs import program

FOREIGN = Path(__file__).parent / "foreign"
PREDICT = "/v1/models/fraud/predict"
BODY = json.dumps({"records": [GOOD]}).encode()
FIELDS = (Field("x", Kind.NUMBER), Field("colour", Kind.TEXT, nullable=True, values=("red", "blue")))
MODELS = {
    "fraud": (BINARY, logistic),
    "price": (Schema(FIELDS, Task.REGRESSION, "y"), lambda x: x[:, :1].astype(float)),
    "kind": (Schema(FIELDS, Task.MULTICLASS, "y", (1, 2, 3)), lambda x: np.tile([0.2, 0.5, 0.3], (len(x), 1))),
}


@pytest.fixture(scope="module")
def packages() -> Path:
    return installed(FOREIGN / "packages.txt")


@pytest.fixture
def server() -> Iterator[Server]:
    world = World()
    world.route(world.bundle(logistic))
    server = Server(world, Limits(max_body=2_000_000))
    yield server
    server.close()


def run(packages: Path, folder: Path, *command: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    done = subprocess.run(
        [sys.executable, *command], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-3_000:]


@pytest.mark.parametrize("client", ["triton.py", "kserve_rest.py"])
def test_inference_clients(server: Server, packages: Path, tmp_path: Path, client: str) -> None:
    run(packages, tmp_path, str(FOREIGN / client), str(server.port))


def test_schemathesis_finds_the_document_true(packages: Path, tmp_path: Path) -> None:
    """Every answer is one that the OpenAPI document tells of, and what it forbids is refused. Left out: the check that
    what it allows is answered, for no JSON schema says that ids must differ or that columns are equally long."""
    world = World()
    routes = {
        name: Route("R1", Arm(1, world.bundle(model, schema, model=name)), None, salt="s")
        for name, (schema, model) in MODELS.items()
    }
    world.router.publish(Routing(1, routes))
    world.engine.refresh()
    server = Server(world, Limits())
    options = ("--max-examples", "4", "--seed", "1", "--exclude-checks", "positive_data_acceptance")
    try:
        run(
            packages,
            tmp_path,
            "-m",
            "schemathesis.cli",
            "run",
            f"http://127.0.0.1:{server.port}/openapi.json",
            *options,
        )
    finally:
        server.close()


class TestCurl:
    def curl(self, *arguments: str) -> tuple[dict[str, str], str]:
        """→ headers, with the status under "", and body."""
        command = [program("curl", "curl"), "--silent", "--max-time", "20", "--include", *arguments]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        while text.startswith("HTTP/1.1 100"):
            text = text.partition("\n\n")[2]
        head, _, body = text.partition("\n\n")
        first, *lines = head.splitlines()
        return {"": first.split()[1], **dict(line.split(": ", 1) for line in lines)}, body

    def test_says_nothing_of_the_content(self, server: Server) -> None:
        headers, body = self.curl(f"http://127.0.0.1:{server.port}{PREDICT}", "-d", BODY.decode())
        assert (headers[""], headers["x-prediction-id"]) == ("200", "p1")
        assert json.loads(body)["predictions"] == [{"id": "p1", "score": 0.5, "label": "yes"}]

    def test_compressed_chunked_and_expecting(self, server: Server, tmp_path: Path) -> None:
        (tmp_path / "body").write_text(json.dumps({"records": [GOOD] * 20_000}))
        where = f"http://127.0.0.1:{server.port}{PREDICT}"
        for way in (("--data-binary",), ("-H", "transfer-encoding: chunked", "--data-binary"), ("-X", "POST", "-T")):
            named = str(tmp_path / "body") if way[-1] == "-T" else f"@{tmp_path / 'body'}"
            headers, body = self.curl(where, "--compressed", "-H", "expect: 100-continue", *way, named)
            assert (headers[""], headers["content-encoding"]) == ("200", "gzip")
            assert len(json.loads(body)["predictions"]) == 20_000

    def test_head_and_errors(self, server: Server) -> None:
        base = f"http://127.0.0.1:{server.port}"
        headers, body = self.curl("--head", f"{base}/openapi.json")
        assert (headers[""], body, int(headers["content-length"]) > 10_000) == ("200", "", True)
        headers, body = self.curl(base + PREDICT, "-F", "records=1")
        assert (headers[""], headers["accept"]) == ("415", "application/json")
        assert json.loads(body)["ids"] == [headers["x-prediction-id"]]
        headers, body = self.curl(base + "/docs")
        assert headers["content-type"] == "text/html; charset=utf-8"
        assert PREDICT in body and "https://" not in body


class TestNginx:
    """Debian's, with connections to the worker kept open."""

    @pytest.fixture
    def front(self, server: Server, tmp_path: Path) -> Iterator[HTTPConnection]:
        nginx = program("nginx", "nginx-light")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        temporary = "".join(
            f"{kind}_temp_path {tmp_path};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi", "client_body")
        )
        (tmp_path / "conf").write_text(f"""
            {"user root;" if os.geteuid() == 0 else ""}
            pid {tmp_path}/pid;
            events {{}}
            http {{
                access_log off; {temporary} client_max_body_size 0;
                upstream plane {{ server 127.0.0.1:{server.port}; keepalive 4; }}
                server {{
                    listen 127.0.0.1:{port};
                    location / {{
                        proxy_pass http://plane; proxy_http_version 1.1; proxy_set_header connection "";
                        proxy_request_buffering off;
                    }}
                }}
            }}""")
        command = [nginx, "-p", str(tmp_path), "-e", str(tmp_path / "errors"), "-c", str(tmp_path / "conf")]
        subprocess.run(command, check=True, capture_output=True)
        connection = HTTPConnection("127.0.0.1", port, timeout=20)
        yield connection
        connection.close()
        subprocess.run([*command, "-s", "stop"], check=True, capture_output=True)

    def ask(self, front: HTTPConnection, method: str, path: str, **more: Any) -> tuple[int, dict[str, str], bytes]:
        front.request(method, path, **more)
        response = front.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()

    def test_every_kind_of_message(self, server: Server, front: HTTPConnection) -> None:
        for _ in range(20):
            assert self.ask(front, "POST", PREDICT, body=BODY)[0] == 200
        assert len(server.hub.connections) == 1
        status, headers, body = self.ask(front, "HEAD", "/v2/health/ready")
        assert (status, headers["content-length"], body) == (200, "14", b"")
        parts = (BODY[at : at + 7] for at in range(0, len(BODY), 7))
        assert self.ask(front, "POST", PREDICT, body=parts, encode_chunked=True,
                        headers={"transfer-encoding": "chunked"})[0] == 200  # fmt: skip
        many = json.dumps({"records": [GOOD] * 500}).encode()
        status, headers, _ = self.ask(front, "POST", PREDICT, body=many, headers={"accept-encoding": "gzip"})
        assert (status, headers["content-encoding"]) == (200, "gzip")
        assert self.ask(front, "POST", PREDICT, body=BODY, headers={"expect": "100-continue"})[0] == 200

    def test_errors_come_through(self, front: HTTPConnection) -> None:
        status, headers, body = self.ask(front, "GET", PREDICT)
        assert (status, headers["allow"]) == (405, "POST")
        wrong = json.dumps({"records": [{**GOOD, "amount": -1}]}).encode()
        status, headers, body = self.ask(front, "POST", PREDICT, body=wrong)
        assert (status, json.loads(body)["error"]["field"]) == (422, "amount")
        assert self.ask(front, "POST", PREDICT, body=b" " * 2_100_000)[0] == 413
        front.close()  # nginx closes it too, sooner or later: it has not read the body to its end
        assert self.ask(front, "POST", PREDICT, body=BODY)[0] == 200


class TestH11:
    def answers(self, server: Server, message: bytes, n: int) -> list[tuple[int, dict[str, str], bytes, bool]]:
        """Status, headers, body, and whether the connection stays: of n responses to the bytes."""
        found, rest = [], b""
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
            sock.sendall(message)
            for _ in range(n):
                parser = h11.Connection(h11.CLIENT)
                parser.send(h11.Request(method="POST", target="/", headers=[("host", "x")]))
                parser.send(h11.EndOfMessage())
                status, headers, body = 0, dict[str, str](), b""
                if rest:
                    parser.receive_data(rest)
                while not isinstance(event := parser.next_event(), h11.EndOfMessage):
                    if event is h11.NEED_DATA:
                        parser.receive_data(sock.recv(65_536))
                    elif isinstance(event, h11.Response):
                        status = event.status_code
                        headers = {name.decode(): value.decode() for name, value in event.headers}
                    elif isinstance(event, h11.Data):
                        body += bytes(event.data)
                rest = parser.trailing_data[0]
                found.append((status, headers, body, parser.their_state is h11.DONE))
        return found

    def test_pipelined(self, server: Server) -> None:
        messages = []
        for i in range(10):
            client = h11.Connection(h11.CLIENT)
            body = json.dumps({"records": [{**GOOD, "id": f"i{i}"}]}).encode()
            target = "/nothing" if i == 5 else PREDICT
            size = [("transfer-encoding", "chunked")] if i % 2 else [("content-length", str(len(body)))]
            head = h11.Request(method="POST", target=target, headers=[("host", "x"), *size])
            messages += [client.send(head), client.send(h11.Data(data=body)), client.send(h11.EndOfMessage())]
        found = self.answers(server, b"".join(part or b"" for part in messages), 10)
        told = [headers.get("x-prediction-id", status) for status, headers, _, _ in found]
        assert told == ["i0", "i1", "i2", "i3", "i4", 404, "i6", "i7", "i8", "i9"]

    @pytest.mark.parametrize(
        "message",
        [
            b"GET / HTTP/3.7\r\n\r\n",
            b"get / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost : x\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost: x\r\n folded: y\r\n\r\n",
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
            b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
            b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\nxyz",
            b"\x16\x03\x01\x02\x00\x01\x00",
        ],
    )
    def test_malformed(self, server: Server, message: bytes) -> None:
        ((status, headers, body, _),) = self.answers(server, message, 1)
        assert (status, headers["connection"]) == (400, "close")
        assert json.loads(body)["error"]["rule"] == "http"
