"""Recording and alert rules of one project. What is no figure of the policy stands here, with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from homeostat.domain.monitor import SEVERITIES
from homeostat.domain.policy import Policy
from homeostat.domain.units import DAY_MS, SECOND_MS

PLANE, CONTROL = "homeostat-plane", "homeostat-control"
"""The jobs of the scrape configuration."""
ERRORS = 0.01
"""Of the requests: more than a caller's retry hides."""
SHED = 0.01
FAILED = 0.1
"""Of the candidate's rows. Callers do not see it, and the release rule judges it: news, not an alarm."""
LAG_S = 600
"""When the control loop says so too."""
STUCK_S = 3_600
"""Longer than most trainings, which the control loop waits for."""
LONGEST_S = 10.0
"""The last bound of the histograms: no quantile is told to lie above it."""
BESIDE = 1_000_000_000
"""Bytes that a worker may need beside its models."""


KINDS = ("performance", "inputs", "predictions", "broken", "log")
"""Kinds of the loop's own alerts that have a rule of their own; the others share one."""


@dataclass(frozen=True, slots=True)
class Alert:
    """`wait`: how long `expr` must hold; `way_out`: what to do, a command where there is one. Severities: `critical`
    wakes somebody, `warning` is read in the morning, `info` wakes nobody."""

    name: str
    severity: str
    wait: str
    expr: str
    summary: str
    way_out: str


def alerts(policy: Policy) -> Sequence[Alert]:
    """Every alert of the project."""
    p = f'project="{policy.name}"'
    return (*_down(p), *_answers(p, policy), *_log(p), *_loop(p, policy))


def _down(p: str) -> Sequence[Alert]:
    plane, control = f'up{{job="{PLANE}",{p}}}', f'up{{job="{CONTROL}",{p}}}'
    stuck = (
        f"time() - homeostat_control_turn_timestamp_seconds{{{p}}} > {STUCK_S} and homeostat_control_leads{{{p}}} == 1"
    )
    return (
        Alert("HomeostatPlaneDown", "critical", "1m", f"{plane} == 0 or absent({plane})",
              "The data plane can't be reached: nobody is answered.", "homeostat serve"),
        Alert("HomeostatNotReady", "critical", "2m", f"min by (project, model) (homeostat_ready{{{p}}}) == 0",
              "A worker has not loaded the champion.", "homeostat status; GET /v2/health/ready says why"),
        Alert("HomeostatControlDown", "warning", "5m", f"{control} == 0 or absent({control})",
              "The control plane can't be reached: answers go on, releases and watching do not.", "homeostat up"),
        Alert("HomeostatControlStuck", "warning", "0s", stuck,
              "The control loop has ended no turn for an hour.", "homeostat status"),
        Alert("HomeostatControlFails", "warning", "0s",
              f'increase(homeostat_control_turns_total{{{p},outcome="failed"}}[10m]) > 3',
              "Turns of the control loop fail one after another.", "read the output of homeostat up"),
    )  # fmt: skip


def _answers(p: str, policy: Policy) -> Sequence[Alert]:
    slow, memory = min(policy.serving.timeout / SECOND_MS, LONGEST_S), policy.serving.memory + BESIDE
    failed, seen = f'homeostat_predictions_total{{{p},role="failed"}}', f"homeostat_predictions_total{{{p}}}"
    by = "sum by (project, model, release, version)"
    fails = f"{by} (rate({failed}[5m])) / {by} (rate({seen}[5m])) > {FAILED:g}"
    return (
        Alert("HomeostatErrors", "critical", "2m", f"homeostat:errors:ratio_rate5m{{{p}}} > {ERRORS:g}",
              "More than 1 % of the requests for predictions get a 5xx.", "homeostat release rollback"),
        Alert("HomeostatShedding", "warning", "2m", f"homeostat:shed:ratio_rate5m{{{p}}} > {SHED:g}",
              "More than 1 % of the requests are refused because too many wait.", "homeostat serve --workers N"),
        Alert("HomeostatSlow", "warning", "5m", f"homeostat:request_seconds:p99_rate5m{{{p}}} >= {slow:g}",
              "One answer in a hundred takes as long as serving.timeout.", "homeostat serve --workers N"),
        Alert("HomeostatCandidateFails", "info", "2m", fails,
              "A candidate fails; the champion answers in its place.", "homeostat release explain"),
        Alert("HomeostatMemory", "warning", "10m",
              f'process_resident_memory_bytes{{{p},job="{PLANE}"}} > {memory}',
              "A worker holds a gigabyte more than serving.memory.", "homeostat serve: end the worker, it comes back"),
    )  # fmt: skip


def _log(p: str) -> Sequence[Alert]:
    failing = f"homeostat_log_failing{{{p},cause="
    return (
        Alert("HomeostatLogNotWritten", "critical", "0s", f'{failing}"log not written"}} == 1',
              "The prediction log can't be written.", "homeostat status; make room on the disk"),
        Alert("HomeostatLogLags", "warning", "5m", f"homeostat_log_lag_seconds{{{p}}} > {LAG_S}",
              "The log is not compacted. Nothing is lost: segments wait.", "homeostat compact"),
        Alert("HomeostatLogLarge", "warning", "0s", f'{failing}"log too large"}} == 1',
              "The log is larger than log.max_size, and none of it may go.", "raise log.max_size"),
    )  # fmt: skip


def _loop(p: str, policy: Policy) -> Sequence[Alert]:
    labels_s = (2 * policy.data.label_horizon + DAY_MS) // SECOND_MS
    answered = f'sum by (project, model) (increase(homeostat_predictions_total{{{p},role="answer"}}[1d])) > 0'
    no_labels = f"time() - homeostat_label_timestamp_seconds{{{p}}} > {labels_s} and on (project, model) {answered}"
    opened, others = f"homeostat_alerts_open{{{p},kind=", "|".join(kind for kind in SEVERITIES if kind not in KINDS)
    return (
        Alert("HomeostatPerformance", "warning", "0s", f'{opened}"performance"}} > 0',
              "The model does worse than when it was made.", "homeostat status"),
        Alert("HomeostatDrift", "info", "0s", f'homeostat_alerts_open{{{p},kind=~"inputs|predictions"}} > 0',
              "Inputs or predictions have drifted.", "homeostat alerts list"),
        Alert("HomeostatBrokenColumn", "warning", "0s", f'{opened}"broken"}} > 0',
              "An input is broken upstream; its rows are not learned from.", "homeostat alerts list"),
        Alert("HomeostatAlert", "warning", "0s", f'{opened[:-1]}=~"{others}"}} > 0',
              "The loop has an open alert; the label kind says of what.", "homeostat alerts list"),
        Alert("HomeostatNoLabels", "warning", "0s", no_labels,
              "There are predictions, but no label came for two label horizons and a day.", "homeostat feedback add"),
        Alert("HomeostatTrainingFailed", "warning", "0s",
              f'increase(homeostat_trainings_total{{{p},outcome="failed"}}[1h]) > 0',
              "A training failed.", "homeostat run"),
        Alert("HomeostatRolledBack", "warning", "0s", f'delta(homeostat_releases{{{p},status="rolled back"}}[1h]) > 0',
              "A release was rolled back.", "homeostat release history"),
        Alert("HomeostatReleaseWaits", "warning", "1h", f'homeostat_releases{{{p},status="waiting"}} > 0',
              "A release waits for a person.", "homeostat release explain"),
        Alert("HomeostatReleaseInvalid", "warning", "10m", f'homeostat_release_lane{{{p},verdict="invalid"}} == 1',
              "A release can't be judged: what was measured is not valid.", "homeostat release explain"),
    )  # fmt: skip


def recordings(policy: Policy) -> Sequence[tuple[str, str]]:
    """Name and expression of each series that is made ahead."""
    p = f'project="{policy.name}"'
    asked = f'homeostat_requests_total{{{p},model!=""}}'
    bad = f'homeostat_requests_total{{{p},model!="",status=~"5.."}}'
    rows, shed = f"homeostat_predictions_total{{{p}}}", f'homeostat_predictions_total{{{p},role="shed"}}'
    by = "sum by (project, model)"
    request = f"sum by (project, model, le) (rate(homeostat_request_seconds_bucket{{{p}}}[5m]))"
    call = f"sum by (project, model, version, le) (rate(homeostat_model_seconds_bucket{{{p}}}[5m]))"
    return (
        ("homeostat:requests:rate5m", f"sum by (project, model, release) (rate({asked}[5m]))"),
        ("homeostat:errors:ratio_rate5m", f"{by} (rate({bad}[5m])) / {by} (rate({asked}[5m]))"),
        ("homeostat:shed:ratio_rate5m", f"{by} (rate({shed}[5m])) / {by} (rate({rows}[5m]))"),
        *(
            (f"homeostat:request_seconds:p{q}_rate5m", f"histogram_quantile({q / 100:g}, {request})")
            for q in (50, 95, 99)
        ),
        ("homeostat:model_seconds:p99_rate5m", f"histogram_quantile(0.99, {call})"),
    )


def rules(policy: Policy) -> dict[str, Any]:
    """The file of rules."""
    made = [{"record": name, "expr": expr} for name, expr in recordings(policy)]
    said = [
        {
            "alert": alert.name,
            "expr": alert.expr,
            "for": alert.wait,
            "labels": {"severity": alert.severity, "project": policy.name},
            "annotations": {"summary": f"{policy.name}: {alert.summary}", "way_out": alert.way_out},
        }
        for alert in alerts(policy)
    ]
    return {
        "groups": [
            {"name": f"{policy.name}-recorded", "rules": made},
            {"name": f"{policy.name}-alerts", "rules": said},
        ]
    }
