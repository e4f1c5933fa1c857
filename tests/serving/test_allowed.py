"""What a schema allows: a glance at many rows says what a look at each says."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.engines.transform import narrow
from homeostat.serving.limits import Limits

SCHEMA = Schema(
    (
        Field("open", Kind.NUMBER),
        Field("low", Kind.NUMBER, low=-1.5),
        Field("both", Kind.NUMBER, low=0.0, high=1e38),
        Field("text", Kind.TEXT, values=("a", "b"), vocabulary=("a", "b")),
    ),
    Task.REGRESSION,
    "y",
)
NUMBERS = st.sampled_from([-2.0, -1.5, 0.0, 1.0, 1e38, 1.1e38, 3.5e38, -3.5e38, float("inf"), float("nan")])
ROWS = st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, st.sampled_from(["a", "b", "a", "b", None, "c"])), min_size=1)


@given(ROWS)
def test_a_glance_at_all_rows_says_what_a_look_at_each_says(rows: list[tuple[float, float, float, str | None]]) -> None:
    limits, texts = Limits(SCHEMA), [row[3] for row in rows]
    codes = [*np.array([row[:3] for row in rows]).T, np.array([float(text != "a") for text in texts])]
    exact = np.array(codes).T
    faults = limits.faults({"text": texts}, exact, narrow(exact))
    assert limits.kept({"text": list(set(texts))}, codes) == (not faults)
