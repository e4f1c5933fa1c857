from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.engines.transform import coded, codes, matrix, narrow, numbers, slices

NAN = float("nan")
SCHEMA = Schema(
    (
        Field("amount", Kind.NUMBER, nullable=True),
        Field("items", Kind.INTEGER, nullable=True),
        Field("member", Kind.BOOLEAN, nullable=True),
        Field("country", Kind.TEXT, nullable=True, vocabulary=("de", "fr")),
        Field("note", Kind.TEXT, nullable=True),
    ),
    Task.REGRESSION,
    "y",
)


def test_what_the_model_sees() -> None:
    columns = {
        "note": ["", None],
        "country": ["fr", "xx"],
        "amount": [1.5, None],
        "items": [None, 3],
        "member": [True, False],
    }
    x = matrix(SCHEMA, columns)
    assert x.dtype == np.float32
    assert x.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(x, [[1.5, NAN, 1, 1, -1], [NAN, 3, 0, -1, NAN]])
    assert np.isinf(matrix(SCHEMA, {**columns, "amount": [1e39, -1e39]})[:, 0]).all()


def test_no_rows_and_no_such_column() -> None:
    assert matrix(SCHEMA, {name: [] for name in SCHEMA.names}).shape == (0, 5)
    with pytest.raises(KeyError, match="amount"):
        matrix(SCHEMA, {})


ROWS = st.lists(
    st.tuples(
        st.none() | st.floats(allow_nan=False),
        st.none() | st.integers(-(2**53), 2**53),
        st.none() | st.booleans(),
        st.none() | st.sampled_from(["de", "fr", "xx", ""]),
        st.none() | st.text(max_size=3),
    )
)


@given(ROWS)
def test_training_and_serving_see_the_same(rows: list[tuple[float, int, bool, str, str]]) -> None:
    columns = {name: [row[i] for row in rows] for i, name in enumerate(SCHEMA.names)}
    kinds = (pl.Float64, pl.Int64, pl.Boolean, pl.String, pl.String)
    frame = pl.DataFrame(
        {name: pl.Series(columns[name], dtype=kind) for name, kind in zip(columns, kinds, strict=True)}
    )
    served = matrix(SCHEMA, columns)
    assert served.tobytes() == matrix(SCHEMA, frame.to_dict()).tobytes()
    finite = [np.clip(column, -1e38, 1e38) for column in coded(SCHEMA, frame.to_dict())]
    few = [x.copy() for x in slices(finite, 2)]
    assert [len(x) for x in few] == [2] * (len(rows) // 2) + [1] * (len(rows) % 2)
    assert b"".join(x.tobytes() for x in few) == narrow(np.array(finite).T).tobytes()
    for i in range(len(rows)):
        assert served[i].tobytes() == matrix(SCHEMA, {name: [column[i]] for name, column in columns.items()}).tobytes()


def test_columns_of_unlike_length_are_no_rows() -> None:
    fields = tuple(Field(name, Kind.NUMBER) for name in "abc")
    with pytest.raises(ValueError, match="inhomogeneous"):
        matrix(Schema(fields, Task.REGRESSION, "y"), {"a": (1.0, 2.0), "b": (1.0, 2.0, 3.0), "c": (1.0,)})


NUMBERS = Schema(tuple(Field(name, Kind.NUMBER, nullable=True) for name in "abc"), Task.REGRESSION, "y")


@given(st.lists(st.tuples(*[st.floats(width=32) | st.none()] * 3, st.text() | st.none()), min_size=1, max_size=70))
def test_rows_of_numbers_are_the_columns_that_they_make(rows: list[tuple[float | None, ...]]) -> None:
    seen = numbers(rows, 3)
    if any(None in row[:3] for row in rows):
        assert seen is None
    else:
        assert seen is not None
        np.testing.assert_array_equal(seen, codes(NUMBERS, dict(zip("abc", zip(*rows, strict=True), strict=False))))


@pytest.mark.parametrize("rows", [[(1.0, 2.0, "x")], [(1.0, 2.0)], [(1.0, 2.0, 3.0), (1.0, 2.0)]])
def test_what_is_no_row_of_numbers(rows: list[tuple[float, ...]]) -> None:
    assert numbers(rows, 3) is None
