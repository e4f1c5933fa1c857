from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from homeostat.domain.errors import ConfigError
from homeostat.domain.rollout import Arm, Route, Share
from homeostat.domain.schema import Field, Kind, Schema, Task, Value
from homeostat.domain.units import ALL
from homeostat.engines.routing import arms, assign, check_segments, kept

KEYS = [f"key-{i}" for i in range(20_000)]


def test_buckets_are_stable_and_even() -> None:
    assert assign("R1", ["a", "b", ""]).tolist() == [1023, 9525, 8557]  # a change would move every caller
    counts = np.bincount(assign("R1", KEYS) // 100, minlength=100)
    assert chisquare(counts).pvalue > 1e-3
    assert len(counts) == 100


def test_releases_are_independent() -> None:
    first, second = assign("R1", KEYS) < 5_000, assign("R2", KEYS) < 5_000
    assert abs(float(np.mean(first & second)) - 0.25) < 0.02


def test_who_is_in_stays_in() -> None:
    before = np.zeros(len(KEYS), bool)
    for weight in (0, 100, 1_000, 5_000, 10_000):
        now = arms(Route("R1", Arm(1, "a"), Arm(2, "b"), weight, salt="R1"), KEYS) == 1
        assert not (before & ~now).any()
        assert abs(now.mean() * 10_000 - weight) < 150
        before = now
    assert before.all()


weights = st.lists(st.integers(0, 2_500), min_size=1, max_size=4)


@given(weights, st.lists(st.text(max_size=8), max_size=30), st.text(max_size=5))
def test_every_arm_gets_the_buckets_of_its_weight(parts: list[int], keys: list[str], salt: str) -> None:
    more = tuple(Share(Arm(3 + i, "c"), weight) for i, weight in enumerate(parts[1:]))
    route = Route("E1", Arm(1, "a"), Arm(2, "b"), parts[0], salt=salt, more=more)
    assert sum(route.weights) == ALL
    ends = np.cumsum(parts)
    expected = [int(np.argmax([*(bucket < ends), True]) + 1) % (len(parts) + 1) for bucket in assign(salt, keys)]
    assert arms(route, keys).tolist() == expected


@given(st.integers(0, ALL), st.integers(0, ALL), st.lists(st.text(max_size=8), max_size=30))
def test_a_key_keeps_its_arm_while_the_weight_grows(one: int, two: int, keys: list[str]) -> None:
    small, large = (Route("R1", Arm(1, "a"), Arm(2, "b"), w, salt="s") for w in sorted((one, two)))
    assert not (arms(small, keys) > arms(large, keys)).any()


@pytest.mark.parametrize("bad", [(-1,), (10_001,), (6_000, 6_000), (5_000, -1)])
def test_weights_that_are_no_shares_are_no_route(bad: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="weights"):
        Route("R1", Arm(1, "a"), Arm(2, "b"), bad[0], more=tuple(Share(Arm(3, "c"), w) for w in bad[1:]))


values = st.sampled_from(["de", "fr", "pl", None, 1, 0, True, False, 1.0])
segments = st.dictionaries(st.sampled_from(["x", "y", "absent"]), st.lists(values, max_size=3).map(tuple), max_size=2)


def same(a: Value, b: Value) -> bool:
    return a == b and isinstance(a, bool) == isinstance(b, bool)


@given(segments, segments, st.lists(st.tuples(values, values), max_size=12))
def test_rules_keep_just_the_rows_they_name(only: dict, never: dict, rows: list[tuple[Value, Value]]) -> None:
    found = kept(only, never, {"x": [x for x, _ in rows], "y": [y for _, y in rows]}, len(rows))
    for stays, (x, y) in zip(found.tolist(), rows, strict=True):
        row: dict[str, Value] = {"x": x, "y": y}
        admitted = all(any(same(row.get(name), one) for one in ones) for name, ones in only.items())
        barred = any(any(same(row.get(name), one) for one in ones) for name, ones in never.items())
        assert stays == (barred or not admitted)


FIELDS = (Field("country", Kind.TEXT, values=("de", "fr")), Field("age", Kind.INTEGER, nullable=True))


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"contry": ("de",)}, "'contry' is no input"),
        ({"country": ("dk",)}, "country is never 'dk'"),
        ({"country": (None,)}, "country is never None"),
        ({"age": ("7",)}, "age is never '7'"),
        ({"age": (True,)}, "age is never True"),
    ],
)
def test_a_rule_that_no_row_can_meet_is_an_error(rule: dict, told: str) -> None:
    schema = Schema(FIELDS, Task.BINARY, "y", (0, 1))
    check_segments(schema, {"country": ("de", "fr")}, {"age": (7, None)})
    for only, never in ((rule, {}), ({}, rule)):
        with pytest.raises(ConfigError, match=told):
            check_segments(schema, only, never)
