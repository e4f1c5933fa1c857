from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.domain.gate import Verdict
from homeostat.engines.change import Baseline, Rule, baseline_of, detect, log_e, shiryaev_roberts

STEADY = Baseline(0.1, 700, (0.09, 0.11, 0.1, 0.08, 0.12, 0.1, 0.1))


def daily(means: list[float], rows: int = 100) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat(means, rows), np.repeat(np.arange(len(means)) + 20, rows)


def test_steady_losses_are_no_harm_and_a_lasting_rise_is_with_its_start() -> None:
    calm = detect(STEADY, *daily([0.1] * 60))
    assert (calm.verdict, calm.blocks, calm.n) == (Verdict.OK, 60, 6_000)
    risen = detect(STEADY, *daily([0.1] * 20 + [0.2] * 4))
    assert (risen.verdict, risen.since) == (Verdict.HARM, 40)
    assert "rose from 0.1 to 0.2 in the last 4 days" in risen.reason


def test_one_odd_day_raises_no_alarm_two_do() -> None:
    assert detect(STEADY, *daily([0.1] * 20 + [0.9])).verdict is Verdict.OK
    assert detect(STEADY, *daily([0.1] * 20 + [0.9, 0.9])).verdict is Verdict.HARM


def test_without_labels_or_with_a_short_baseline_nothing_is_known() -> None:
    assert detect(STEADY, *daily([])).verdict is Verdict.UNKNOWN
    short = detect(Baseline(0.1, 200, (0.1, 0.1)), *daily([0.9] * 9))
    assert short.verdict is Verdict.UNKNOWN
    assert "2 days of labels; 3 are needed" in short.reason


@pytest.mark.parametrize("mean", [0.0, 1.0])
def test_a_baseline_at_the_edge_is_still_a_number(mean: float) -> None:
    change = detect(Baseline(mean, 700, (mean,) * 7), *daily([mean] * 10))
    assert change.verdict is Verdict.OK
    assert np.isfinite(change.evidence)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_worse_losses_never_weaken_the_evidence(means: list[float]) -> None:
    def evidence(x: np.ndarray) -> float:
        return shiryaev_roberts(log_e(STEADY, x, np.ones(len(x)), Rule()))

    x = np.array(means)
    assert evidence(x) <= evidence(np.minimum(1, x + 0.05)) * (1 + 1e-9)


def test_a_baseline_leaves_out_days_that_are_cut() -> None:
    losses = np.array([1.0] + [0.2] * 6 + [0.4] * 6 + [0.0])
    cut = baseline_of(losses, np.array([0] + [1] * 6 + [2] * 6 + [3]))
    assert cut.block_means == pytest.approx((0.2, 0.4))
    assert (cut.mean, cut.n) == (pytest.approx(losses.mean()), 14)
