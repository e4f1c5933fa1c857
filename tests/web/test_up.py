"""`homeostat up` as a person uses it: real processes, real sockets, real files."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tritonclient.grpc import InferenceServerClient

from homeostat.project import Project

PATIENCE_S = 60.0
ROW = {"amount": 12.5, "hour": 3, "country": "de"}


class Up:
    """A running `homeostat up` in a process group of its own."""

    def __init__(self, root: Path, port: int) -> None:
        self.root, self.port = root, port
        command = [sys.executable, "-m", "homeostat", "up", "-p", str(root), "--port", str(port)]
        command += ["--grpc-port", str(port + 2)]
        self.output = (root.parent / "up.log").open("ab")
        self.process = subprocess.Popen(command, stdout=self.output, stderr=self.output, start_new_session=True)

    def ask(self, method: str, path: str, body: Any = None, plane: bool = True) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port + plane, timeout=10)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"content-type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def until(self, what: Callable[[], bool]) -> None:
        """Look until it is so."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            try:
                if what():
                    return
            except (OSError, http.client.HTTPException):
                pass  # not up yet
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.05)
                raise AssertionError((self.root.parent / "up.log").read_text())
        raise AssertionError(f"not within {PATIENCE_S} s:\n{(self.root.parent / 'up.log').read_text()}")

    def serves(self, version: int) -> None:
        def answered() -> bool:
            status, said = self.ask("POST", "/v1/models/cards/predict", {"records": [ROW]})
            return status == 200 and said["model_version"] == version

        self.until(answered)

    def standing(self) -> Any:
        return self.ask("GET", "/v1/status", plane=False)[1]

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.output.close()

    def end(self) -> int:
        self.process.terminate()
        code = self.process.wait(30)
        self.output.close()
        return code


def three_free_ports() -> int:
    """→ the first of three neighbours that nobody uses, below those that the kernel gives to clients."""
    for port in range(20_000 + os.getpid() % 3_000 * 3, 32_000, 3):
        with socket.socket() as one, socket.socket() as two, socket.socket() as three:
            try:
                for i, bound in enumerate((one, two, three)):
                    bound.bind(("127.0.0.1", port + i))
            except OSError:
                continue
            return port
    raise AssertionError("no three free ports")


@pytest.fixture
def start(project: Project) -> Iterator[Callable[[], Up]]:
    begun: list[Up] = []
    port = three_free_ports()

    def make() -> Up:
        begun.append(Up(project.root, port))
        return begun[-1]

    yield make
    for one_up in begun:
        if one_up.process.poll() is None:
            one_up.kill()
        one_up.output.close()


def cli(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "homeostat", *arguments, "-p", str(project.root)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_life_with_a_kill_in_the_middle_of_a_canary(project: Project, start: Callable[[], Up]) -> None:
    up = start()
    up.serves(1)
    with InferenceServerClient(f"127.0.0.1:{up.port + 2}") as client:
        assert client.is_model_ready("cards")

    status, said = up.ask("POST", "/v1/models/cards/predict", {"records": [{**ROW, "id": "p1", "key": "k"}]})
    assert (status, said["release"], said["predictions"][0]["id"]) == (200, "R1", "p1")
    status, said = up.ask("POST", "/v1/models/cards/predict", {"records": [{**ROW, "amount": "much"}]})
    assert (status, said["error"]["field"], said["error"]["rule"]) == (422, "amount", "type")
    assert up.ask("POST", "/v1/feedback", {"labels": [{"id": "p1", "label": 1}]}) == (200, {"accepted": 1})
    status, said = up.ask("POST", "/v1/feedback", {"labels": [{"id": "p1", "label": 0}]}, plane=False)
    assert (status, said) == (200, {"accepted": 1})
    traced = up.ask("GET", "/v1/predictions/p1", plane=False)[1]
    assert (traced["label"]["value"], traced["release"], traced["inputs"]["amount"]) == ("0", "R1", 12.5)
    assert traced["run"]["dataset"]["rows"] == 3_000
    assert traced["run"]["gates"][0]["verdict"] == "ok"
    assert "lightgbm==" in traced["environment"]

    train = project.root / "pipelines" / "train.py"
    train.write_text(train.read_text().replace('"num_leaves": 15', '"num_leaves": 7'))
    assert cli(project, "run").returncode == 0
    started = cli(project, "release", "start", "--json")
    assert started.returncode == 0, started.stderr
    assert json.loads(started.stdout)["candidate"]["number"] == 2
    up.until(lambda: up.standing()["recent"][-1]["kind"] == "release.routed")  # the shadow
    assert cli(project, "release", "approve", "--reason", "seen enough").returncode == 0
    ids: list[str] = []
    arms: set[int] = set()

    def a_hundred_more() -> bool:
        for _ in range(100):
            name = f"n{len(ids)}"
            answered = up.ask("POST", "/v1/models/cards/predict", {"records": [{**ROW, "id": name}]})
            assert answered[0] == 200
            ids.append(name)
            arms.add(answered[1]["model_version"])
        return arms == {1, 2}

    up.until(a_hundred_more)
    before = up.standing()["release"]
    up.kill()

    again = start()
    again.until(lambda: again.ask("POST", "/v1/models/cards/predict", {"records": [ROW]})[0] == 200)
    after = again.standing()["release"]
    assert [after[name] for name in ("id", "index", "status", "step_ms")] == [
        before[name] for name in ("id", "index", "status", "step_ms")
    ]
    logged = set(project.system.stores.log.read("cards", 0, 2**62).filter(pl.col("role") == "answer")["id"])
    assert set(ids) <= logged

    assert again.ask("POST", "/v1/releases/R2/rollback", {"reason": "enough", "who": "ada"}, plane=False)[0] == 200
    again.until(lambda: again.standing()["release"]["id"] == "R1")
    history = json.loads(cli(project, "release", "history", "--json").stdout)
    assert [one["status"] for one in history] == ["promoted", "rolled back"]
    assert history[1]["reason"] == "ada: enough"
    served = json.loads(cli(project, "release", "history", "--at", "2100-01-01", "--json").stdout)
    assert [(arm["version"], arm["share"], arm["release"]) for arm in served["arms"]] == [(1, 10_000, "R1")]
    refused = cli(project, "release", "start")
    assert (refused.returncode, "was refused" in refused.stderr) == (1, True)

    second = cli(project, "up", "--port", str(again.port))
    assert (second.returncode, "is up already" in second.stderr) == (1, True)
    assert again.end() == 0
    said = (project.root.parent / "up.log").read_text()
    assert "Traceback" not in said
    assert "Fatal" not in said


def test_data_plane_and_compactor_are_started_again_and_a_foreign_host_is_refused(start: Callable[[], Up]) -> None:
    up = start()
    up.serves(1)

    def children() -> list[int]:
        """The data plane and the compactor, whichever thread has started them."""
        tasks = Path(f"/proc/{up.process.pid}/task").glob("*/children")
        return sorted(int(one) for task in tasks for one in task.read_text().split())

    up.until(lambda: len(children()) == 2)
    before = children()
    for child in before:
        os.kill(child, signal.SIGKILL)
    up.until(lambda: len(set(children()) - set(before)) == 2)
    up.serves(1)
    connection = http.client.HTTPConnection("127.0.0.1", up.port, timeout=10)
    connection.request("GET", "/v1/status", headers={"host": "evil.example"})
    assert connection.getresponse().status == 400
    connection.close()
    status, said = up.ask("GET", "/v1/predictions/none", plane=False)
    assert (status, set(said["error"])) == (404, {"message", "way_out"})
    assert up.ask("POST", "/v1/releases/R9/rollback", {}, plane=False)[0] == 404
    assert up.ask("POST", "/v1/releases", {"who": "ada"}, plane=False)[0] == 409  # it serves already
    assert up.ask("POST", "/v1/releases/R1/dance", {}, plane=False)[0] == 422
