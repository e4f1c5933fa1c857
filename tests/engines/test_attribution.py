"""Events → labels: tables of literals."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.domain.feedback import FeedbackPolicy, LabelRule
from homeostat.engines.attribution import attributed, decided

FRAUD = (LabelRule(True, "chargeback", 90), LabelRule(True, "purchase", 7), LabelRule(False, after=7))
ASKED = {"id": pl.String, "key": pl.String, "at_ms": pl.Int64}
EVENTS = {"id": pl.String, "key": pl.String, "name": pl.String, "value": pl.Float64, "at_ms": pl.Int64}


def asked(*rows: tuple[Any, ...]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), ASKED, orient="row")


def events(*rows: tuple[Any, ...]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), EVENTS, orient="row")


@pytest.mark.parametrize(
    ("said", "now", "rule"),
    [
        ([], 106, None),
        ([], 107, 2),
        ([("a", None, "purchase", 1, 107)], 107, 1),
        ([("a", None, "purchase", 1, 108)], 109, 2),  # out of its window
        ([("a", None, "purchase", 1, 99)], 106, None),  # before the prediction
        ([("a", None, "purchase", 0, 103)], 106, None),  # did not happen
        ([("a", None, "purchase", 1, 103), ("a", None, "chargeback", 1, 190)], 189, 1),
        ([("a", None, "purchase", 1, 103), ("a", None, "chargeback", 1, 190)], 190, 0),
        ([("", "k", "chargeback", 1, 190)], 190, 0),
        ([("", "other", "chargeback", 1, 190)], 190, 2),
        ([("b", None, "chargeback", 1, 105)], 105, None),
    ],
)
def test_of_the_rules_that_fit_the_first_counts(said: list[tuple[Any, ...]], now: int, rule: int | None) -> None:
    found = decided(FRAUD, asked(("a", "k", 100)), events(*said), now)
    assert found.rows() == ([] if rule is None else [("a", rule)])


def test_an_event_of_an_entity_belongs_to_its_last_prediction() -> None:
    rows = asked(("a", "k", 10), ("b", "k", 20), ("c", None, 21), ("d", "m", 19))
    said = events(
        ("", "k", "bought", 1, 25), ("", "k", "bought", 1, 19), ("", "k", "bought", 1, 9), ("", "m", "x", 1, 30)
    )
    assert sorted(attributed(rows, said).rows()) == [
        ("a", "bought", 1.0, 19, 10),
        ("b", "bought", 1.0, 25, 20),
        ("d", "x", 1.0, 30, 19),
    ]


@given(
    st.lists(st.tuples(st.sampled_from("km"), st.integers(0, 40)), max_size=12),
    st.lists(st.tuples(st.sampled_from("km"), st.integers(0, 60)), max_size=12),
)
def test_as_a_person_would_look_it_up(rows: list[tuple[str, int]], said: list[tuple[str, int]]) -> None:
    """Against one event at a time."""
    once = [(key, at) for key, at in dict.fromkeys(rows)]
    predictions = asked(*((f"p{i}", key, at) for i, (key, at) in enumerate(once)))
    told = events(*(("", key, "bought", 1.0, at) for key, at in said))
    expected = []
    for key, at in said:
        before = [(when, f"p{i}") for i, (whose, when) in enumerate(once) if whose == key and when <= at]
        expected += [(max(before)[1], at)] if before else []
    found = attributed(predictions, told)
    assert sorted(found.select("id", "at_ms").rows()) == sorted(expected)


@pytest.mark.parametrize("wrong", [{}, {"event": "x"}, {"within": 5}, {"event": "x", "within": 5, "after": 5}])
def test_a_rule_has_an_event_and_a_window_or_waits(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a rule has"):
        LabelRule(True, **wrong)


def test_what_a_policy_of_feedback_must_be() -> None:
    with pytest.raises(ValueError, match="the trust in 'crowd' must be above 0"):
        FeedbackPolicy(sources={"crowd": 0.0})
    with pytest.raises(ValueError, match="the bounds of 'rating'"):
        FeedbackPolicy(signals={"rating": (5, 1)})
