"""The prediction that an alert shows."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.domain.units import MINUTE_MS
from homeostat.engines.drift.example import example
from homeostat.engines.drift.profile import PREDICTION, Reference, answered, profile, reference

SCHEMA = Schema(
    (
        Field("amount", Kind.NUMBER, True),
        Field("country", Kind.TEXT),
        Field("shop", Kind.TEXT),
        Field("note", Kind.TEXT),
    ),
    Task.MULTICLASS,
    "level",
    ("low", "mid", "high"),
)
ROWS, CHANGED = 3_000, 1_200
"""Of the window's rows the first are changed: its last prediction, and most of the others, show nothing."""


def rows(seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "amount": rng.lognormal(size=ROWS),
            "country": rng.choice(["at", "be", "ch"], ROWS, p=[0.6, 0.3, 0.1]).tolist(),
            "shop": [f"s{shop}" for shop in rng.integers(0, 900, ROWS)],
            "note": [f"order {number} is late" for number in rng.integers(0, 1_000_000, ROWS)],
            EVENT_MS: np.arange(ROWS) * MINUTE_MS,
        }
    )


def output(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet([6, 3, 1], ROWS)


@pytest.fixture(scope="module")
def known() -> Reference:
    return reference(SCHEMA, rows(1), output(1))


def shown(known: Reference, test: str, subject: str, column: pl.Series) -> int | None:
    return example(test, known.layouts[subject], known.profile.columns[subject], column)


@pytest.mark.parametrize(
    ("test", "subject", "change"),
    [
        ("distribution", "amount", pl.col("amount") + 30),
        ("shape", "amount", pl.lit(1.0)),
        ("level", "amount", pl.col("amount") / 50),
        ("missing", "amount", pl.lit(None, pl.Float64)),
        ("missing", "country", pl.lit(None, pl.String)),
        ("categories", "country", pl.lit("ch")),
        ("new values", "country", pl.lit("zz")),
        ("new values", "shop", pl.lit("the new one")),
        ("categories", "note", pl.lit("order 1 is late")),
        ("length", "note", pl.col("note") + " and another sentence after it"),
        ("wording", "note", pl.lit("zzzzzzzzzzzzzzzzzzzz")),
    ],
)
def test_a_row_that_shows_what_moved(known: Reference, test: str, subject: str, change: pl.Expr) -> None:
    new = pl.when(pl.col("index") < CHANGED).then(change).otherwise(subject)
    moved = rows(2).with_row_index().select(new).to_series()
    place = shown(known, test, subject, moved)
    assert place is not None
    assert moved[place] in moved[:CHANGED].to_list()


def test_what_became_rarer_is_shown_by_what_is_there_instead(known: Reference) -> None:
    gaps = rows(3).with_columns(amount=pl.when(pl.col("amount") > 1).then("amount"))
    half_empty = reference(SCHEMA, gaps, output(1))
    place = shown(half_empty, "missing", "amount", rows(2)["amount"])
    assert place is not None
    assert shown(known, "distribution", "amount", pl.Series([None, None], dtype=pl.Float64)) is None


def test_predictions_are_told_by_the_names_of_their_classes(known: Reference) -> None:
    """A number would be the place in a list that nobody sees."""
    assert set(known.profile.columns[PREDICTION].counts) == {"low", "mid", "high"}
    window = profile(known, rows(2), output(2), classes=SCHEMA.classes)
    assert set(window.columns[PREDICTION].counts) == {"low", "mid", "high"}
    high = np.vstack([np.tile([0.0, 0.0, 1.0], (CHANGED, 1)), output(2)[CHANGED:]])
    place = shown(known, "categories", PREDICTION, answered(high, SCHEMA.classes))
    assert place is not None
    assert high[place].argmax() == 2
