"""E-values by literals, by the definitions they abbreviate, and by properties."""

from __future__ import annotations

from math import comb, inf, isfinite, prod
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.engines import evidence
from homeostat.engines.evidence import RHOS, Count

counts = st.lists(
    st.builds(Count, st.integers(1, 9_999), st.integers(0, 3_000), st.integers(0, 3_000)), min_size=0, max_size=4
)
differences = st.lists(st.floats(-1, 1), max_size=40).map(lambda values: np.array(values, float))


def theta(r: float, w: float) -> float:
    return r * w / (r * w + 1 - w)


def test_the_ratio_is_the_mean_of_the_seven_products() -> None:
    expected = 0.0
    for rho in RHOS:
        on_candidate = theta(1.1 * rho, 0.1) / theta(1.1, 0.1)
        on_champion = (1 - theta(1.1 * rho, 0.1)) / (1 - theta(1.1, 0.1))
        expected += on_candidate**9 * on_champion**20 / len(RHOS)
    assert evidence.ratio_evidence([Count(1_000, 9, 20)], 1.1) == pytest.approx(expected)


def test_no_events_say_nothing() -> None:
    assert evidence.ratio_evidence([]) == evidence.share_evidence([]) == 1
    assert evidence.mean_evidence(evidence.tally(np.array([]))) == 1
    assert evidence.ratio_interval([], 0.01) == (0, inf)
    assert evidence.mean_interval(evidence.tally(np.array([])), 0.05) == pytest.approx((-1, 1), abs=1e-3)


@given(st.integers(1, 9_999), st.sampled_from((1.0, 1.1, 3.0)), st.floats(0.01, 1))
def test_one_event_has_a_mean_of_at_most_one_under_the_null(weight: int, r0: float, part: float) -> None:
    p = theta(r0 * part, weight / 10_000)
    fair = p * evidence.ratio_evidence([Count(weight, 1, 0)], r0) + (1 - p) * evidence.ratio_evidence(
        [Count(weight, 0, 1)], r0
    )
    assert fair <= 1 + 1e-9


@given(counts, st.floats(0.1, 5), st.floats(1, 3))
def test_a_larger_tolerated_ratio_leaves_less_evidence(events: list[Count], r0: float, factor: float) -> None:
    assert evidence.ratio_evidence(events, r0 * factor) <= evidence.ratio_evidence(events, r0) * (1 + 1e-9)


@given(counts)
def test_the_interval_inverts_the_two_tests(events: list[Count]) -> None:
    low, high = evidence.ratio_interval(events, 0.01)
    assert 0 <= low < high
    if 1e-5 < low < 1e5:
        assert evidence.ratio_evidence(events, low) >= 100 > evidence.ratio_evidence(events, low * 1.01)
    if 1e-5 < high < 1e5:
        assert evidence.ratio_below(events, high) >= 100 > evidence.ratio_below(events, high * 0.99)


def test_huge_counts_do_not_overflow() -> None:
    assert isfinite(evidence.ratio_evidence([Count(5_000, 10**9, 0)]))
    assert evidence.ratio_evidence([Count(5_000, 0, 10**9)]) == 0
    assert isfinite(evidence.share_evidence([Count(100, 10**9, 0)]))
    assert isfinite(evidence.mean_evidence(evidence.tally(np.ones(100_000))))


def test_the_sample_ratio_has_a_mean_of_one_under_the_null() -> None:
    n, p = 12, 0.1
    mean = sum(
        comb(n, k) * p**k * (1 - p) ** (n - k) * evidence.share_evidence([Count(1_000, k, n - k)]) for k in range(n + 1)
    )
    assert mean == pytest.approx(1)
    assert (
        evidence.share_evidence([Count(1_000, 1_200, 8_800)])
        > 1_000
        > evidence.share_evidence([Count(1_000, 1_000, 9_000)])
    )
    assert evidence.share_evidence([Count(0, 5, 5), Count(10_000, 5, 5)]) == 1


def test_wealth_is_the_mean_over_the_bets() -> None:
    d = [0.5, -0.25, 1.0]
    expected = np.mean([prod(1 + b * x for x in d) for b in evidence.BETS])
    assert evidence.mean_evidence(evidence.tally(np.array(d))) == pytest.approx(expected, rel=1e-3)


@given(differences, differences)
def test_a_tally_adds_up_in_any_order_and_keeps_the_mean(a: np.ndarray, b: np.ndarray) -> None:
    together = np.concatenate([a, b])
    whole = evidence.tally(np.sort(together))
    assert np.array_equal(whole, evidence.tally(a) + evidence.tally(b))
    assert whole.sum() == pytest.approx(len(together))
    grid = np.linspace(-1, 1, evidence.CELLS)
    assert (whole @ grid) == pytest.approx(together.sum(), abs=1e-9)


@given(differences)
def test_tallying_never_adds_evidence(d: np.ndarray) -> None:
    exact = np.mean([np.exp(np.log1p(b * d).sum()) for b in evidence.BETS])
    assert evidence.mean_evidence(evidence.tally(d)) <= exact * (1 + 1e-9)


@given(differences)
def test_the_mean_lies_in_its_interval_which_inverts_the_tests(d: np.ndarray) -> None:
    counts = evidence.tally(d)
    low, high = evidence.mean_interval(counts, 0.02)
    assert low < high
    if len(d):
        assert low - 1e-3 <= d.mean() <= high + 1e-3
    if low > -0.99:
        assert evidence.mean_evidence(counts, low - 1e-3) >= 50 > evidence.mean_evidence(counts, low + 1e-3)
    if high < 0.99:
        assert evidence.mean_below(counts, high + 1e-3) >= 50 > evidence.mean_below(counts, high - 1e-3)


@pytest.mark.parametrize("wrong", [[1.1], [-2.0], [float("nan")]])
def test_a_difference_outside_its_range_is_an_error(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match=r"\[-1, 1\]"):
        evidence.tally(np.array(wrong))


@given(counts, counts, counts, st.randoms())
def test_counts_add_up_over_replicas_in_any_order(a: list[Count], b: list[Count], c: list[Count], rng: Random) -> None:
    whole = evidence.merged(a, b, c)
    assert whole == evidence.merged(evidence.merged(c, a), b)
    assert [count.weight for count in whole] == sorted({count.weight for count in (*a, *b, *c)})
    parts = [*a, *b, *c]
    rng.shuffle(parts)
    for e in (evidence.ratio_evidence, evidence.share_evidence):
        assert e(parts) == pytest.approx(e(whole), rel=1e-6)


@given(counts)
def test_the_state_does_not_grow_with_the_events(events: list[Count]) -> None:
    """Two counters a weight, whatever happened; a tally has its cells."""
    assert len(evidence.merged(events * 50)) == len({event.weight for event in events})


values = st.lists(st.floats(0, 1e6), max_size=12)


@given(values, st.integers(0, 30), st.floats(0.001, 0.2))
def test_e_bh_by_its_definition(found: list[float], unseen: int, alpha: float) -> None:
    """Wang & Ramdas 2022, section 4: k* = max{k: k e_[k] / K >= 1 / alpha}; those with the k* largest are rejected."""
    many = len(found) + unseen
    places, needed = evidence.e_bh(found, many, alpha)
    ranked = sorted(found, reverse=True)
    largest = max((k for k in range(1, len(found) + 1) if ranked[k - 1] >= many / (alpha * k)), default=0)
    assert [found[place] for place in places] == ranked[:largest]
    assert needed == pytest.approx(many / (alpha * max(largest, 1)))
    assert all(found[place] >= needed for place in places)


@given(values.filter(bool), st.integers(0, 30), st.floats(0.001, 0.2))
def test_what_e_bh_finds_the_mean_finds_too(found: list[float], unseen: int, alpha: float) -> None:
    """So that with nothing to be found it ever finds something with probability alpha at most: the mean of e-processes
    is one."""
    many = len(found) + unseen
    if evidence.e_bh(found, many, alpha)[0]:
        assert (sum(found) + unseen) / many >= (1 - 1e-9) / alpha


def test_one_in_three_needs_three_times_the_evidence_and_two_share() -> None:
    assert evidence.e_bh([299.0, 1.0], 3, 0.01) == ([], 300.0)
    assert evidence.e_bh([1.0, 301.0], 3, 0.01) == ([1], 300.0)
    assert evidence.e_bh([151.0, 1e9, 0.2], 3, 0.01) == ([1, 0], 150.0)
    assert evidence.e_bh([], 3, 0.01) == ([], 300.0)


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=9))
def test_the_mean_of_logarithms(logs: list[float]) -> None:
    assert evidence.log_mean(np.array(logs)) == pytest.approx(np.log(np.mean(np.exp(logs))), abs=1e-9)
