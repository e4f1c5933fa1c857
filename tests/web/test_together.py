"""Several projects behind one port, in one process."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import projects
from homeostat.adapters.plane import HttpPlane, announced
from homeostat.project import Project
from homeostat.wiring import STATE

FOREVER = (0, 2**62)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Project]:
    """There is room for one model at a time."""
    root = tmp_path_factory.mktemp("two")
    policies = (projects.POLICY.replace("cards", name) + "serving: {memory: 1KB}\n" for name in ("cards", "loans"))
    cards, loans = (projects.serving(root / str(i), policy) for i, policy in enumerate(policies))
    return cards, loans


@pytest.fixture(scope="module")
def url(two: tuple[Project, Project]) -> Iterator[str]:
    cards, loans = (str(project.root) for project in two)
    command = [
        sys.executable,
        "-m",
        "homeostat",
        "serve",
        "-p",
        cards,
        "--with",
        loans,
        "--port",
        "0",
        "--workers",
        "1",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        found = re.search(r"http://\S+", process.stderr.readline())
        assert found is not None
        yield found[0]
        process.terminate()


def asked(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(url, data, timeout=60) as answer:
        return json.load(answer)


def test_each_model_is_loaded_when_it_is_asked_for_and_writes_into_its_own_log(
    two: tuple[Project, Project], url: str
) -> None:
    rows = projects.rows().drop("at", "fraud", strict=False).head(1).to_dicts()
    for turn in range(2):
        for name in ("cards", "loans"):
            body = {"records": [rows[0] | {"id": f"{name}-{turn}"}]}
            (said,) = asked(f"{url}/v1/models/{name}/predict", body)["predictions"]
            assert said["id"] == f"{name}-{turn}"
    for name, label in (("loans", 1), ("cards", 0)):  # one of them is not loaded now
        asked(f"{url}/v1/feedback", {"model": name, "labels": [{"id": f"{name}-0", "label": label}]})
    for project, other in zip(two, reversed(two), strict=True):
        name, stores = project.policy.name, project.system.stores
        assert sorted(stores.log.read(name, *FOREVER)["id"]) == [f"{name}-0", f"{name}-1"]
        assert stores.log.read(other.policy.name, *FOREVER).is_empty()
    told = [project.system.stores.labels.read(*FOREVER) for project in two]
    assert [frame["id"].to_list() for frame in told] == [["cards-0"], ["loans-0"]]


def test_where_there_are_several_feedback_names_its_model(url: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        asked(f"{url}/v1/feedback", {"labels": [{"id": "cards-0", "label": 1}]})
    assert refused.value.code == 422
    assert "model" in json.load(refused.value)["error"]["message"]


@pytest.mark.usefixtures("url")
def test_the_control_plane_of_each_finds_the_worker(two: tuple[Project, Project]) -> None:
    told = [announced(project.root / STATE / "workers") for project in two]
    assert told[0] == told[1]
    assert len(told[0]) == 1
    for project in two:
        bundle = project.system.stores.router.read().routes[project.policy.name].champion.bundle
        plane = HttpPlane(lambda: told[0])
        end = time.monotonic() + 60
        while not plane.ready(project.policy.name, bundle):
            assert time.monotonic() < end
            time.sleep(0.05)


def test_one_name_is_one_model(two: tuple[Project, Project], tmp_path: Path) -> None:
    again = projects.make(tmp_path / "again")
    command = [sys.executable, "-m", "homeostat", "serve", "-p", str(two[0].root), "--with", str(again), "--port", "0"]
    made = subprocess.run([*command, "--workers", "1"], capture_output=True, text=True, timeout=60, check=False)
    assert made.returncode != 0
    assert "another project has a model 'cards' too" in made.stderr
