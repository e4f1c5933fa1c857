"""A live system scraped by a real Prometheus, until a real alert has come out of a real Alertmanager."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as families
from test_up import PATIENCE_S, ROW, Up, cli, three_free_ports

from homeostat.export.monitoring.dashboard import RANGE
from homeostat.project import Project
from needs import program

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
SPARSE = {"Lanes"}
"""Panels that show nothing while no release is under way."""


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


@contextmanager
def webhook() -> Iterator[tuple[str, Queue[Any]]]:
    """→ its URL, and what was sent there."""
    sent: Queue[Any] = Queue()

    class Taker(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            for alert in json.loads(self.rfile.read(int(self.headers["content-length"])))["alerts"]:
                sent.put((alert["status"], alert["labels"]["alertname"], alert["annotations"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Taker)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", sent
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def running(folder: Path, *command: str) -> Iterator[None]:
    with (folder / f"{Path(command[0]).name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


def hastened(path: Path, *changes: tuple[str, str]) -> None:
    """Nobody here can wait as long as production can."""
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


@pytest.fixture
def up(project: Project) -> Iterator[Up]:
    policy = project.root / "homeostat.yaml"
    policy.write_text(re.sub(r"(?m)^serving:.*\n", "", policy.read_text()) + "serving: {workers: 2}\n")
    begun = Up(project.root, three_free_ports())
    yield begun
    if begun.process.poll() is None:
        begun.kill()
    begun.output.close()


def scrape(up: Up, plane: bool = True) -> dict[str, Any]:
    """Family → it. Each time a connection of its own: any worker may answer."""
    text = get(f"http://127.0.0.1:{up.port + plane}/metrics")
    return {family.name: family for family in families(text)}


def answered(up: Up) -> float:
    samples = scrape(up)["homeostat_predictions"].samples
    return sum(one.value for one in samples if (one.labels["role"], one.labels["status"]) == ("answer", "ok"))


def workers(up: Up) -> list[int]:
    told = [json.loads(path.read_bytes()) for path in (up.root / ".homeostat" / "workers").glob("*.json")]
    return [worker["pid"] for worker in told]


def documented(job: str) -> dict[str, tuple[str, ...]]:
    """Metric → its labels, from the table of the part."""
    part = DOCS.read_text().split(f"## {job}")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| \w+ \|([^|]*)\|", part, re.MULTILINE)
    return {name: tuple(sorted(re.findall(r"`(\w+)`", labels))) for name, labels in rows}


def exposed(found: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """The same, as it is; a family without samples has no labels to show."""
    names = {}
    for family in found.values():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for one in family.samples for label in one.labels} - {"le"}
        names[name] = tuple(sorted(labels))
    return names


def check_documents(up: Up) -> None:
    for job, plane in (("Data plane", True), ("Control plane", False)):
        told, there = documented(job), exposed(scrape(up, plane))
        assert told.keys() == there.keys()
        assert {name: labels for name, labels in told.items() if there[name]} == {k: v for k, v in there.items() if v}


def check_workers(up: Up, project: Project) -> None:
    """Whoever is asked tells of all, and no count goes back when one is killed."""
    for _ in range(60):
        assert up.ask("POST", "/v1/models/cards/predict", {"records": [ROW]})[0] == 200
    before = answered(up)
    logged = project.system.stores.log.read("cards", 0, 2**62)
    assert before == logged["role"].eq("answer").sum()
    assert [answered(up) for _ in range(8)] == [before] * 8
    victim = workers(up)[0]
    os.kill(victim, signal.SIGKILL)
    up.until(lambda: victim not in workers(up) and ready(up) == 2)
    assert [answered(up) for _ in range(8)] == [before] * 8


def ready(up: Up) -> float:
    """Workers that can answer."""
    return sum(one.value for one in scrape(up)["homeostat_ready"].samples)


def test_a_real_alert_reaches_a_webhook(project: Project, up: Up, tmp_path: Path) -> None:
    prometheus = program("prometheus", "prometheus")
    alertmanager = program("prometheus-alertmanager", "prometheus-alertmanager")
    up.until(lambda: ready(up) == 2)
    assert up.ask("POST", "/v1/feedback", {"labels": [{"id": "p1", "label": 1}]})[0] == 200
    check_workers(up, project)
    check_documents(up)
    port = three_free_ports()
    with webhook() as (url, sent):
        made = cli(project, "export", "prometheus", str(tmp_path), "--port", str(up.port), "--webhook", url)
        assert made.returncode == 0, made.stderr
        assert cli(project, "export", "grafana", str(tmp_path)).returncode == 0
        hastened(tmp_path / "prometheus.yml", ("15s", "1s"), ("9093", str(port + 1)))
        hastened(tmp_path / "cards.rules.yml", ("for: 1m", "for: 1s"), ("for: 2m", "for: 1s"))
        hastened(tmp_path / "alertmanager.yml", ("10s", "1s"), ("30s", "1s"), ("5m", "1s"))
        base = f"http://127.0.0.1:{port}"
        scraping = (
            f"--config.file={tmp_path}/prometheus.yml",
            f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        )
        routing = (
            f"--config.file={tmp_path}/alertmanager.yml",
            f"--storage.path={tmp_path}/alerts",
            f"--web.listen-address=127.0.0.1:{port + 1}",
            "--cluster.listen-address=",
        )
        with running(tmp_path, alertmanager, *routing), running(tmp_path, prometheus, *scraping):

            def query(expr: str) -> list[Any]:
                told = json.loads(get(f"{base}/api/v1/query?{urllib.parse.urlencode({'query': expr})}"))
                assert told["status"] == "success", told
                return list(told["data"]["result"])

            def scraped() -> bool:
                up.ask("POST", "/v1/models/cards/predict", {"records": [ROW]})
                try:
                    return bool(query('sum(rate(homeostat_requests_total{model="cards"}[4s])) > 0'))
                except OSError:  # it has not begun
                    return False

            until(scraped)
            dashboard = json.loads((tmp_path / "homeostat-cards.json").read_text())
            exprs = [(panel["title"], one["expr"]) for panel in dashboard["panels"] for one in panel["targets"]]

            def drawn() -> bool:
                """A scrape may have been missed; then another brings what its range lacks."""
                up.ask("POST", "/v1/models/cards/predict", {"records": [ROW]})
                return {title for title, expr in exprs if not query(expr.replace(RANGE, "10s"))} == SPARSE

            until(drawn)
            stopped = workers(up)
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            status, name, said = sent.get(timeout=PATIENCE_S)
            assert (status, name) == ("firing", "HomeostatPlaneDown")
            assert said["summary"] == "cards: The data plane can't be reached: nobody is answered."
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
            while (status, name) != ("resolved", "HomeostatPlaneDown"):
                status, name, _ = sent.get(timeout=PATIENCE_S)
            failing = query('ALERTS{alertstate="firing"}')
            assert not failing, "no alert about a system that is well"
    assert up.end() == 0
