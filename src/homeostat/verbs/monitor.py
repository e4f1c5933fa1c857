"""What is asked of the model in service: where it fails, why it moved, which rows to label."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl

from homeostat.domain.errors import UsageError
from homeostat.domain.moved import Explained
from homeostat.domain.report import MonitorReport
from homeostat.domain.units import DAY_MS
from homeostat.engines.report.monitor import explain_report, monitor_report
from homeostat.wiring.system import System, write_report

LAST_MS = 30 * DAY_MS


class MonitorVerbs:
    """`project.monitor`. It reads the logs and the journal, and changes nothing."""

    def __init__(self, root: Path, system: Callable[[], System]) -> None:
        """`system` is made when it is first needed."""
        self._root, self._made = root, system

    @property
    def _system(self) -> System:
        return self._made()

    def report(self, last_ms: int = LAST_MS) -> tuple[MonitorReport, str]:
        """How the champion does on what it scored in the last `last_ms`, where it fails, and what would help. → that,
        and the path of its HTML report. Errors: `NotFound` before the first release."""
        found = self._system.analyses.report(last_ms)
        return found, write_report(self._root, f"monitor-{found.version}", monitor_report(found))

    def explain(self, start_ms: int, end_ms: int | None = None) -> tuple[Explained, str]:
        """Why the metric moved between a window (by default as long as the shortest of the policy) and the holdout of
        the version that answered it. → that, and the path of its HTML report. Errors: `NotFound`."""
        until = start_ms + min(self._system.policy.monitor.windows) if end_ms is None else end_ms
        found = self._system.analyses.explain(start_ms, until)
        return found, write_report(self._root, f"window-{start_ms}-{until}", explain_report(found))

    def label_set(self, out: str | Path, rows: int = 200, last_ms: int = LAST_MS) -> pl.DataFrame:
        """Write the answers whose labels would teach the most as a CSV file: fill in its column `label`, and give it to
        `feedback.add`. → its rows. Errors: `NotFound` when every answer has its label; `UsageError` when the file is
        there."""
        path = Path(out)
        if path.exists():
            raise UsageError(f"{path} is there already", way_out="Labels may stand in it: name another file.")
        chosen = self._system.label_sets.choose(last_ms, rows)
        chosen.write_csv(path)
        return chosen
