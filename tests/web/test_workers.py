"""How many workers there are, and that the death of one is nobody else's."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

import polars as pl
import pytest

from homeostat.project import Project
from homeostat.web.children import KILLED_S
from homeostat.web.workers import HIGH_S, LOW_S, Usage, wanted
from homeostat.wiring.plane import STATE
from homeostat.wiring.upkeep import compactor

KILLS = 50
ROW = {"amount": 12.5, "hour": 3, "country": "de"}


@pytest.mark.parametrize(
    ("workers", "lately", "long", "then"),
    [
        (1, 0.85, 0.2, 2),
        (1, 0.75, 0.75, 1),
        (2, 1.7, 1.7, 3),
        (2, 1.0, 0.45, 1),
        (2, 1.0, 0.55, 2),
        (4, 4.0, 4.0, 4),  # no more than four
        (1, 0.0, 0.0, 1),  # no fewer than one
    ],
)
def test_the_number_follows_the_load_between_its_bounds(workers: int, lately: float, long: float, then: int) -> None:
    number, why = wanted(workers, 1, 4, lately, long)
    assert number == then
    assert bool(why) == (then != workers)


def test_usage_counts_what_was_spent_while_it_looked() -> None:
    usage = Usage()
    usage.look(0.0, {1: 100.0})  # spent before
    assert usage.cores(HIGH_S) is None
    for second in range(1, 131):
        seen = {1: 100.0 + second * 0.9}
        if second > 125:
            seen[2] = 50.0 + second * 0.5  # joins later: counts from its second look on
        usage.look(float(second), seen)
    assert usage.cores(LOW_S) == pytest.approx(0.9 + 4 * 0.5 / LOW_S)
    assert usage.cores(HIGH_S) == pytest.approx(0.9 + 4 * 0.5 / HIGH_S)
    usage.look(131.0, {2: 50.0 + 131 * 0.5})  # the first has died
    assert usage.cores(HIGH_S) == pytest.approx((9 * 0.9 + 5 * 0.5) / HIGH_S)
    usage.forget()
    usage.look(132.0, {2: 116.5})
    assert usage.cores(HIGH_S) is None


def release_first(project: Project) -> None:
    system = project.system
    system.plane = system.engine
    system.control.begin()
    system.control.settle()


class Serving:
    """`homeostat serve` with workers in processes of their own, in a process group of its own."""

    def __init__(self, root: Path, workers: str) -> None:
        self.root, self.log = root, root.parent / "serve.log"
        command = [sys.executable, "-m", "homeostat", "serve", "-p", str(root), "--port", "0", "--workers", workers]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(command, stderr=output, start_new_session=True)
        while not self.log.read_text().endswith("\n"):
            assert self.process.poll() is None
        self.port = int(self.log.read_text().splitlines()[0].rpartition(":")[2])

    def workers(self) -> dict[int, str]:
        """pid → the URL of its own, of those that are ready."""
        told = [json.loads(path.read_text()) for path in (self.root / STATE / "workers").glob("*.json")]
        return {one["pid"]: one["url"] for one in told}

    def until_ready(self, others: Collection[int], count: int) -> dict[int, str]:
        """So many workers besides `others`, each of which answers."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            found = {pid: url for pid, url in self.workers().items() if pid not in others}
            if len(found) == count and all(ready(url) for url in found.values()):
                return found
            assert self.process.poll() is None, self.log.read_text()
        raise AssertionError(f"not {count} workers: {self.workers()}")

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(30)


def ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/v2/health/ready", timeout=10) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def prefix(identity: str) -> str:
    """Of the ids that one process gives."""
    return identity.rpartition("-")[0]


class Caller(threading.Thread):
    """Asks without a pause, on a new connection when one breaks. `broken`: whose connections broke; "" where nobody had
    answered on it yet: it lay in the queue of the one that died."""

    def __init__(self, port: int, ended: threading.Event) -> None:
        super().__init__(daemon=True)
        self._port, self._ended = port, ended
        self.answered: list[str] = []
        self.broken: list[str] = []
        self.refused: list[tuple[int, bytes]] = []

    def run(self) -> None:
        while not self._ended.is_set():
            connection, owner = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20), ""
            try:
                while not self._ended.is_set():
                    owner = self._ask(connection)
            except (OSError, http.client.HTTPException):
                self.broken.append(owner)
            finally:
                connection.close()

    def _ask(self, connection: http.client.HTTPConnection) -> str:
        connection.request("POST", "/v1/models/cards/predict", json.dumps({"records": [ROW]}))
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            self.refused.append((response.status, body))
            return ""
        self.answered.append(json.loads(body)["predictions"][0]["id"])
        return prefix(self.answered[-1])


def kill_the_oldest(serving: Serving, alive: list[tuple[int, str]]) -> str:
    """→ the prefix of its ids; `alive` has its successor when that answers."""
    pid, url = alive.pop(0)
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=20)
    owner = Caller(0, threading.Event())._ask(connection)
    connection.close()
    os.kill(pid, signal.SIGKILL)
    alive += serving.until_ready([pid, *(one for one, _ in alive)], 1).items()
    return owner


@pytest.fixture
def serving(project: Project) -> Iterator[Serving]:
    """Three workers of the project's first version."""
    release_first(project)
    serving = Serving(project.root, "3")
    yield serving
    serving.end()


def test_workers_that_are_killed_lose_no_answer_and_disturb_no_other(project: Project, serving: Serving) -> None:
    """Fifty `kill -9` under load, of the oldest each time."""
    ended = threading.Event()
    alive, killed = list(serving.until_ready((), 3).items()), set[str]()
    callers = [Caller(serving.port, ended) for _ in range(8)]
    for caller in callers:
        caller.start()
    try:
        for _ in range(KILLS):
            killed.add(kill_the_oldest(serving, alive))
            ended.wait(KILLED_S / 3 + 0.2)  # a life shorter than three of these would be a crash loop
    finally:
        ended.set()
        for caller in callers:
            caller.join(30)
    assert serving.end() == 0
    answered = [one for caller in callers for one in caller.answered]
    broken = Counter(owner for caller in callers for owner in caller.broken)
    assert not [refusal for caller in callers for refusal in caller.refused]
    assert set(broken) <= {*killed, ""}, "a connection to a living worker broke"
    assert broken[""] <= KILLS
    assert len(answered) > 20 * KILLS
    compactor(project.root, project.policy).turn()
    rows = project.system.stores.log.read("cards", 0, 2**62).filter(pl.col("role") == "answer")["id"]
    stored = project.system.stores.tables.read("predictions/cards").collect().filter(pl.col("role") == "answer")["id"]
    assert set(answered) <= set(rows)
    assert set(rows) == set(stored)
    assert stored.n_unique() == len(stored)


def test_a_crash_loop_ends_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "homeostat.yaml").write_text("name: [\n")
    serving = subprocess.run(
        [sys.executable, "-m", "homeostat", "serve", "-p", str(tmp_path), "--port", "0", "--workers", "2"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert serving.returncode == 2
    assert "homeostat.yaml" in serving.stderr
    assert "ended 5 times soon after its start, with code 2" in serving.stderr
