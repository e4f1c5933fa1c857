"""Hooks as they run: real commands, a real server."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from homeostat.adapters.hooks import ProjectHooks

MESSAGE = {"id": "R2:before:1", "step": "10 %"}


class Server(HTTPServer):
    """Keeps what it was sent; answers 204, or what the path asks for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.got: list[tuple[str | None, Any]] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((self.headers["idempotency-key"], json.loads(body)))
        self.send_response(int(self.path[1:] or 204))
        self.send_header("location", "/204")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as one:
        thread = threading.Thread(target=one.serve_forever)
        thread.start()
        yield one
        one.shutdown()
        thread.join()


def test_a_command_reads_the_message_in_the_folder_of_the_project(tmp_path: Path) -> None:
    (tmp_path / "hook.py").write_text("import sys; open('got', 'w').write(sys.stdin.read() + sys.argv[1])")
    assert ProjectHooks(tmp_path).run(f"{sys.executable} hook.py '$HOME; true'", MESSAGE) == ""
    got = (tmp_path / "got").read_text()
    assert got.endswith("$HOME; true")  # no shell saw it
    assert json.loads(got.removesuffix("$HOME; true")) == MESSAGE


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (f"{sys.executable} -c 'import sys; sys.exit(\"no licence\")'", "exit code 1, no licence"),
        ("no-such-command --at-all", "No such file"),
        ("'unclosed", "No closing quotation"),
    ],
)
def test_a_command_that_fails_says_why(tmp_path: Path, command: str, said: str) -> None:
    assert said in ProjectHooks(tmp_path).run(command, MESSAGE)


def test_a_command_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    (tmp_path / "hook.py").write_text("import os, time; os.fork(); time.sleep(600)")
    assert "no end after 1 s" in ProjectHooks(tmp_path, 1.0).run(f"{sys.executable} hook.py", MESSAGE)


def test_a_url_gets_the_message_with_its_id(server: Server, tmp_path: Path) -> None:
    hooks, url = ProjectHooks(tmp_path), f"http://127.0.0.1:{server.server_port}"
    assert hooks.run(f"{url}/", MESSAGE) == ""
    assert server.got == [("R2:before:1", MESSAGE)]
    assert "500" in hooks.run(f"{url}/500", MESSAGE)
    assert "302" in hooks.run(f"{url}/302", MESSAGE)
    assert "refused" in hooks.run("http://127.0.0.1:1/", MESSAGE)
