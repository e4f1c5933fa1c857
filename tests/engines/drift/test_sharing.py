"""How the tests of a span share its false alarms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2 as chi_squared
from scipy.stats import hypergeom, norm

from homeostat.engines.drift.calibrate import Worth
from homeostat.engines.drift.categorical import Rare, p_exact
from homeostat.engines.drift.counts import Numbers
from homeostat.engines.drift.outcome import Found
from homeostat.engines.drift.sharing import Asked, Shared, Span

SURE = Worth(200, 18_000, 0.0, 1e12)
"""Nothing wobbles, and that is known."""


def shared(ps: dict[tuple[str, str], float]) -> Shared:
    return Shared({1: Span({key: Asked(1, Found(1.0, p, ""), SURE) for key, p in ps.items()})}, {1: 1.0})


def test_a_question_counts_once_however_many_tests_ask_it() -> None:
    alike = {("x", "level"): 1e-4, ("x", "distribution"): 1e-4, ("x", "shape"): 1e-4}
    assert shared(alike).corrected(1, ("x", "level")) == pytest.approx(1e-4)
    assert shared(alike | {("y", "level"): 0.5}).corrected(1, ("x", "level")) == pytest.approx(2e-4)
    one = shared(alike | {("x", "distribution"): 0.9, ("x", "shape"): 0.9})
    assert one.corrected(1, ("x", "level")) == pytest.approx(2e-4, rel=1e-3)
    assert one.corrected(1, ("x", "shape")) == pytest.approx(0.9)


def missing(count: int, of: int = 200) -> Numbers:
    held = np.array([of - count]) if count < of else np.zeros(0, np.int64)
    return Numbers(np.arange(len(held)), held, count)


def test_what_a_count_can_not_reach_is_not_spent() -> None:
    """Twenty columns: a shift of one is as sure as if it were alone where none of them misses a value."""
    exact = Rare("missing")
    for count, spent in ((0, 0.0), (360, 0.6)):
        found = exact.find(missing(count, 18_000), missing(count // 90), SURE)
        columns = {(f"x{i}", "missing"): Asked(1, found, SURE) for i in range(20)}
        known = Shared({1: Span(columns | {("x", "level"): Asked(1, Found(1.0, 1e-4, ""), SURE)})}, {1: 1.0})
        assert known.corrected(1, ("x", "level")) == pytest.approx(1e-4 * (1 + 20 * spent), rel=0.5)
        assert known.corrected(1, ("x", "level")) < 21e-4


@pytest.mark.parametrize(("windows", "worth"), [(0, 6e-4), (4, 8e-4), (16, 6e-4)])
def test_spans_that_no_alarm_can_come_from_leave_their_share(windows: int, worth: float) -> None:
    """Nothing is merged yet; 4 windows that reach every p; 16 of so many rows that the least effect is surer than p."""
    level = Asked(1, Found(1.0, 6e-4, ""), SURE)
    spans = {1: Span({("x", "level"): level}), 4: Span({}), 16: Span({})}
    if windows:
        merged = Asked(windows, Found(0.0, 1.0, "", most=1e-12 if windows == 16 else 1.0), SURE)
        spans[windows] = Span({("x", "level"): merged})
    known = Shared(spans, {1: 0.6, 4: 0.2, 16: 0.2})
    assert known.corrected(1, ("x", "level")) == pytest.approx(worth, rel=1e-6)


@pytest.mark.parametrize("rows", [20, 200])
def test_an_exact_test_spends_what_it_reaches_and_is_no_worse_than_two_tails(rows: int) -> None:
    """Given the totals, the chance of a p at most as small as each that can be is that p itself; a tail over its part
    of the false alarms is never less."""
    drawn, others = rows // 10, 9 * rows
    law = hypergeom(rows + others, drawn, rows)
    counts = np.arange(drawn + 1)
    ps = np.array([p_exact(k, rows, drawn - k, others)[0] for k in counts])
    tails = np.minimum(law.cdf(counts) / 0.2, law.sf(counts - 1) / 0.8)
    assert np.all(ps <= np.minimum(1.0, tails) + 1e-9)
    spent = [law.pmf(counts)[ps <= p * (1 + 1e-6)].sum() for p in ps]
    assert ps == pytest.approx(np.array(spent), rel=1e-6)
    assert sorted(p_exact(drawn // 10, rows, drawn - drawn // 10, others)[1]) == pytest.approx(sorted(ps), rel=1e-6)


@pytest.mark.parametrize("more", [0.0, 0.5, 10.0])
def test_a_wobble_that_was_measured_on_90_windows_keeps_the_rate(more: float) -> None:
    """n T is `more`: its measure follows the law of the squares of 90 windows, and the test is one of normal numbers
    with variance 1 + n T. For the law that knew less of chance the rate was 1.8 times as high."""
    t, n = 1e-4, 200
    rate = 0.0
    for at in (np.arange(40) + 0.5) / 40:
        measured = (1 + more) * chi_squared.ppf(at, 89) / 89
        size = Worth(n, 90 * n, (measured - 1) / n, 90, 1.0)
        low, high = 0.0, 60.0
        for _ in range(30):
            z = (low + high) / 2
            sure = size.sure(2 * norm.sf(z / np.sqrt(max(1.0, measured))))
            low, high = (z, high) if sure > t else (low, z)
        rate += 2 * norm.sf(high / np.sqrt(1 + more)) / 40
    assert 0.4 * t < rate < 1.05 * t
