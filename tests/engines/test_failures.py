"""Where a model fails and what would help; how long labels take; which rows are worth a label."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.domain.failures import Help
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.engines import metrics
from homeostat.engines.declared import LEAST as LEAST_SEGMENT
from homeostat.engines.declared import MOST, by_segment
from homeostat.engines.delay import LEAST, law
from homeostat.engines.failures import Known, Labelled, failures
from homeostat.engines.groups import halves
from homeostat.engines.wanted import apart, distance, unsure, wanted

FIELDS = (Field("country", Kind.TEXT, nullable=True), Field("amount", Kind.NUMBER), Field("x", Kind.NUMBER))
SCHEMA = Schema(FIELDS, Task.BINARY, "y", (0, 1))


def rows(n: int, seed: int, wrong: float = 0.45, large: float = 0.3) -> Labelled:
    """Answers that are wrong in a tenth of cases, and in `wrong` of those with a large amount from Poland."""
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {
            "country": pl.Series(rng.choice(["de", "fr", "pl"], n).tolist()),
            "amount": np.where(rng.random(n) < large, 10 + rng.random(n), rng.random(n)),
            "x": rng.standard_normal(n),
        }
    )
    there = frame.select((pl.col("country") == "pl") & (pl.col("amount") > 5)).to_series().to_numpy()
    y = rng.integers(2, size=n).astype(np.float64)
    score = np.where((rng.random(n) < np.where(there, wrong, 0.1)) != (y == 1), 0.9, 0.1)
    output = np.column_stack([1 - score, score])
    return Labelled(frame, y, output, metrics.losses(Task.BINARY, y, output, 1.0), [f"p{i}" for i in range(n)])


def known(learned: pl.DataFrame | None, wrong: float = 0.45) -> Known:
    holdout = rows(2_000, 77, wrong)
    return Known(learned, holdout.frame, holdout.losses)


def test_a_failure_mode_is_named_measured_and_answered() -> None:
    answers = rows(4_000, 1)
    found = failures(SCHEMA, "accuracy", (), answers, known(rows(4_000, 2).frame))
    (mode,) = found.modes
    assert set(mode.fields) == {"country", "amount"}
    assert "country is pl" in mode.segment
    assert mode.inside.value == pytest.approx(0.55, abs=0.07)
    assert mode.outside.value == pytest.approx(0.9, abs=0.02)
    assert mode.impact == pytest.approx(mode.n * mode.excess)
    assert mode.low < 0.35 * 0.8 < mode.high
    assert mode.share == pytest.approx(0.1, abs=0.02)
    assert mode.help is Help.INPUT
    worst = [answers.losses[int(one[1:])] for one in mode.examples]
    assert (len(worst), min(worst)) == (5, pytest.approx(0.81))


def test_what_is_bad_only_where_it_was_found_is_not_told() -> None:
    bad, calm, half = rows(4_000, 1), rows(4_000, 1, wrong=0.1), halves(4_000)
    mixed = replace(calm, losses=np.where(half, bad.losses, calm.losses))
    found = failures(SCHEMA, "accuracy", (), mixed, known(None))
    assert found.looked_at > 0
    assert found.modes == ()


def test_what_would_help() -> None:
    few = rows(4_000, 2, large=0.01).frame
    assert failures(SCHEMA, "accuracy", (), rows(4_000, 1), known(few)).modes[0].help is Help.ROWS
    changed = known(rows(4_000, 2).frame, wrong=0.1)
    assert failures(SCHEMA, "accuracy", (), rows(4_000, 1), changed).modes[0].help is Help.NEWER
    assert failures(SCHEMA, "accuracy", (), rows(4_000, 1), known(None)).modes[0].help is Help.INPUT


def test_declared_segments_are_measured_and_value_ranks() -> None:
    answers = rows(4_000, 1)
    told = failures(SCHEMA, "accuracy", ("country",), answers, known(None)).modes
    assert [mode.segment for mode in told if mode.declared] == ["country is pl"]
    found = next(mode for mode in told if not mode.declared)
    here = (answers.frame["country"] == "pl").to_numpy()
    inside = here & (answers.frame["amount"] > 5).to_numpy()
    dear = np.where(inside, -100.0, np.where(here, 50.0, 0.0))
    worth = failures(SCHEMA, "accuracy", ("country",), replace(answers, values=dear), known(None))
    assert (worth.unit, worth.modes[0].segment) == ("value", found.segment)
    part = ~halves(4_000)
    lost = dear[part & ~inside].mean() - dear[part & inside].mean()
    assert worth.modes[0].impact == pytest.approx(worth.modes[0].n * lost, rel=0.02)


def test_declared_segments_have_their_metric() -> None:
    one = rows(300, 1)
    found = dict(by_segment(SCHEMA, ("country", "hour"), "accuracy", one.frame, one.y, one.output))
    assert [str(group) for group in found] == ["country is de", "country is fr", "country is pl"]
    assert sum(measured.n for measured in found.values()) == 300
    few = one.only(np.arange(300) < 90)
    assert not list(by_segment(SCHEMA, ("country",), "accuracy", few.frame, few.y, few.output))


def test_of_an_id_the_most_frequent_values_are_segments() -> None:
    """Thousands of values would be thousands of looks at all rows, and of places in the false alarms."""
    often = [name for i in range(MOST + 5) for name in [f"m{i:03}"] * (2 * LEAST_SEGMENT - (i > 4))]
    names = pl.Series("country", [*often, *(f"once{i}" for i in range(40_000)), *[None] * 90], strict=False)
    y = np.ones(len(names))
    output = np.column_stack([np.zeros(len(names)), y])
    found = dict(by_segment(SCHEMA, ("country",), "accuracy", names.to_frame(), y, output))
    told = [str(group) for group in found]
    assert len(told) == MOST
    assert told[:6] == ["country is missing", *(f"country is m{i:03}" for i in range(5))]
    one = Labelled(names.to_frame(), y, output, np.zeros(len(names)), [""] * len(names))
    assert failures(SCHEMA, "accuracy", ("country",), one, known(None)).looked_at == MOST


def test_a_model_that_fails_nowhere_in_particular_has_no_mode() -> None:
    found = [failures(SCHEMA, "accuracy", ("country",), rows(1_000, seed, 0.1), known(None)) for seed in range(30)]
    assert sum(bool(one.modes) for one in found) <= 4
    few = failures(SCHEMA, "accuracy", (), rows(99, 1), known(None))
    assert few.fault == "99 answers with a label; 100 are needed"


def test_the_law_of_delays_counts_labels_that_have_not_come_yet() -> None:
    """Exponential delays of mean 10, looked at while most are still waited for: the naive share would be half of it."""
    rng = np.random.default_rng(1)
    made = rng.integers(0, 1_000, 20_000)
    came = made + rng.exponential(100, 20_000)
    found = law(made, np.where(came <= 1_000, came, np.nan), 1_000)
    assert [found.share(age) * found.ever for age in (50, 100, 300)] == pytest.approx(
        [1 - np.exp(-0.5), 1 - np.exp(-1), 1 - np.exp(-3)], abs=0.02
    )
    assert found.age(0.5) == pytest.approx(69, abs=5)
    young = law(made[made > 900], np.where(came <= 1_000, came, np.nan)[made > 900], 1_000)
    assert young.share(50) * young.ever == pytest.approx(1 - np.exp(-0.5), abs=0.05)


def test_labels_that_never_come_are_not_waited_for() -> None:
    made = np.zeros(1_000, np.int64)
    came = np.where(np.arange(1_000) < 600, 24.0, np.nan)
    found = law(made, came, 100)
    assert found.ever == pytest.approx(0.6)
    assert (found.share(23), found.share(24)) == (0.0, pytest.approx(1.0))
    assert found.mature(0, 48, 48) == pytest.approx(0.5)
    assert found.mature(0, 48, 72) == pytest.approx(1.0)
    assert law(made, np.full(1_000, np.nan), 100).share(50) == 0
    assert law(made[: LEAST - 1], came[: LEAST - 1], 100).age(0.5) is None


@given(st.lists(st.tuples(st.integers(0, 50), st.none() | st.integers(0, 60)), min_size=1, max_size=60))
def test_shares_rise_and_stay_shares(pairs: list[tuple[int, int | None]]) -> None:
    made = np.array([one for one, _ in pairs])
    came = np.array([np.nan if delay is None else one + delay for one, delay in pairs])
    found = law(made, np.where(came <= 60, came, np.nan), 60)
    assert list(found.shares) == sorted(found.shares)
    assert all(0 <= share <= 1 + 1e-12 for share in found.shares)


def test_rows_worth_a_label_are_uncertain_disputed_or_new() -> None:
    frame = pl.DataFrame({"country": ["de", "de", "es", None], "amount": [0.5, 0.5, 0.5, 99.0], "x": [0.0] * 4})
    learned = pl.DataFrame({"country": ["de", "fr"] * 20, "amount": np.linspace(0, 1, 40), "x": [0.0] * 40})
    far, most = distance(SCHEMA, frame, learned)
    assert far[2] == pytest.approx(1, abs=0.1)
    assert far[3] == pytest.approx(1 + 3)
    assert far[:2] == pytest.approx([0, 0], abs=0.05)
    assert most[2:] == ["country", "amount"]
    output = np.array([[0.5, 0.5], [0.1, 0.9], [0.0, 1.0], [1.0, 0.0]])
    other = np.array([[np.nan, np.nan], [0.9, 0.1], [0.0, 1.0], [1.0, 0.0]])
    doubt, between = unsure(SCHEMA, output), apart(SCHEMA, output, other, 1.0)
    assert doubt == pytest.approx([1, 0.2, 0, 0])
    assert between == pytest.approx([0, 0.8, 0, 0])
    chosen = wanted(4, doubt, between, far, most)
    assert [(one.row, one.reason) for one in chosen] == [(0, "uncertain"), (1, "disagreeing"), (3, "new"), (2, "new")]
    assert [one.row for one in wanted(2, doubt, between, far, most)] == [0, 1]
