"""Segments, their test, and what a release is expected to do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from homeostat.domain.backtest import Expected, Segment
from homeostat.domain.bundle import Version
from homeostat.domain.policy import ReleasePolicy
from homeostat.domain.rollout import Do, Rollout, Status, StepKind
from homeostat.domain.schema import Field, Kind
from homeostat.domain.units import DAY_MS, HOUR_MS, MINUTE_MS
from homeostat.engines import evidence, steps
from homeostat.engines.itinerary import Rates, itinerary
from homeostat.engines.segments import ALPHA, Rows, Table, bins, harmed, ranked

NUMBER, TEXT = Field("age", Kind.NUMBER), Field("country", Kind.TEXT)


def test_numbers_fall_into_quantiles_and_null_into_its_own_bin() -> None:
    made = bins(NUMBER, pl.Series([float(i) for i in range(100)] + [None]))
    assert made.labels[:2] == ("below 9.9", "9.9 to 19.8")
    assert made.labels[-2:] == ("from 89.1", "null")
    assert made.of(pl.Series([0.0, 9.9, 95.0, None, float("nan"), 1e9])).tolist() == [0, 1, 9, 10, 10, 9]


def test_texts_and_few_numbers_are_counted_by_name() -> None:
    made = bins(TEXT, pl.Series(["de", "de", "fr", None]))
    assert made.labels == ("de", "fr", "any other", "null")
    assert made.of(pl.Series(["fr", "xx", None, "de"])).tolist() == [1, 2, 3, 0]
    assert bins(NUMBER, pl.Series([1.0, 2.0, 2.0])).labels == ("1.0", "2.0", "any other", "null")
    nothing = bins(TEXT, pl.Series([None, None], dtype=pl.String))
    assert nothing.of(pl.Series(["de", None])).tolist() == [0, 1]
    assert bins(Field("on", Kind.BOOLEAN), pl.Series([True, False])).labels[:2] == ("false", "true")


def rows(n: int, moved: float, difference: float) -> Rows:
    return Rows(np.full(n, moved), np.zeros(n, bool), np.zeros(n, bool), np.full(n, difference))


def test_segments_are_ranked_by_how_much_more_they_differ_than_the_rest() -> None:
    table = Table(bins(TEXT, pl.Series(["de", "fr", "pl"])))
    table.add(pl.Series(["de"] * 100), rows(100, 0.1, 0.0))
    table.add(pl.Series(["pl"] * 60), rows(60, 0.5, 0.2))
    table.add(pl.Series(["fr"] * 49), rows(49, 1.0, np.nan))  # too few to be ranked
    first, second = ranked({"country": table})
    assert (first.values, first.n, first.labels, second.values) == ("pl", 60, 60, "de")
    assert first.moved == pytest.approx(0.5)
    assert first.elsewhere == pytest.approx((100 * 0.1 + 49) / 149)
    assert first.difference == pytest.approx(0.2)
    assert first.evidence == pytest.approx(evidence.mean_evidence(evidence.tally(np.full(60, 0.2))))


def segment(e: float, labels: int = 50) -> Segment:
    return Segment("x", f"{e}", 100, 0.1, 0.1, 0, 0, labels, 0.1, e)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([399.0, 1.0, 1.0, 1.0], 0),  # alone among four it needs 400
        ([401.0, 1.0, 1.0, 1.0], 1),
        ([250.0, 201.0, 1.0, 1.0], 2),  # two together need 200 each
        ([250.0, 199.0, 1.0, 1.0], 0),
        ([101.0, 101.0, 101.0, 101.0], 4),
        ([], 0),
    ],
)
def test_segments_are_tested_together(values: list[float], found: int) -> None:
    worse, needed = harmed([*map(segment, values), segment(1e9, labels=0)])
    assert [one.evidence for one in worse] == sorted(values, reverse=True)[:found]
    assert needed == pytest.approx(len(values) / (ALPHA * max(found, 1)))


def foreseen(rates: Rates, policy: ReleasePolicy | None = None, horizon_ms: int = DAY_MS) -> tuple[Expected, ...]:
    policy = policy or ReleasePolicy()
    planned, _ = steps.plan(policy, rates.per_day, first=False)
    live = tuple(step for step in planned if step.kind is not StepKind.BACKTEST)
    old, new = Version("m", 1, "a", "r"), Version("m", 2, "b", "r")
    return itinerary(Rollout("", "m", old, new, live, 0, Status.RUNNING, 0, 0, "", 0), rates, policy, horizon_ms)


def took(step: Expected) -> int:
    assert step.after_ms is not None
    return step.after_ms


ALIKE = Rates(
    n=10_000,
    bad=(0, 0),
    hard_stop="",
    per_day=10_000,
    labelled=1.0,
    differences=evidence.tally(np.random.default_rng(1).uniform(-0.1, 0.1, 2_000)),
)


def test_an_equal_candidate_is_expected_to_be_promoted_when_labels_have_settled_it() -> None:
    found = foreseen(ALIKE)
    assert [one.step for one in found] == ["shadow", "1 %", "10 %", "50 %", "100 %", "probation"]
    assert [one.do for one in found] == [Do.ADVANCE] * 5 + [Do.PROMOTE]
    assert 30 * MINUTE_MS <= took(found[0]) <= 31 * MINUTE_MS  # min_time: min_requests are there sooner
    assert took(found[1]) == pytest.approx(50 / 100 * DAY_MS, rel=0.01)  # 50 requests at 1 % of 10,000 a day
    assert took(found[5]) == pytest.approx(DAY_MS, abs=MINUTE_MS)
    waited = sum(map(took, found[:3]))
    assert DAY_MS < waited < 1.3 * DAY_MS  # 10 % waits for quality: a label horizon, then some hours
    assert "not worse after about" in found[2].reason
    assert sum(map(took, foreseen(ALIKE, horizon_ms=3 * DAY_MS)[:3])) > 3 * DAY_MS


def test_without_labels_a_person_is_asked_at_the_cap() -> None:
    bare = replace(ALIKE, labelled=0.0, differences=np.zeros(evidence.CELLS))
    found = foreseen(bare)
    assert (found[-1].step, found[-1].do) == ("10 %", Do.ASK)
    assert took(found[-1]) == pytest.approx(8 * DAY_MS, rel=0.001)
    assert foreseen(bare, ReleasePolicy(on_unknown="hold"))[-1] == Expected("10 %", None, None, "")
    assert foreseen(ALIKE, ReleasePolicy(steps=("shadow", "pause", "100%")))[-1].do is Do.ASK


def test_harm_is_expected_where_the_rule_would_see_it() -> None:
    worse = foreseen(replace(ALIKE, differences=evidence.tally(np.full(100, 0.2))))
    assert (worse[-1].do, "quality: harm after" in worse[-1].reason) == (Do.ROLL_BACK, True)
    failing = foreseen(replace(ALIKE, bad=(500, 10)))
    assert (failing[-1].do, failing[-1].step, took(failing[-1]) < HOUR_MS) == (Do.ROLL_BACK, "shadow", True)
    stopped = foreseen(replace(ALIKE, bad=(100, 0), hard_stop="a non-finite output"))
    assert (stopped[-1].step, stopped[-1].reason) == ("shadow", "a non-finite output")
    assert took(stopped[-1]) == pytest.approx(DAY_MS / 100, abs=2 * MINUTE_MS)


def test_bad_events_of_a_step_count_in_the_next_ones() -> None:
    """Slightly more failures: a step alone would not find them."""
    slightly = replace(ALIKE, bad=(40, 20), differences=evidence.tally(np.zeros(5_000)))
    found = foreseen(slightly, ReleasePolicy(min_time=12 * HOUR_MS))
    assert found[-1].do is Do.ROLL_BACK
    assert len(found) > 1
