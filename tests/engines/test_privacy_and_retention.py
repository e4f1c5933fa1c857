from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.domain.prediction import LogBatch
from homeostat.engines.privacy import Mask
from homeostat.engines.retention import Cut, cut

BATCH = LogBatch(
    "cards", 5, "R1", 0, ["a", "b", "c"], ["k1", None, "k1"], [1] * 3, ["champion"] * 3, ["answer"] * 3, ["ok"] * 3,
    [9] * 3, [0.5] * 3, ["0"] * 3, [None] * 3,
    {"name": ["Ann", None, "Ann"], "amount": [1.0, 2.0, None], "n": [1, 2, 3]},
)  # fmt: skip


def test_dropped_fields_are_null_and_hashed_ones_stay_equal() -> None:
    masked = Mask(frozenset({"amount"}), frozenset({"name", "card"}), "card", b"secret")(BATCH)
    assert masked.inputs["amount"] == [None] * 3
    assert masked.inputs["n"] is BATCH.inputs["n"]
    one, none, again = masked.inputs["name"]
    expected = hmac.new(b"secret", b"name\0Ann", hashlib.sha256).hexdigest()[:24]
    assert (one, none, again) == (expected, None, expected)
    assert masked.key[0] == masked.key[2] == hmac.new(b"secret", b"card\0k1", hashlib.sha256).hexdigest()[:24]
    assert masked.key[1] is None
    assert masked.key[0] != Mask(frozenset(), frozenset({"card"}), "card", b"other")(BATCH).key[0]
    assert replace(masked, inputs=BATCH.inputs, key=BATCH.key) == BATCH
    assert Mask(frozenset({"card"}), frozenset(), "card", b"")(BATCH).key == [None] * 3


def test_without_a_key_nothing_but_inputs_is_touched() -> None:
    assert Mask(frozenset({"name"}), frozenset(), None, b"")(BATCH).key == BATCH.key


FIRST = date(2026, 1, 1)
DAY_MS = 86_400_000


def day(number: int) -> date:
    return FIRST + timedelta(number)


DAYS = {day(i): 10 for i in range(5)}


@pytest.mark.parametrize(
    ("keep_from", "needed_from", "max_size", "expected"),
    [
        (None, day(9), 50, Cut(None, "", 0)),
        (day(0), day(9), 50, Cut(None, "", 0)),
        (day(2), day(9), 50, Cut(day(2), "older than 7 d", 0)),
        (day(2), day(1), 50, Cut(day(1), "older than 7 d", 0)),
        (None, day(9), 49, Cut(day(1), "over 49 B", 0)),
        (day(1), day(9), 25, Cut(day(3), "older than 7 d and over 25 B", 0)),
        (day(2), day(3), 5, Cut(day(3), "older than 7 d and over 5 B", 15)),
        (day(2), None, 5, Cut(None, "", 45)),
        (day(9), day(9), 0, Cut(day(5), "older than 7 d", 0)),
    ],
)
def test_the_oldest_days_go_but_for_those_that_are_needed(
    keep_from: date | None, needed_from: date | None, max_size: int, expected: Cut
) -> None:
    assert cut(DAYS, keep_from, needed_from, max_size, 7 * DAY_MS) == expected


NUMBERS = st.integers(0, 12)


@given(st.dictionaries(NUMBERS, st.integers(0, 50)), st.none() | NUMBERS, st.none() | NUMBERS, st.integers(0, 200))
def test_no_needed_day_goes_and_a_second_look_finds_nothing(
    sizes: dict[int, int], keep: int | None, needed: int | None, max_size: int
) -> None:
    days = {day(number): size for number, size in sorted(sizes.items())}
    keep_from, needed_from = (None if one is None else day(one) for one in (keep, needed))
    made = cut(days, keep_from, needed_from, max_size, DAY_MS)
    left = {one: size for one, size in days.items() if made.before is None or one >= made.before}
    assert made.over == max(0, sum(left.values()) - max_size)
    assert cut(left, keep_from, needed_from, max_size, DAY_MS) == Cut(None, "", made.over)
    for one in days.keys() - left.keys():
        assert needed_from is not None
        assert one < needed_from
    if made.over and needed_from is not None:
        assert all(one >= needed_from for one in left)
