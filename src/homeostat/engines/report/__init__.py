"""Reports: typed views in, self-contained HTML out. No network, no script; light and dark."""

from homeostat.engines.report.backtest import backtest_report, backtest_sentence
from homeostat.engines.report.markdown import release_markdown
from homeostat.engines.report.outlook import because
from homeostat.engines.report.rehearsal import rehearsal_report, rehearsal_sentence
from homeostat.engines.report.release import ReleaseView, Snapshot, release_report, release_sentence
from homeostat.engines.report.run import RunExtra, run_report, run_sentence
from homeostat.engines.report.scenario import comparison_report

__all__ = [
    "ReleaseView",
    "RunExtra",
    "Snapshot",
    "backtest_report",
    "backtest_sentence",
    "because",
    "comparison_report",
    "rehearsal_report",
    "rehearsal_sentence",
    "release_markdown",
    "release_report",
    "release_sentence",
    "run_report",
    "run_sentence",
]
