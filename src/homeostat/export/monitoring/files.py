"""The files of `homeostat export prometheus` and `homeostat export grafana`."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from homeostat.domain.errors import UsageError
from homeostat.domain.policy import Policy
from homeostat.export.monitoring.dashboard import MADE, dashboard
from homeostat.export.monitoring.rules import CONTROL, PLANE, rules
from homeostat.stores.files import write_atomic


@dataclass(frozen=True, slots=True)
class Written:
    """What was made, and where."""

    folder: str
    files: tuple[str, ...]


def prometheus(policy: Policy, folder: Path, host: str, port: int, webhook: str = "") -> Written:
    """Rules, routes and a configuration that scrapes the control plane at `port` and the data plane at the next one;
    alerts go to `webhook`, and without one no further than Alertmanager. Errors: `UsageError`."""
    files = {
        f"{policy.name}.rules.yml": rules(policy),
        "prometheus.yml": _scraping(policy, host, port),
        "alertmanager.yml": _routes(webhook),
    }
    return _write(folder, {name: _yaml(tree) for name, tree in files.items()})


def grafana(policy: Policy, folder: Path) -> Written:
    """A dashboard to import, or to provision. Errors: `UsageError`."""
    return _write(folder, {f"homeostat-{policy.name}.json": json.dumps(dashboard(policy), indent=1) + "\n"})


def _scraping(policy: Policy, host: str, port: int) -> dict[str, Any]:
    jobs = [
        {
            "job_name": job,
            "static_configs": [{"targets": [_address(host, at)], "labels": {"project": policy.name}}],
        }
        for job, at in ((CONTROL, port), (PLANE, port + 1))
    ]
    return {
        "global": {"scrape_interval": "15s", "evaluation_interval": "15s"},
        "rule_files": [f"{policy.name}.rules.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": ["127.0.0.1:9093"]}]}]},
        "scrape_configs": jobs,
    }


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _routes(webhook: str) -> dict[str, Any]:
    """Critical ones soon and again; the others together; what is only news to nobody. Of a data plane that is down no
    more is told."""
    silenced = 'alertname=~"HomeostatNotReady|HomeostatErrors|HomeostatShedding|HomeostatSlow|HomeostatNoLabels"'
    receivers: list[dict[str, Any]] = [{"name": name} for name in ("page", "team", "nobody")]
    for receiver in receivers[:2] if webhook else ():
        receiver["webhook_configs"] = [{"url": webhook, "send_resolved": True}]
    return {
        "route": {
            "receiver": "team",
            "group_by": ["project", "alertname"],
            "group_wait": "30s",
            "group_interval": "5m",
            "repeat_interval": "1d",
            "routes": [
                {"matchers": ['severity="critical"'], "receiver": "page", "group_wait": "10s", "repeat_interval": "1h"},
                {"matchers": ['severity="info"'], "receiver": "nobody"},
            ],
        },
        "inhibit_rules": [
            {
                "source_matchers": ['alertname="HomeostatPlaneDown"'],
                "target_matchers": [silenced],
                "equal": ["project"],
            }
        ],
        "receivers": receivers,
    }


def _yaml(tree: Mapping[str, Any]) -> str:
    out, yaml = io.StringIO(), YAML()
    yaml.width = 10_000  # an expression is a line
    yaml.dump(tree, out)
    return f"# {MADE}\n{out.getvalue()}"


def _write(folder: Path, files: Mapping[str, str]) -> Written:
    """All or none; what somebody else has written stays."""
    for name in files:
        path = folder / name
        if path.exists() and MADE not in path.read_text(errors="replace"):
            raise UsageError(f"there is another {name}", where=str(folder), way_out="Give another folder.")
    folder.mkdir(parents=True, exist_ok=True)  # for Prometheus and others to read, as its owner's umask says
    for name, text in files.items():
        write_atomic(folder / name, text.encode())
    return Written(str(folder), tuple(files))
