"""What is inferred of the data, and how broken checks are told."""

from __future__ import annotations

import pandera.polars as pa
import polars as pl
import pytest

from homeostat.domain.errors import CheckFailed, DataError
from homeostat.domain.schema import Field, Kind, Task
from homeostat.engines.checks import check
from homeostat.engines.infer import column_rule, schema_of, task_of

FRAME = pl.DataFrame({"a": [1.0, 2.0, None], "n": [5, 6, 9], "t": ["y", "x", "y"], "target": [0, 1, 0]})
CHECKS = pa.DataFrameSchema(
    {
        "a": pa.Column(pl.Float64, pa.Check.in_range(0, 3), nullable=True),
        "n": pa.Column(pl.Int64, [pa.Check.ge(0), pa.Check.le(6)]),
        "t": pa.Column(pl.String, pa.Check.isin(["x", "y", "z"])),
    }
)


@pytest.mark.parametrize(
    ("values", "task"),
    [
        ([0, 1], Task.BINARY),
        (["a", "b", "c"], Task.MULTICLASS),
        ([0, 1, 2], Task.MULTICLASS),
        ([0.5, 1.5, 2.5], Task.REGRESSION),
        ([1, 20, 300], Task.REGRESSION),
        ([True, False], Task.BINARY),
    ],
)
def test_the_task(values: list[object], task: Task) -> None:
    assert task_of(pl.Series("y", values)) is task


def test_a_target_with_one_class() -> None:
    with pytest.raises(DataError, match="nothing to learn"):
        task_of(pl.Series("y", [1, 1]))


def test_ranges_have_slack_but_keep_their_sign() -> None:
    rule = column_rule(pl.Series("a", [1.0, 3.0]))
    assert (rule.low, rule.high) == (0.0, 5.0)
    rule = column_rule(pl.Series("a", [-1, 3]))
    assert (rule.low, rule.high, rule.kind) == (-5.0, 7.0, Kind.INTEGER)


@pytest.mark.parametrize(
    ("values", "bounds"),
    [
        ([5, 5], (0.0, 10.0)),
        ([-5.0, -5.0], (-10.0, 0.0)),
        ([0, 0], (0.0, 1.0)),
        ([1.0, float("inf")], (0.0, None)),
        ([float("-inf"), 1.0], (None, None)),
    ],
)
def test_ranges_of_one_value_and_of_infinite_ones(values: list[float], bounds: tuple[float | None, ...]) -> None:
    rule = column_rule(pl.Series("a", values))
    assert (rule.low, rule.high) == bounds


def test_the_schema_takes_the_rules_of_the_checks() -> None:
    schema = schema_of(FRAME, ["a", "n", "t"], Task.BINARY, "target", CHECKS)
    assert schema.fields == (
        Field("a", Kind.NUMBER, True, 0, 3),
        Field("n", Kind.INTEGER, False, 0, 6),
        Field("t", Kind.TEXT, values=("x", "y", "z"), vocabulary=("x", "y")),
    )
    assert schema.classes == (0, 1)


def test_a_text_that_came_once_has_no_code_of_its_own() -> None:
    """A note in each row would have one in training, and none in any request. What the checks list is known anyway."""
    frame = FRAME.with_columns(note=pl.Series(["thanks", "thanks", "red"]), again=pl.Series(["a", None, None]))
    checks = pa.DataFrameSchema({"t": CHECKS.columns["t"]})
    schema = schema_of(frame, ["t", "note", "again"], Task.BINARY, "target", checks)
    assert [field.vocabulary for field in schema.fields] == [("x", "y"), ("thanks",), ()]


def test_each_broken_rule_is_a_line_with_its_rows() -> None:
    check(CHECKS, FRAME.with_columns(n=pl.lit(1, pl.Int64)))
    bad = FRAME.with_columns(pl.Series("t", ["q", "x", None]))
    with pytest.raises(CheckFailed) as caught:
        check(CHECKS, bad)
    lines = "\n".join(caught.value.failures)
    assert "n: less_than_or_equal_to(6): 1 row: row 3 (9)" in lines
    assert "t: isin(['x', 'y', 'z']): 1 row: row 1 ('q')" in lines
    assert "t: not_nullable: 1 row: row 3 (None)" in lines
    assert len(caught.value.failures) == 3
