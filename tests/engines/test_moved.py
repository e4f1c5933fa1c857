"""Groups of rows that lose alike, and why the mean loss moved."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.domain.event import Event
from homeostat.domain.gate import Verdict
from homeostat.domain.monitor import Reading
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.engines.groups import Condition, Group, groups, placed
from homeostat.engines.moved import Sample, causes, decompose, measured

FIELDS = (
    Field("country", Kind.TEXT, nullable=True),
    Field("amount", Kind.NUMBER, nullable=True),
    Field("x", Kind.NUMBER),
)
SCHEMA = Schema(FIELDS, Task.BINARY, "y", (0, 1))


def frame(n: int, seed: int, large: float = 0.5) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    amount = np.where(rng.random(n) < large, 10 + rng.random(n), rng.random(n))
    return pl.DataFrame(
        {
            "country": pl.Series(rng.choice(["de", "fr", "pl", None], n).tolist(), dtype=pl.String),
            "amount": [None if gap else value for gap, value in zip(rng.random(n) < 0.05, amount, strict=True)],
            "x": rng.standard_normal(n),
        }
    )


def noise(n: int, seed: int) -> np.ndarray:
    return 0.1 + 0.05 * np.random.default_rng(seed).random(n)


def bad(rows: pl.DataFrame) -> np.ndarray:
    return (
        rows.select((pl.col("country").is_in(["de", "pl"]) & (pl.col("amount") > 5)).fill_null(False))
        .to_series()
        .to_numpy()
    )


def test_groups_are_found_and_read_as_conditions() -> None:
    rows = frame(4_000, 1)
    found = groups(FIELDS, rows, noise(4_000, 2) + 0.4 * bad(rows))
    worst = max(found, key=lambda group: (noise(4_000, 2) + 0.4 * bad(rows))[group.holds(rows)].mean())
    inside = worst.holds(rows)
    assert (inside == bad(rows)).mean() > 0.99
    assert "country is de, pl" in str(worst)
    assert "amount from 10" in str(worst)
    assert "x" not in worst.fields


def test_nothing_is_found_in_noise() -> None:
    assert sum(len(groups(FIELDS, frame(400, seed), noise(400, -seed % 97))) > 1 for seed in range(40)) <= 6


@given(st.integers(0, 1_000))
def test_groups_share_out_every_row(seed: int) -> None:
    rows = frame(300, seed)
    losses = noise(300, seed) + 0.3 * bad(rows) + 0.2 * rows["amount"].is_null().to_numpy()
    found = groups(FIELDS, rows, losses)
    assert (sum(group.holds(rows).astype(int) for group in found) == 1).all()


MISSING, NOT_ONE = Condition("a", values=(), null=True), Condition("a", values=("1.0",), other=True)


@pytest.mark.parametrize(
    ("condition", "words", "holds"),
    [
        (Condition("a", low=2.0, null=True), "a from 2.00 on or missing", [False, True, True]),
        (Condition("a", high=2.0), "a below 2.00", [True, False, False]),
        (Condition("a"), "a is there", [True, True, False]),
        (MISSING, "a is missing", [False, False, True]),
        (NOT_ONE, "a is not 1.0", [False, True, False]),
        (Condition("a", values=("1.0", *"bcdefg")), "a is 1.0, b, c, d, e and 2 more", [True, False, False]),
        (Condition("a", low=0.0, null=True) & Condition("a", high=2.0), "a from 0 to below 2.00", [True, False, False]),
        (Condition("a", low=2.0, null=True) & Condition("a"), "a from 2.00 on", [False, True, False]),
        (Condition("a", low=2.0, null=True) & MISSING, "a is missing", [False, False, True]),
        (Condition("a", values=("1.0", "2.0")) & NOT_ONE, "a is 2.0", [False, True, False]),
    ],
)  # fmt: skip
def test_conditions(condition: Condition, words: str, holds: list[bool]) -> None:
    assert str(condition) == words
    assert condition.holds(pl.Series("a", [1.0, 2.0, None])).tolist() == holds


def sample(rows: pl.DataFrame, losses: np.ndarray) -> Sample:
    return Sample(rows, losses, [f"p{i}" for i in range(len(rows))])


def test_parts_add_up_by_the_identity() -> None:
    """60 rows in two segments before, 40 in the window: worked by hand."""
    old = pl.DataFrame({"amount": [0.0] * 30 + [10.0] * 30})
    new = pl.DataFrame({"amount": [0.0] * 10 + [10.0] * 30})
    parts = measured(
        [Group((Condition("amount", high=5.0),)), Group((Condition("amount", low=5.0),))],
        sample(old, np.r_[np.full(30, 0.1), np.full(30, 0.3)]),
        sample(new, np.r_[np.full(10, 0.1), np.full(29, 0.5), 0.9]),
    )
    large, small = parts
    assert (large.n, large.share_before, large.share, large.example) == (30, 0.5, 0.75, "p39")
    assert large.mix == pytest.approx(0.25 * 0.1)
    assert large.within == pytest.approx(0.75 * (0.5 + 0.4 / 30 - 0.3))
    assert (small.mix, small.within) == (pytest.approx(0.25 * 0.1), pytest.approx(0))
    assert large.total + small.total == pytest.approx((1 + 29 * 0.5 + 0.9) / 40 - 0.2)


def test_a_concept_that_changed_in_one_place_is_told_from_a_changed_mix() -> None:
    before, after = frame(3_000, 3), frame(1_500, 4)
    within = decompose(SCHEMA, sample(before, noise(3_000, 5)), sample(after, noise(1_500, 6) + 0.4 * bad(after)))
    assert within[0].within > 0.05
    assert abs(within[0].mix) < 0.01
    assert {"country", "amount"} == {*within[0].fields}
    more = frame(1_500, 7, large=0.9)
    mixed = decompose(
        SCHEMA, sample(before, noise(3_000, 5) + 0.4 * bad(before)), sample(more, noise(1_500, 6) + 0.4 * bad(more))
    )
    assert max(part.mix for part in mixed) > 0.02
    assert all(abs(part.within) < 0.01 for part in mixed)


def test_a_place_where_the_loss_turned_round_is_found() -> None:
    """The pooled loss is the same everywhere: only the two samples apart show it."""
    before, after = frame(3_000, 8), frame(3_000, 9)
    parts = decompose(
        SCHEMA, sample(before, noise(3_000, 1) + 0.3 * bad(before)), sample(after, noise(3_000, 2) + 0.3 * ~bad(after))
    )
    assert {"country", "amount"} <= {field for part in parts for field in part.fields}
    assert min(part.within for part in parts) < -0.03
    assert max(part.within for part in parts) > 0.03


def test_causes_are_ranked_by_what_they_account_for() -> None:
    before, after = frame(3_000, 3), frame(1_500, 4)
    parts = decompose(SCHEMA, sample(before, noise(3_000, 5)), sample(after, noise(1_500, 6) + 0.4 * bad(after)))
    drifted = [
        Reading("amount", "distribution", Verdict.HARM, 0.2, 1e-9, "amount: moved"),
        Reading("x", "distribution", Verdict.HARM, 0.9, 1e-9, "x: moved"),
        Reading("country", "categories", Verdict.OK, 0.9, 0.4, "country: as before"),
    ]
    changes = [Event(day * 86_400_000, "m", "release.promoted", str(day), "", f"R{day} promoted") for day in (1, 3)]
    found = causes(parts, drifted, {"amount": 0.05, "x": 0.0001, "country": 0.3}, changes)
    assert [(one.kind, one.subject) for one in found[1:]] == [
        ("drift", "amount"),
        ("drift", "x"),
        ("change", "release.promoted"),
        ("change", "release.promoted"),
    ]
    assert (found[0].kind, found[0].subject, found[0].example) == ("within", parts[0].segment, parts[0].example)
    assert "; amount drifted" in found[0].text
    assert "R3" in found[3].text


def test_too_few_rows_say_nothing() -> None:
    few, many = frame(39, 1), frame(500, 2)
    assert decompose(SCHEMA, sample(many, noise(500, 1)), sample(few, noise(39, 2) + 0.5)) == ()
    assert placed([], few).tolist() == [0] * 39
