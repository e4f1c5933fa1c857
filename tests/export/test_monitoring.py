"""Rules, routes and dashboard, judged by Prometheus' own tools."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import projects
from homeostat.config import read_policy
from homeostat.domain.errors import UsageError
from homeostat.domain.monitor import SEVERITIES
from homeostat.domain.policy import Policy
from homeostat.export.monitoring.files import grafana, prometheus
from homeostat.export.monitoring.rules import Alert, alerts
from needs import program

PROJECT = {"project": "cards"}
MODEL = {**PROJECT, "model": "cards"}
PLANE = {**PROJECT, "job": "homeostat-plane", "instance": "a:1"}
CONTROL = {**PROJECT, "job": "homeostat-control", "instance": "a:0"}
MINUTES = 12


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return read_policy(projects.make(tmp_path_factory.mktemp("cards")))


@pytest.fixture
def folder(policy: Policy, tmp_path: Path) -> Path:
    prometheus(policy, tmp_path, "127.0.0.1", 8_700, "http://127.0.0.1:9/")
    return tmp_path


def checked(tool: str, package: str, *arguments: str | Path) -> str:
    done = subprocess.run([program(tool, package), *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_files_are_sound(policy: Policy, folder: Path) -> None:
    assert "SUCCESS" in checked("promtool", "prometheus", "check", "config", folder / "prometheus.yml")
    rules = folder / "cards.rules.yml"
    assert "29 rules found" in checked("promtool", "prometheus", "check", "rules", rules)
    routes = folder / "alertmanager.yml"
    assert "3 receivers" in checked("amtool", "prometheus-alertmanager", "check-config", routes)
    for severity, receiver in (("critical", "page"), ("warning", "team"), ("info", "nobody")):
        route = ("config", "routes", "test", f"--config.file={routes}", f"severity={severity}")
        assert checked("amtool", "prometheus-alertmanager", *route).strip() == receiver
    prometheus(policy, folder, "127.0.0.1", 8_700)
    assert "3 receivers" in checked("amtool", "prometheus-alertmanager", "check-config", routes)


def series(name: str, labels: dict[str, str], values: str) -> dict[str, str]:
    told = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return {"series": f"{name}{{{told}}}", "values": values}


def requests(bad: int) -> list[dict[str, str]]:
    """A hundred a minute, so many of them with a 500."""
    rest = {**MODEL, "release": "R1"}
    return [
        series("homeostat_requests_total", {**rest, "status": "200"}, f"0+{100 - bad}x{MINUTES}"),
        series("homeostat_requests_total", {**rest, "status": "500"}, f"0+{bad}x{MINUTES}"),
    ]


def rows(role: str, some: int) -> list[dict[str, str]]:
    rest = {**MODEL, "release": "R1", "version": "2"}
    return [
        series("homeostat_predictions_total", {**rest, "role": "answer"}, f"0+{100 - some}x{MINUTES}"),
        series("homeostat_predictions_total", {**rest, "role": role}, f"0+{some}x{MINUTES}"),
    ]


def latency(slow: int) -> list[dict[str, str]]:
    """A hundred requests a minute, so many of them over 2.5 s."""
    counts = (("1.0", 100 - slow), ("2.5", 100 - slow), ("5.0", 100), ("+Inf", 100))
    return [
        series("homeostat_request_seconds_bucket", {**MODEL, "release": "R1", "le": le}, f"0+{n}x{MINUTES}")
        for le, n in counts
    ]


def one(name: str, labels: dict[str, str], value: str) -> list[dict[str, str]]:
    return [series(name, labels, value if "x" in value else f"{value}x{MINUTES}")]


def labelled(every: str) -> list[dict[str, str]]:
    """Five days; rows are answered all the time, the newest label is of `every`."""
    answered = {**MODEL, "release": "R1", "version": "1", "role": "answer"}
    return [
        series("homeostat_predictions_total", answered, "0+100x120"),
        series("homeostat_label_timestamp_seconds", {**MODEL, **CONTROL}, every),
    ]


LANE = {**MODEL, **CONTROL, "lane": "errors"}
CAUSE = {**PROJECT, **CONTROL}
KIND = {**MODEL, **CONTROL}
RATIO = {"model": "cards"}
LONG = "10m", "1m"
TURN = "homeostat_control_turn_timestamp_seconds"
Case = tuple[list[dict[str, str]], list[dict[str, str]], dict[str, str], tuple[str, str]]
CASES: dict[str, Case] = {
    # name: what raises it, what does not, its labels beside project and severity, (when to look, how often a sample)
    "HomeostatPlaneDown": (one("up", PLANE, "0"), one("up", PLANE, "1"), PLANE, LONG),
    "HomeostatNotReady": (
        one("homeostat_ready", {**MODEL, "worker": "a"}, "1") + one("homeostat_ready", {**MODEL, "worker": "b"}, "0"),
        one("homeostat_ready", {**MODEL, "worker": "a"}, "1"),
        RATIO,
        LONG,
    ),
    "HomeostatControlDown": ([], one("up", CONTROL, "1"), {"job": "homeostat-control"}, LONG),
    "HomeostatControlStuck": (
        one(TURN, CONTROL, "0x70") + one("homeostat_control_leads", CONTROL, "1x70"),
        one(TURN, CONTROL, "0x70") + one("homeostat_control_leads", CONTROL, "0x70"),
        CONTROL,
        ("70m", "1m"),
    ),
    "HomeostatControlFails": (
        one("homeostat_control_turns_total", {**CONTROL, "outcome": "failed"}, "0+1x12"),
        one("homeostat_control_turns_total", {**CONTROL, "outcome": "done"}, "0+60x12"),
        {**CONTROL, "outcome": "failed"},
        LONG,
    ),
    "HomeostatErrors": (requests(2), requests(1), RATIO, LONG),
    "HomeostatShedding": (rows("shed", 2), rows("shed", 1), RATIO, LONG),
    "HomeostatSlow": (latency(3), latency(0), RATIO, LONG),
    "HomeostatCandidateFails": (
        rows("failed", 20), rows("failed", 5), {**RATIO, "release": "R1", "version": "2"}, LONG
    ),
    "HomeostatMemory": (
        one("process_resident_memory_bytes", {**PLANE, "process": "worker-1"}, "3000000001x20"),
        one("process_resident_memory_bytes", {**PLANE, "process": "worker-1"}, "3000000000x20"),
        {**PLANE, "process": "worker-1"},
        ("15m", "1m"),
    ),
    "HomeostatLogNotWritten": (
        one("homeostat_log_failing", {**CAUSE, "cause": "log not written"}, "1"),
        one("homeostat_log_failing", {**CAUSE, "cause": "log too large"}, "1"),
        {**CONTROL, "cause": "log not written"},
        LONG,
    ),
    "HomeostatLogLags": (
        one("homeostat_log_lag_seconds", CONTROL, "601"),
        one("homeostat_log_lag_seconds", CONTROL, "600"),
        CONTROL,
        LONG,
    ),
    "HomeostatLogLarge": (
        one("homeostat_log_failing", {**CAUSE, "cause": "log too large"}, "1"),
        one("homeostat_log_failing", {**CAUSE, "cause": "log too large"}, "0"),
        {**CONTROL, "cause": "log too large"},
        LONG,
    ),
    "HomeostatPerformance": (
        one("homeostat_alerts_open", {**KIND, "kind": "performance"}, "1"),
        one("homeostat_alerts_open", {**KIND, "kind": "inputs"}, "1"),
        {**KIND, "kind": "performance"},
        LONG,
    ),
    "HomeostatDrift": (
        one("homeostat_alerts_open", {**KIND, "kind": "inputs"}, "1"),
        one("homeostat_alerts_open", {**KIND, "kind": "performance"}, "1"),
        {**KIND, "kind": "inputs"},
        LONG,
    ),
    "HomeostatBrokenColumn": (
        one("homeostat_alerts_open", {**KIND, "kind": "broken"}, "1"),
        one("homeostat_alerts_open", {**KIND, "kind": "inputs"}, "1"),
        {**KIND, "kind": "broken"},
        LONG,
    ),
    "HomeostatAlert": (
        one("homeostat_alerts_open", {**KIND, "kind": "healing"}, "1"),
        one("homeostat_alerts_open", {**KIND, "kind": "broken"}, "1"),
        {**KIND, "kind": "healing"},
        LONG,
    ),
    "HomeostatNoLabels": (labelled("3600x120"), labelled("0+3600x120"), {**KIND}, ("96h", "1h")),
    "HomeostatTrainingFailed": (
        one("homeostat_trainings_total", {**KIND, "outcome": "failed"}, "0 1 1 1 1 1 1 1 1 1 1x2"),
        one("homeostat_trainings_total", {**KIND, "outcome": "failed"}, "1"),
        {**KIND, "outcome": "failed"},
        LONG,
    ),
    "HomeostatRolledBack": (
        one("homeostat_releases", {**KIND, "status": "rolled back"}, "0 1 1 1 1 1 1 1 1 1 1x2"),
        one("homeostat_releases", {**KIND, "status": "rolled back"}, "1"),
        {**KIND, "status": "rolled back"},
        LONG,
    ),
    "HomeostatReleaseWaits": (
        one("homeostat_releases", {**KIND, "status": "waiting"}, "1x70"),
        one("homeostat_releases", {**KIND, "status": "waiting"}, "0 0 0 0 0 0 0 0 0 0 0 0 1x70"),
        {**KIND, "status": "waiting"},
        ("65m", "1m"),
    ),
    "HomeostatReleaseInvalid": (
        one("homeostat_release_lane", {**LANE, "verdict": "invalid"}, "1x20"),
        one("homeostat_release_lane", {**LANE, "verdict": "ok"}, "1x20"),
        {**LANE, "verdict": "invalid"},
        ("15m", "1m"),
    ),
}  # fmt: skip


def unit_tests(alert: Alert, case: Case) -> list[dict[str, Any]]:
    raising, quiet, labels, (at, every) = case
    said = {"summary": f"cards: {alert.summary}", "way_out": alert.way_out}
    expected = [{"exp_labels": {**labels, **PROJECT, "severity": alert.severity}, "exp_annotations": said}]
    return [
        {
            "name": f"{alert.name} {'raised' if told else 'quiet'}",
            "interval": every,
            "input_series": given,
            "alert_rule_test": [{"eval_time": at, "alertname": alert.name, "exp_alerts": told}],
        }
        for given, told in ((raising, expected), (quiet, []))
    ]


def test_each_alert_is_raised_and_no_sooner(policy: Policy, folder: Path) -> None:
    known: Sequence[Alert] = alerts(policy)
    assert [alert.name for alert in known] == list(CASES)
    for every in ("1m", "1h"):
        cases = [(alert, CASES[alert.name]) for alert in known if CASES[alert.name][3][1] == every]
        tests = [test for alert, case in cases for test in unit_tests(alert, case)]
        written = {"rule_files": ["cards.rules.yml"], "evaluation_interval": every, "tests": tests}
        (folder / f"{every}.yml").write_text(json.dumps(written))  # JSON is YAML
    files = (folder / "1m.yml", folder / "1h.yml")
    assert checked("promtool", "prometheus", "test", "rules", *files).count("SUCCESS") == 2


def test_each_kind_of_open_alert_has_one_rule(policy: Policy) -> None:
    """But for those of the log, which has figures of its own."""
    asked = [set(re.findall(r"\w+", one.expr.partition("kind=")[2])) for one in alerts(policy) if "_open{" in one.expr]
    assert {kind: sum(kind in words for words in asked) for kind in SEVERITIES} == {
        kind: int(kind != "log") for kind in SEVERITIES
    }


def test_thresholds_follow_the_policy(policy: Policy, tmp_path: Path) -> None:
    changed = replace(
        policy,
        serving=replace(policy.serving, timeout=500, memory=10**9),
        data=replace(policy.data, label_horizon=3 * 86_400_000),
    )
    said = {alert.name: alert.expr for alert in alerts(changed)}
    assert said["HomeostatSlow"].endswith(">= 0.5")
    assert said["HomeostatMemory"].endswith("> 2000000000")
    assert f"> {7 * 86_400} and" in said["HomeostatNoLabels"]
    prometheus(changed, tmp_path, "::1", 9_000)
    scraped = YAML(typ="safe").load(tmp_path / "prometheus.yml")["scrape_configs"]
    assert [job["static_configs"][0]["targets"] for job in scraped] == [["[::1]:9000"], ["[::1]:9001"]]


def test_somebody_elses_file_stays(policy: Policy, tmp_path: Path) -> None:
    (tmp_path / "prometheus.yml").write_text("global: {}\n")
    with pytest.raises(UsageError, match=r"another prometheus\.yml"):
        prometheus(policy, tmp_path, "127.0.0.1", 8_700)
    assert [path.name for path in tmp_path.iterdir()] == ["prometheus.yml"]


def test_the_dashboard_holds_together(policy: Policy, tmp_path: Path) -> None:
    (name,) = grafana(policy, tmp_path).files
    made = json.loads((tmp_path / name).read_text())
    panels = made["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23
    assert [one["name"] for one in made["templating"]["list"]] == ["datasource"]
    for panel in panels:
        assert panel["datasource"]["uid"] == "${datasource}"
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
    grafana(policy, tmp_path)  # over its own
