"""The verbs from Python, on a project on disk."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from typer.testing import CliRunner

import homeostat
import projects
from homeostat import cli
from homeostat.config import read_policy
from homeostat.domain.errors import ConfigError, DataError, NotFound, Refused
from homeostat.domain.rollout import Status
from homeostat.domain.units import DAY_MS
from homeostat.project import Project
from homeostat.web import api
from homeostat.wiring.plane import data_plane

RUNNER = CliRunner()
ROWS = pl.DataFrame(
    {
        "id": ["a", "b"],
        "key": ["k1", "k2"],
        "amount": [90.0, 4.0],
        "hour": [3, 4],
        "country": ["de", None],
        "online": [True, False],
    }
)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return homeostat.load(projects.make(tmp_path / "cards"))


@pytest.fixture
def released(project: Project) -> Project:
    """Its first version answers; the data plane is in this process."""
    project.run()
    system = project.system
    system.plane = system.engine
    system.control.begin()
    system.control.settle()
    return project


def test_a_project_says_what_it_is(project: Project) -> None:
    assert repr(project) == f"Project('cards', binary, {project.root})"
    assert len(project.data()) == 30 * 72
    with pytest.raises(ConfigError, match="there is no homeostat"):
        homeostat.load(project.root / "nowhere")


@pytest.mark.parametrize("rule", ["drop", "hash"])
def test_a_private_field_that_is_mistyped_is_an_error_before_anything_is_logged(tmp_path: Path, rule: str) -> None:
    root = projects.make(tmp_path / "cards", policy=f"{projects.POLICY}log: {{{rule}: [contry]}}\n")
    said = rf"(?s)'contry' is no input and not the key.*log\.{rule}.*Inputs: .*country"
    for opened in (lambda: data_plane(root, read_policy(root)), lambda: homeostat.load(root).status()):
        with pytest.raises(ConfigError, match=said):
            opened()
    policy = read_policy(root)
    (root / policy.data.source).unlink()
    data_plane(root, policy)  # a machine without the rows knows no better


def test_a_run_reads_well_in_a_notebook(project: Project) -> None:
    result = project.run()
    said = repr(result).splitlines()
    assert said[0] == f"Run {result.id}: ok, version 1; data version 0"
    assert "roc_auc versus champion: ok: no champion yet" in said[1]
    assert Path(result.report).read_text().startswith("<!doctype html>")
    assert "Version 1 is registered" in Path(result.report).read_text()


def test_training_alone(project: Project) -> None:
    rows = project.data()
    output = project.fit(rows.head(1_000))(rows.tail(10))
    assert output.shape == (10, 2)


def test_predict_trace_feedback(released: Project) -> None:
    answers = released.predict(ROWS)
    assert answers["id"].to_list() == ["a", "b"]
    assert set(answers.columns) == {"id", "score", "label"}
    assert answers["score"][0] > 0.5 > answers["score"][1]
    assert released.feedback([{"id": "a", "label": 1}, {"id": "b", "label": 0}]) == 2
    found = released.trace("a")
    assert repr(found).startswith("Prediction a of cards: 1; label 1; release R1, run ")
    assert found.inputs["amount"] == 90.0
    with pytest.raises(DataError, match=r"amount must be at least 0(.|\n)*row 2"):
        released.predict(ROWS.with_columns(pl.Series("amount", [1.0, -1.0])))
    with pytest.raises(DataError, match="label must be one of 0, 1"):
        released.feedback(pl.DataFrame({"id": ["a"], "label": [7]}))


def test_recorded_requests_through_another_version(released: Project) -> None:
    rows = released.data().tail(300)
    ids = released.predict(rows.select("amount", "hour", "country", "online"))["id"].to_list()
    labels = rows["fraud"].to_list()
    released.feedback([{"id": ids[i], "label": labels[i]} for i in range(250)])
    projects.edited(released.root, "lib.py", "return 7", "return 3")
    released.run()
    found = released.release.backtest(DAY_MS)
    assert (found.result.champion, found.result.candidate, found.result.recorded.replayed) == (1, 2, 300)
    assert (found.result.labels, found.result.recorded.changed) == (250, 0)
    assert Path(found.report).read_text().count("<svg") == 1
    assert released.release.backtest(DAY_MS, candidate=1).result.shift.flips == 0
    here = ["--project", str(released.root)]
    said = RUNNER.invoke(cli.app, ["release", "backtest", "--from", "1d", *here])
    assert said.exit_code in cli.EXIT.values()  # latency is measured
    assert "Version 2 against version 1." in said.output
    assert "The backtest cannot know:" in said.output
    released.release.start(2)
    said = RUNNER.invoke(cli.app, ["replay", ids[0], "--release", "R2", *here, "--json"])
    answers = json.loads(said.output)
    assert (answers["recorded"]["version"], answers["replayed"]["version"]) == (1, 2)
    assert RUNNER.invoke(cli.app, ["replay", ids[0], "--release", "R2", *here]).exit_code == 0


def test_before_the_first_release(project: Project) -> None:
    with pytest.raises(NotFound, match="serves no version yet"):
        project.predict(ROWS)
    assert project.release.status() is None
    assert project.status().standing is None


def test_the_verbs_of_a_release(released: Project) -> None:
    standing = released.release.status()
    assert standing is not None
    assert (standing.rollout.id, standing.rollout.status) == ("R1", Status.PROMOTED)
    with pytest.raises(Refused, match="serves already"):
        released.release.start()
    with pytest.raises(NotFound, match="no version 9"):
        released.release.start(9)
    projects.edited(released.root, "lib.py", "return 7", "return 3")
    released.run()
    assert released.release.start(2).id == "R2"
    released.system.control.settle()
    released.release.reject(reason="not yet")
    released.system.control.settle()
    assert [one.status for one in released.release.history()] == [Status.PROMOTED, Status.REJECTED]
    explanation, report = released.release.explain("R2")
    assert (explanation.outlook, explanation.holds) == (None, "")
    page = Path(report).read_text()
    assert "not yet" in page
    assert "rank correlation" in page
    assert explanation.needs is not None
    assert explanation.needs.before == 1
    said = CliRunner().invoke(cli.app, ["release", "explain", "R2", "--markdown", "-p", str(released.root)])
    assert said.stdout.startswith("### Release R2 of cards\n\nVersion 2 was rejected after ")
    said = CliRunner().invoke(cli.app, ["release", "explain", "R2", "--json", "-p", str(released.root)])
    assert json.loads(said.stdout)["rollout"]["status"] == "rejected"
    status = released.status()
    assert status.recent
    assert status.performance is not None


def test_a_training_by_hand_is_carried_out_by_the_loop(released: Project) -> None:
    projects.edited(released.root, "lib.py", "return 7", "return 3")
    asked = released.retrain("curious")
    released.system.control.turn()
    done = released.system.stores.journal.read("cards", "training.done")
    assert [event.subject for event in done] == [asked.key]
    assert released.release.history()[-1].candidate.number == 2


def ask(project: Project, method: str, path: str, body: Any = None) -> httpx.Response:
    """One request to the control API, without a socket."""

    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(api.create(project))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", follow_redirects=True) as client:
            return await client.request(method, path, json=body)

    return asyncio.run(go())


def test_the_page_of_the_control_api_asks_nobody_else(released: Project) -> None:
    page = ask(released, "GET", "/")
    assert (page.status_code, page.url.path) == (200, "/docs")
    for path in ask(released, "GET", "/openapi.json").json()["paths"]:
        assert f"<code>{path}</code>" in page.text
    assert "https://" not in page.text
    assert "src=" not in page.text


def test_the_control_api(released: Project) -> None:
    assert ask(released, "GET", "/v1/releases/R1/report").text.startswith("<!doctype html>")
    assert ask(released, "POST", "/v1/releases", {"versions": 3}).status_code == 422
    assert ask(released, "POST", "/v1/releases", {}).status_code == 409
    assert ask(released, "POST", "/v1/trainings", {"reason": "by hand"}).json()["kind"] == "manual"
