"""Segments, their test, and what a release is expected to do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from homeostat.domain.backtest import Expected, Segment
from homeostat.domain.bundle import Version
from homeostat.domain.policy import ReleasePolicy
from homeostat.domain.rollout import Rollout, Status, StepKind
from homeostat.domain.schema import Field, Kind
from homeostat.domain.units import DAY_MS, HOUR_MS, MINUTE_MS
from homeostat.engines import evidence, rollout
from homeostat.engines.foresight import Rates, expected
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
    steps, _ = rollout.plan(policy, rates.per_day, first=False)
    live = tuple(step for step in steps if step.kind is not StepKind.BACKTEST)
    old, new = Version("m", 1, "a", "r"), Version("m", 2, "b", "r")
    return expected(Rollout("", "m", old, new, live, 0, Status.RUNNING, 0, 0, "", 0), rates, policy, horizon_ms)


ALIKE = Rates(10_000, (0.0, 0.0), "", 1.0, evidence.tally(np.random.default_rng(1).uniform(-0.1, 0.1, 2_000)))


def test_an_equal_candidate_is_expected_to_be_promoted_when_labels_have_settled_it() -> None:
    found = foreseen(ALIKE)
    assert [one.step for one in found] == ["shadow", "1 %", "10 %", "50 %", "100 %", "probation"]
    assert [one.outcome for one in found] == ["goes on"] * 5 + ["promoted"]
    assert found[0].after_ms == 30 * MINUTE_MS  # min_time: min_requests are there sooner
    assert found[1].after_ms == pytest.approx(50 / 100 * DAY_MS, rel=0.01)  # 50 requests at 1 % of 10,000 a day
    assert found[5].after_ms == DAY_MS
    waited = sum(one.after_ms for one in found[:3])
    assert DAY_MS < waited < 1.3 * DAY_MS  # 10 % waits for quality: a label horizon, then some hours
    later = foreseen(ALIKE, horizon_ms=3 * DAY_MS)
    assert sum(one.after_ms for one in later[:3]) > 3 * DAY_MS


def test_without_labels_a_person_is_asked_at_the_cap() -> None:
    found = foreseen(replace(ALIKE, labelled=0.0, differences=np.zeros(evidence.CELLS)))
    assert (found[-1].step, found[-1].outcome, found[-1].after_ms) == ("10 %", "a person is asked", 8 * DAY_MS)
    held = foreseen(replace(ALIKE, labelled=0.0), ReleasePolicy(on_unknown="hold"))
    assert (held[-1].step, held[-1].outcome) == ("10 %", "hold")


def test_harm_is_expected_where_the_rule_would_see_it() -> None:
    worse = foreseen(replace(ALIKE, differences=evidence.tally(np.full(100, 0.2))))
    assert worse[-1].outcome == "rolled back"
    assert "quality" in worse[-1].reason
    failing = foreseen(replace(ALIKE, bad=(0.05, 0.001)))
    assert (failing[-1].outcome, failing[-1].step) == ("rolled back", "shadow")
    assert failing[-1].after_ms < HOUR_MS
    stopped = foreseen(replace(ALIKE, bad=(0.01, 0.0), hard_stop="a non-finite output"))
    assert (stopped[-1].step, stopped[-1].reason) == ("shadow", "a non-finite output")
