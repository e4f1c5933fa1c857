from __future__ import annotations

import numpy as np
import polars as pl

from homeostat.domain.schema import Schema, Task
from homeostat.engines.answer import Answers, answers, output_of

BINARY = Schema((), Task.BINARY, "y", (False, True))
THREE = Schema((), Task.MULTICLASS, "y", ("a", "b", "c"))
VALUE = Schema((), Task.REGRESSION, "y")
PROBABILITIES = np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]])


def test_the_threshold_is_the_first_score_of_the_second_class() -> None:
    output = np.array([[0.7, 0.3], [0.70001, 0.29999]])
    assert answers(BINARY, 0.3, output) == Answers([0.3, 0.29999], ["True", "False"], [None, None])


def test_the_likeliest_class_and_the_first_of_equals() -> None:
    assert answers(THREE, 0.5, PROBABILITIES) == Answers([0.5, 0.4], ["b", "a"], PROBABILITIES.tolist())


def test_a_value() -> None:
    assert answers(VALUE, 0.5, np.array([[1.5], [-2.0]])) == Answers([1.5, -2.0], [None, None], [None, None])


def test_a_logged_answer_is_an_output_again() -> None:
    frame = pl.DataFrame({"score": [0.25, None], "scores": [[0.2, 0.5, 0.3], None]})
    np.testing.assert_array_equal(output_of(BINARY, frame), [[0.75, 0.25], [np.nan, np.nan]])
    np.testing.assert_array_equal(output_of(THREE, frame), [[0.2, 0.5, 0.3], [np.nan] * 3])
    np.testing.assert_array_equal(output_of(VALUE, frame), [[0.25], [np.nan]])
    assert output_of(THREE, frame.clear()).shape == (0, 3)
