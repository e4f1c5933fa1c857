"""homeostat.yaml: what it may say, and what an error says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from homeostat.config import read_policy
from homeostat.domain.errors import ConfigError
from homeostat.domain.policy import Every

BASE = """name: price
task: binary
data: {source: a.csv, target: y, time: {every: 30m, start: 1996-05-07}}
train: {metric: roc_auc, window: all}
"""


def written(root: Path, extra: str = "") -> Path:
    (root / "homeostat.yaml").write_text(BASE + extra)
    return root


def test_units_defaults_overlays_and_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECKS", "checks.schema:Price")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "prod.yaml").write_text("release: {max_hold: 2d}\n")
    root = written(tmp_path, "checks: ${CHECKS}\nrelease: {max_hold: 1d, cap_without_labels: 5%}\n")
    policy = read_policy(root, "prod")
    assert policy.data.time == Every(1_800_000, "1996-05-07")
    assert policy.train.window == 0
    assert (policy.release.max_hold, policy.release.cap_without_labels) == (172_800_000, 500)
    assert policy.checks == "checks.schema:Price"


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (
            "release:\n  max_hol: 3d\n",
            "unknown setting 'max_hol'\nhomeostat.yaml:6  release.max_hol\nDid you mean 'max_hold'?",
        ),
        ("release:\n  max_hold: 3x\n", "homeostat.yaml:6  release.max_hold"),
        ("retrain:\n  when: [{schedul: x}]\n", "Did you mean 'schedule'?"),
        (
            "checks: ${NOT_SET_ANYWHERE}\n",
            "the environment variable NOT_SET_ANYWHERE is not set\nhomeostat.yaml:5  checks\nSet it,",
        ),
        ("name: [\n", "homeostat.yaml:6"),
        ("alerts: json://x\n", "a list is needed\nhomeostat.yaml:5  alerts\nWrite alerts: [...], also for one alone."),
        (
            "alerts: [{to: json://x, least: loud}]\n",
            "'info', 'warning' or 'critical'\nhomeostat.yaml:5  alerts.0.least",
        ),
        ("alerts: [{after: 4h}]\n", "the setting alerts.0.to is missing\nhomeostat.yaml:5  alerts.0"),
        ("retrain: {when: [{background: 500%}]}\n", "'500%' is not a share"),
        ("retrain: {when: [{labels: 0}]}\n", "a training for new labels needs one at least"),
        ("retrain: {budget: {trainings: -3}}\n", "retrain.budget.trainings and retrain.price can't be below 0"),
        ("monitor: {windows: []}\n", "monitor.windows needs a window"),
        ("monitor: {windows: [1d, 0s]}\n", "none shorter than a second"),
    ],
)
def test_an_error_names_the_line(tmp_path: Path, extra: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_policy(written(tmp_path, extra))
    assert said in str(caught.value)


def test_a_name_that_no_model_can_have(tmp_path: Path) -> None:
    root = written(tmp_path, "")
    path = root / "homeostat.yaml"
    path.write_text(re.sub("^name: .*$", "name: a/b", path.read_text(), flags=re.MULTILINE))
    with pytest.raises(
        ConfigError, match=r"(?s)'a/b' can't be the name of a model: use letters.*homeostat.yaml:\d  name"
    ):
        read_policy(root)


def test_no_policy_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no homeostat\.yaml"):
        read_policy(tmp_path)
