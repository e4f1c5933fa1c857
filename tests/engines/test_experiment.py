"""Who takes part in an experiment, against the same rules written as loops; conclusions and words as tables."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.domain.bundle import Version
from homeostat.domain.experiment import Conclusion, Effect, Experiment, Split
from homeostat.domain.policy import ExperimentPolicy, SignalPolicy
from homeostat.engines.evidence import Count, mean_evidence, share_evidence, tally
from homeostat.engines.experiment import (
    ALPHA,
    Units,
    conclude,
    differences,
    effect,
    judge,
    names,
    scaled,
    split_evidence,
    taking_part,
    told,
    turned,
    units,
)

WINDOW = 10
METRIC = SignalPolicy("amount", bounds=(0, 100))
RULES = ExperimentPolicy(METRIC, window=WINDOW)
LOG = {
    "id": pl.String, "key": pl.String, "at_ms": pl.Int64, "arm": pl.String, "role": pl.String, "weight": pl.Int64,
    "status": pl.String,
}  # fmt: skip
SIGNALS = {"id": pl.String, "name": pl.String, "value": pl.Float64, "at_ms": pl.Int64}


def experiment(rules: ExperimentPolicy = RULES, variants: int = 2) -> Experiment:
    versions = tuple(Version("m", 2 + i, f"b{i}", "run") for i in range(variants))
    return Experiment("E1", "x", "m", rules, Version("m", 1, "b", "run"), versions, 10_000 // (variants + 1), "s", 0)


rows = st.lists(
    st.tuples(
        st.none() | st.sampled_from("abcd"),
        st.integers(0, 40),
        st.sampled_from(names(experiment())),
        st.sampled_from(["answer", "answer", "answer", "shadow", "failed", "rejected"]),
        st.sampled_from([0, 3_333]),
    ),
    max_size=25,
)
signal = st.none() | st.tuples(st.sampled_from(["amount", "other"]), st.integers(-50, 200), st.integers(0, 25))


@given(rows, st.data(), st.integers(0, 60), st.sampled_from([None, 0.0, 7.0]))
def test_units_are_the_means_of_entities_whose_windows_are_over(
    drawn: list[Any], data: st.DataObject, now_ms: int, missing: float | None
) -> None:
    drawn = sorted(drawn, key=lambda row: row[1])
    signals = [data.draw(signal) for _ in drawn]
    log = [(f"p{i}", *row, "ok") for i, row in enumerate(drawn)]
    given_ = [(f"p{i}", s[0], float(s[1]), drawn[i][1] + s[2]) for i, s in enumerate(signals) if s]
    part = taking_part(experiment(), turned(experiment(), pl.DataFrame(log, LOG, orient="row")), now_ms)
    metric = SignalPolicy("amount", bounds=(0, 100), missing=missing)
    found = units(metric, WINDOW, part.filter("ripe"), pl.DataFrame(given_, SIGNALS, orient="row"))
    expected = by_hand(drawn, signals, now_ms, missing)
    assert found.arm.tolist() == [arm for _, arm in expected]
    assert found.value.tolist() == pytest.approx([value for value, _ in expected])


def by_hand(drawn: list[Any], signals: list[Any], now_ms: int, missing: float | None) -> list[tuple[float, int]]:
    entities: dict[str, list[int]] = {}
    for i, (key, _, _, role, weight) in enumerate(drawn):
        if role == "answer" and weight:
            entities.setdefault(key or f"p{i}", []).append(i)
    made = []
    for entity, mine in entities.items():
        first = drawn[mine[0]][1]
        due = first + (2 * WINDOW if drawn[mine[0]][0] else WINDOW)
        values = [value(signals[i], missing) for i in mine if drawn[i][1] < first + WINDOW]
        known = [one for one in values if one is not None]
        if due <= now_ms and known:
            made.append((due, entity, sum(known) / len(known), names(experiment()).index(drawn[mine[0]][2])))
    return [(mean, arm) for _, _, mean, arm in sorted(made)]


def value(given_: Any, missing: float | None) -> float | None:
    if given_ is None or given_[0] != "amount" or given_[2] > WINDOW:
        return missing
    return float(min(max(given_[1], 0), 100))


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40), st.floats(0.1, 0.9))
def test_what_comes_later_changes_nothing_before(drawn: list[tuple[float, bool]], p: float) -> None:
    y, treated = np.array([one for one, _ in drawn]), np.array([one for _, one in drawn])
    whole = differences(y, treated, p, 0.5)
    for end in range(1, len(y)):
        assert differences(y[:end], treated[:end], p, 0.5).tolist() == whole[:end].tolist()
    assert np.abs(whole).max() <= max(1 / p, 1 / (1 - p)) + 1e-9


def test_z_has_the_difference_as_its_mean_whatever_the_units_were() -> None:
    """Over all assignments of six units, each with its probability: exactly."""
    treated_y, other_y, p = np.array([3.0, 1, 4, 1, 5, 9]), np.array([2.0, 7, 1, 8, 2, 8]), 0.3
    mean = 0.0
    for bits in range(64):
        treated = np.array([bits >> i & 1 for i in range(6)], bool)
        z = differences(np.where(treated, treated_y, other_y), treated, p, 0.5)
        mean += float(z.mean()) * p ** treated.sum() * (1 - p) ** (~treated).sum()
    assert mean == pytest.approx(float((treated_y - other_y).mean()))


@pytest.mark.parametrize(
    ("low", "high", "higher", "lower"),
    [
        (0.1, 2.0, Conclusion.BETTER, Conclusion.WORSE),
        (-2.0, -0.1, Conclusion.WORSE, Conclusion.BETTER),
        (-0.4, 0.4, Conclusion.ALIKE, Conclusion.ALIKE),
        (-0.6, 0.4, Conclusion.UNKNOWN, Conclusion.UNKNOWN),
        (-0.4, 0.6, Conclusion.UNKNOWN, Conclusion.UNKNOWN),
        (0.1, 0.2, Conclusion.BETTER, Conclusion.WORSE),
        (-inf, inf, Conclusion.UNKNOWN, Conclusion.UNKNOWN),
        (0.0, 1.0, Conclusion.UNKNOWN, Conclusion.UNKNOWN),
    ],
)
def test_the_interval_decides(low: float, high: float, higher: Conclusion, lower: Conclusion) -> None:
    found = Effect(100, 1.0, 0.5, 0.5, low, high)
    assert conclude(SignalPolicy("a", margin=0.5), found) == higher
    assert conclude(SignalPolicy("a", better="lower", margin=0.5), found) == lower


def test_words() -> None:
    found = Effect(3_000, 6.2, 5.0, 1.2, 0.4, 2.0)
    said = "amount 6.2 against 5, difference 1.2 [0.4, 2] over 3,000 entities."
    assert told(METRIC, 4, found, Conclusion.BETTER) == f"Version 4 is better than the champion: {said}"
    assert told(METRIC, 4, found, Conclusion.UNKNOWN) == f"Version 4: not yet known; {said}"
    assert told(METRIC, 4, found, Conclusion.ALIKE).startswith("Version 4 and the champion differ by less than 0:")
    nothing = Effect(0, None, None, None, -inf, inf)
    assert "no entity of both arms has its amount yet" in told(METRIC, 4, nothing, Conclusion.UNKNOWN)
    early = Effect(20, 6.2, 5.0, 1.2, -inf, inf)
    assert "no interval before 100 in each arm" in told(METRIC, 4, early, Conclusion.UNKNOWN)


def frames(per_arm: list[int], labelled: float = 1.0) -> tuple[pl.DataFrame, pl.DataFrame]:
    arms = [name for name, n in zip(names(experiment()), per_arm, strict=True) for _ in range(n)]
    log = [(f"p{i}", None, 0, arm, "answer", 3_333, "ok") for i, arm in enumerate(arms)]
    some = [row for i, row in enumerate(log) if row[3] != "candidate" or i % 100 < 100 * labelled]
    signals = [(row[0], "amount", 200.0, 1) for row in some]
    return pl.DataFrame(log, LOG, orient="row"), pl.DataFrame(signals, SIGNALS, orient="row")


def test_an_uneven_split_or_uneven_signals_say_nothing_at_all() -> None:
    assert sum(experiment().splits[0]) == 10_000
    fair = judge(experiment(), *frames([1_000, 1_000, 1_000]), 100)
    assert (fair.invalid, len(fair.compared), fair.units, fair.cut) == ("", 2, 3_000, 3_000)
    for sizes, labelled, what in (
        ([1_000, 1_000, 700], 1.0, "the entities do not fall"),
        ([1_000, 1_000, 1_000], 0.6, "entities with their amount do not fall"),
    ):
        unfair = judge(experiment(), *frames(sizes, labelled), 100)
        assert what in unfair.invalid
        assert not unfair.compared


def test_variants_share_the_error_rate() -> None:
    rng = np.random.default_rng(1)
    log, _ = frames([300, 300, 300])
    signals = pl.DataFrame(
        [(name, "amount", float(rng.integers(0, 100)), 1) for name in log["id"]], SIGNALS, orient="row"
    )
    found = units(METRIC, WINDOW, taking_part(experiment(), turned(experiment(), log), 100), signals)
    for one, alone in zip(judge(experiment(), log, signals, 100).compared, (1, 2), strict=True):
        assert one.effect == effect(METRIC, found, alone, experiment().splits, ALPHA / 2)
        assert one.effect.low > effect(METRIC, found, alone, experiment().splits, ALPHA / 4).low


@pytest.mark.parametrize("share", [5_000, 1_000])
def test_beyond_the_ends_of_an_interval_e_is_large_enough(share: int) -> None:
    rng = np.random.default_rng(2)
    arm = (rng.random(3_000) < share / 10_000).astype(int)
    y = 20 * rng.random(3_000) + 5 * arm
    found = effect(METRIC, Units(y, arm), 1, [[10_000 - share, share]], 0.05)
    z, largest = scaled(y, arm == 1, share / 10_000, (0, 100), min(share, 10_000 - share) / 10_000)
    assert largest == 100 * 10_000 / min(share, 10_000 - share)
    assert mean_evidence(tally(z), found.low / largest) == pytest.approx(40, rel=0.01)
    assert mean_evidence(tally(-z), -found.high / largest) == pytest.approx(40, rel=0.01)


def test_the_split_test_of_two_arms_is_that_of_releases() -> None:
    for a, b in ((0, 0), (40, 60), (5, 95), (1_000, 9_100)):
        assert split_evidence([b, a], [9_000, 1_000]) == pytest.approx(share_evidence([Count(1_000, a, b)]), rel=1e-6)


def test_bounds_are_in_the_metrics_own_unit() -> None:
    rng = np.random.default_rng(0)
    arm = rng.integers(0, 2, 4_000)
    rating = np.clip(np.round(3 + 0.5 * arm + rng.normal(size=4_000)), 1, 5)
    small = effect(SignalPolicy("r", bounds=(1, 5)), Units(rating, arm), 1, [[5_000, 5_000]], 0.05)
    large = effect(SignalPolicy("r", bounds=(10, 50)), Units(10 * rating, arm), 1, [[5_000, 5_000]], 0.05)
    assert small.low < 0.5 < small.high
    assert (large.low, large.high) == pytest.approx((10 * small.low, 10 * small.high), rel=1e-3)


def test_an_entity_counts_by_its_answers_until_the_shares_change() -> None:
    """And all are counted in the order they came, with a key or without."""
    one = replace(experiment(replace(RULES, bandit=500)), later=(Split(5, (2_000, 6_000, 2_000)),))
    log = [
        ("p0", "a", 0, "champion", "E1"),
        ("p1", "a", 4, "champion", "E1"),
        ("p2", "a", 6, "candidate", "E1.1"),
        ("p3", None, 7, "candidate", "E1.1"),
        ("p4", "b", 8, "version 3", "E1.1"),
    ]
    rows = pl.DataFrame(
        [(name, key, at, arm, "answer", 6_666, "ok", release) for name, key, at, arm, release in log],
        {**LOG, "release": pl.String},
        orient="row",
    )
    part = taking_part(one, turned(one, rows), 27)
    assert part["id"].to_list() == ["p0", "p1", "p3", "p4"]
    assert part["turn"].to_list() == [0, 0, 1, 1]
    assert part["due"].to_list() == [20, 20, 27, 28]
    assert part["ripe"].to_list() == [True, True, True, False]
