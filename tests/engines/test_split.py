"""The split by time."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.errors import DataError
from homeostat.domain.policy import TrainPolicy
from homeostat.domain.units import DAY_MS, HOUR_MS
from homeostat.engines.split import LEAST_HOLDOUT, LEAST_TRAIN, split


def frame(times: list[int]) -> pl.DataFrame:
    return pl.DataFrame({EVENT_MS: times, "row": range(len(times))}, {EVENT_MS: pl.Int64, "row": pl.Int64})


def policy(window: int, holdout: int) -> TrainPolicy:
    return TrainPolicy("roc_auc", window=window, holdout=holdout)


def test_the_bounds_are_those_of_the_newest_row() -> None:
    hourly = frame([hour * HOUR_MS for hour in range(100)])  # the newest at hour 99
    made = split(policy(50 * HOUR_MS, 10 * HOUR_MS), hourly)
    assert made.window["row"].to_list() == list(range(50, 100))  # the row 50 hours before is out
    assert made.train["row"].to_list() == list(range(50, 90))
    assert made.holdout["row"].to_list() == list(range(90, 100))
    assert split(policy(0, 10 * HOUR_MS), hourly).window.equals(hourly)


def test_what_was_before_a_change_is_left_out_and_half_of_the_rest_is_learned_from() -> None:
    hourly = frame([hour * HOUR_MS for hour in range(100)])
    made = split(policy(50 * HOUR_MS, 40 * HOUR_MS), hourly, since_ms=55 * HOUR_MS)
    assert made.window["row"].to_list() == list(range(55, 100))
    assert made.holdout["row"].to_list() == list(range(78, 100))
    assert split(policy(70 * HOUR_MS, 40 * HOUR_MS), hourly, since_ms=9 * HOUR_MS).window["row"][0] == 30


def test_too_few_rows_are_counted() -> None:
    few = frame([day * DAY_MS for day in range(24)])
    with pytest.raises(DataError, match=r"all of the data until .* holds 19 rows to learn from and 5 to\s+evaluate on"):
        split(policy(0, 5 * DAY_MS), few)
    with pytest.raises(DataError, match=r"the last 3 d until .* holds 0 rows to learn from and 3 to\s+evaluate on"):
        split(policy(3 * DAY_MS, 5 * DAY_MS), few)
    assert len(split(policy(0, 5 * DAY_MS), frame([day * DAY_MS for day in range(25)])).train) == LEAST_TRAIN


@given(
    st.lists(st.integers(0, 500), min_size=60, max_size=120),
    st.integers(100, 600),
    st.integers(1, 99),
    st.lists(st.integers(-900, -601), max_size=9),
)
def test_no_row_of_the_holdout_is_as_old_as_one_that_is_learned_from(
    times: list[int], window: int, holdout: int, older: list[int]
) -> None:
    rows = frame(sorted(times))
    newest = max(times)
    try:
        made = split(policy(window, holdout), rows)
    except DataError:
        inside = [time for time in times if time > newest - window]
        due = len(inside) * holdout / max(holdout, newest - min(inside))
        late = sum(time > newest - holdout for time in times)
        assert late < LEAST_HOLDOUT or len(inside) - late < LEAST_TRAIN or late < due / 2
        return
    assert pl.concat([made.train, made.holdout]).equals(made.window)
    assert made.window["row"].to_list() == [
        row for row, at in rows.select("row", EVENT_MS).rows() if at > newest - window
    ]
    assert max(made.train[EVENT_MS]) < min(made.holdout[EVENT_MS])
    assert max(made.train[EVENT_MS]) <= newest - holdout
    longer = pl.concat([frame(sorted(older)).with_columns(row=pl.lit(-1, pl.Int64)), rows])
    assert split(policy(window, holdout), longer).window.equals(made.window)  # what is older than it changes nothing


def test_a_holdout_with_a_gap_reaches_back_for_its_due() -> None:
    """Rows of three days before the newest one are gone: the holdout of three days has its 72 rows all the same."""
    hours = [hour * HOUR_MS for hour in range(24 * 30) if not 24 * 26 <= hour < 24 * 30 - 1]
    made = split(policy(0, 3 * DAY_MS), frame(hours))
    assert len(made.holdout) == round(len(hours) * 72 / (24 * 30 - 1))
    assert made.holdout[EVENT_MS].to_list() == hours[-len(made.holdout) :]
