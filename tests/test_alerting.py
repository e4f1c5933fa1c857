"""The commands about alerts, on a project whose loop has raised some."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import homeostat
import projects
from homeostat import cli
from homeostat.domain.errors import ConfigError, NotFound
from homeostat.domain.monitor import Alert, Cause
from homeostat.domain.units import DAY_MS, iso
from homeostat.project import Project

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    opened = homeostat.load(projects.make(tmp_path_factory.mktemp("alerting") / "cards", policy=projects.POLICY))
    now = opened.system.clock.now_ms()
    drift = Cause("drift", "drift of amount: its distribution moved by D = 0.4", now)
    alerts = opened.system.alerts
    alerts.raised(Alert("", "performance", "the loss rose from .1 to .3", now, subject="performance", causes=(drift,)))
    moved = Alert("", "amount drifted", "amount: it moved", now, subject="inputs amount", window_ms=DAY_MS)
    alerts.raised(replace(moved, example="9f-1"))
    alerts.settle("inputs amount", None, now + 1)
    return opened


def said(project: Project, *command: str) -> Any:
    done = RUNNER.invoke(cli.app, ["alerts", *command, "-p", str(project.root), "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    return json.loads(done.stdout)


def shown(project: Project, *command: str) -> str:
    done = RUNNER.invoke(cli.app, ["alerts", *command, "-p", str(project.root)], catch_exceptions=False)
    return " ".join(done.stdout.split())


def test_what_is_open_and_what_was(project: Project) -> None:
    open_ones, all_of_them = said(project, "list"), said(project, "list", "--all")
    assert [one["name"] for one in open_ones["alerts"]] == ["A1"]
    assert [one["name"] for one in all_of_them["alerts"]] == ["A1", "A2"]
    assert open_ones["budget"] == {"drift": pytest.approx(0.08), "performance": 0.07, "labels": pytest.approx(7e-4)}
    words = shown(project, "list", "--all")
    assert words.startswith("1 open alert.")
    assert "▲ A1 performance" in words
    assert (
        "A quiet week brings at most .151 false alarms on average: drift .0800, performance .0700, labels .000700."
        in words
    )


def test_one_with_its_causes_and_what_to_do(project: Project) -> None:
    moved = said(project, "show", "A2")
    opened_ms = moved["alert"]["opened_ms"]
    assert moved["commands"] == [
        "homeostat alerts show A2",
        f"homeostat monitor explain {iso(opened_ms - DAY_MS)}..{iso(opened_ms)}",
        "homeostat trace 9f-1",
    ]
    words = shown(project, "show", "A1")
    assert "1. drift of amount: its distribution moved by D = 0.4" in words
    assert "homeostat monitor report homeostat alerts ack A1 homeostat retrain" in words
    with pytest.raises(NotFound, match="A9"):
        said(project, "show", "A9")


def test_taking_and_pausing(project: Project) -> None:
    taken = said(project, "ack", "A1", "--reason", "on it")
    assert taken["acked"] == said(project, "show", "A1")["alert"]["acked"] != ""
    assert "pauses alerts until" in said(project, "pause", "--for", "2h", "--reason", "maintenance")["text"]
    assert "Nobody is told until" in shown(project, "list")
    said(project, "pause", "--for", "0s")
    assert said(project, "list")["paused_ms"] == 0
    assert shown(project, "test") == "The policy names no channel: set `alerts`."


def test_a_hook_asks_for_its_variable_when_the_control_plane_starts(tmp_path: Path) -> None:
    hooks = "release: {max_hold: 3d, hooks: {after_outcome: 'http://h/${HOOK_TOKEN}'}}"
    policy = projects.POLICY.replace("release: {max_hold: 3d}", hooks)
    project = homeostat.load(projects.make(tmp_path / "cards", policy=policy))
    with pytest.raises(ConfigError, match=r"HOOK_TOKEN is not set\nhomeostat\.yaml  release\.hooks\.after_outcome"):
        _ = project.system.control


def test_channels_in_the_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    channels = 'alerts: ["${ALERT_URL}", {to: "json://b", after: 4h, least: critical}]\n'
    root = projects.make(tmp_path / "cards", policy=projects.POLICY + channels)
    unarmed = homeostat.load(root)  # what tells nobody needs no address
    assert unarmed.alerts.list().alerts == ()
    missing = "the environment variable ALERT_URL is not set\nhomeostat.yaml  alerts.0"
    for asked in (unarmed.alerts.test, lambda: unarmed.system.control):
        with pytest.raises(ConfigError, match=missing):
            asked()
    monkeypatch.setenv("ALERT_URL", "nosuch://s3cret")
    project = homeostat.load(root)
    assert [(one.after, one.least) for one in project.policy.channels] == [(0, "warning"), (14_400_000, "critical")]
    done = RUNNER.invoke(cli.app, ["alerts", "test", "-p", str(root)])
    assert done.exit_code == 1
    assert "no service that apprise knows" in done.stdout
    assert "s3cret" not in done.stdout + repr(project.policy)
