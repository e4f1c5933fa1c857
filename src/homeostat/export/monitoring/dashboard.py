"""The Grafana dashboard of one project (schema version 38: Grafana 10 and later)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from homeostat.domain.policy import Policy
from homeostat.export.monitoring.rules import CONTROL, PLANE

MADE = "Made by homeostat export: change the policy, and export again."
_WIDTH, _HEIGHT = 8, 7  # three in a row of 24
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
RANGE = "$__rate_interval"


@dataclass(frozen=True, slots=True)
class Panel:
    """`queries`: expression and legend of each; `unit` in Grafana's words."""

    title: str
    unit: str
    queries: Sequence[tuple[str, str]]
    says: str = ""


def panels(policy: Policy) -> Sequence[Panel]:
    """In the order of reading: is it answering, how well, what is released, is the loop alive."""
    p = f'project="{policy.name}"'
    return (*_traffic(p), *_ticks(p), *_releases(p), *_loop(p))


def _quantile(q: float, metric: str, by: str) -> str:
    return f"histogram_quantile({q:g}, sum by ({by}, le) (rate({metric}[{RANGE}])))"


def _traffic(p: str) -> Sequence[Panel]:
    total = f'homeostat_requests_total{{{p},model!=""}}'
    rate = f"sum by (status) (rate({total}[{RANGE}]))"
    bad = f'sum(rate(homeostat_requests_total{{{p},model!="",status=~"5.."}}[{RANGE}])) / sum(rate({total}[{RANGE}]))'
    seconds = f"homeostat_request_seconds_bucket{{{p}}}"
    times = [(_quantile(q, seconds, "model"), f"p{100 * q:g}") for q in (0.5, 0.95, 0.99)]
    rows = f"sum by (release, version, role) (rate(homeostat_predictions_total{{{p}}}[{RANGE}]))"
    failed = f'sum by (version, role, status) (rate(homeostat_predictions_total{{{p},status!="ok"}}[{RANGE}]))'
    calls = _quantile(0.99, f"homeostat_model_seconds_bucket{{{p}}}", "version")
    return (
        Panel("Requests", "reqps", [(f"{rate} > 0", "{{status}}")], "Requests for predictions, by status."),
        Panel("Errors", "percentunit", [(bad, "5xx")], "Share of the requests that get a 5xx."),
        Panel("Latency", "s", times, "From the first request of a tick to the tick's answers: an upper bound."),
        Panel("Predictions", "ops", [(f"{rows} > 0", "{{release}} v{{version}} {{role}}")], "Rows of the log."),
        Panel("Not ok", "ops", [(failed, "v{{version}} {{role}} {{status}}")], "Rows that failed or were refused."),
        Panel("Model, p99", "s", [(calls, "v{{version}}")], "Calls of the model alone."),
    )


def _ticks(p: str) -> Sequence[Panel]:
    waiting = [(f"homeostat_queue_waiting{{{p}}}", "{{worker}} {{queue}}")]
    limit = [(f"homeostat_queue_limit{{{p}}}", "{{worker}} {{queue}}: limit")]
    sizes = _quantile(0.95, f"homeostat_tick_requests_bucket{{{p}}}", "queue")
    ticks = _quantile(0.99, f"homeostat_tick_seconds_bucket{{{p}}}", "queue")
    cpu = f"sum by (process) (rate(process_cpu_seconds_total{{{p}}}[{RANGE}]))"
    memory = f"process_resident_memory_bytes{{{p}}}"
    return (
        Panel("Queue", "short", [*waiting, *limit], "Requests that wait, and how many may."),
        Panel("Batch, p95", "short", [(sizes, "{{queue}}")], "Requests that are answered together."),
        Panel("Tick, p99", "s", [(ticks, "{{queue}}")]),
        Panel("CPU", "short", [(cpu, "{{process}}")], "Cores."),
        Panel("Memory", "bytes", [(memory, "{{process}}")]),
        Panel("Workers", "short", [(f"homeostat_workers{{{p}}}", "workers"),
                                   (f"sum(homeostat_connections{{{p}}})", "connections")]),
    )  # fmt: skip


def _releases(p: str) -> Sequence[Panel]:
    weight = f"homeostat_release_weight_ratio{{{p}}}"
    lanes = f"homeostat_release_lane{{{p}}} == 1"
    return (
        Panel("Traffic", "percentunit", [(weight, "{{release}} v{{version}}")], "What each version answers."),
        Panel("Lanes", "short", [(lanes, "{{lane}}: {{verdict}}")], "What the evidence of the open release says."),
        Panel("Releases", "short", [(f"homeostat_releases{{{p}}}", "{{status}}")]),
    )


def _loop(p: str) -> Sequence[Panel]:
    trainings = f"homeostat_trainings_total{{{p}}}"
    label = f"time() - homeostat_label_timestamp_seconds{{{p}}}"
    up = f'up{{{p},job=~"{PLANE}|{CONTROL}"}}'
    return (
        Panel("Open alerts", "short", [(f"homeostat_alerts_open{{{p}}}", "{{kind}}")], "Of the loop itself."),
        Panel("Trainings", "short", [(trainings, "{{outcome}}")]),
        Panel("Newest label", "s", [(label, "age")], "How long ago it came."),
        Panel("Log lag", "s", [(f"homeostat_log_lag_seconds{{{p}}}", "oldest segment")], "Not in a table yet."),
        Panel("Log backlog", "bytes", [(f"homeostat_log_waiting_bytes{{{p}}}", "closed segments")]),
        Panel("Up", "short", [(up, "{{job}}")]),
    )


def dashboard(policy: Policy) -> dict[str, Any]:
    """As Grafana imports it; the data source is chosen there."""
    return {
        "uid": f"homeostat-{policy.name}"[:40],
        "title": f"Homeostat: {policy.name}",
        "description": MADE,
        "tags": ["homeostat"],
        "schemaVersion": 38,
        "version": 1,
        "editable": True,
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "timezone": "utc",
        "templating": {"list": [{"name": "datasource", "label": "Data source", "type": "datasource",
                                 "query": "prometheus", "current": {}, "hide": 0}]},
        "annotations": {"list": []},
        "panels": list(_placed(panels(policy))),
    }  # fmt: skip


def _placed(some: Sequence[Panel]) -> Iterator[dict[str, Any]]:
    for i, panel in enumerate(some):
        yield {
            "id": i + 1,
            "type": "timeseries",
            "title": panel.title,
            "description": panel.says,
            "datasource": _SOURCE,
            "gridPos": {"x": i % 3 * _WIDTH, "y": i // 3 * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
            "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
            "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
            "targets": [
                {"refId": chr(65 + at), "datasource": _SOURCE, "expr": expr, "legendFormat": legend, "range": True}
                for at, (expr, legend) in enumerate(panel.queries)
            ],
        }
