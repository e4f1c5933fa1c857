from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.errors import Corrupt
from homeostat.domain.gate import Verdict
from homeostat.domain.monitor import Reading
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.domain.units import DAY_MS
from homeostat.engines.drift import TESTS, drift
from homeostat.engines.drift.calibrate import Worth, wobble
from homeostat.engines.drift.categorical import p_exact
from homeostat.engines.drift.counts import NumberLayout, Numbers
from homeostat.engines.drift.numeric import distance
from homeostat.engines.drift.profile import PREDICTION, Profile, Reference, profile, reference
from homeostat.engines.drift.spans import Past

SCHEMA = Schema(
    (
        Field("amount", Kind.NUMBER, nullable=True),
        Field("hour", Kind.INTEGER),
        Field("country", Kind.TEXT),
        Field("repeat", Kind.BOOLEAN),
        Field("note", Kind.TEXT),
    ),
    Task.BINARY,
    "fraud",
    (0, 1),
)
numbers = st.lists(st.floats(allow_nan=True, width=64) | st.none(), max_size=60)


ENGLISH = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "that",
    "was",
    "his",
    "he",
    "it",
    "with",
    "is",
    "for",
    "as",
    "had",
    "you",
    "not",
    "be",
    "her",
    "on",
    "at",
    "by",
    "which",
    "have",
    "or",
    "from",
    "this",
]


def sentences(rng: np.random.Generator, rows: int, words: list[str]) -> list[str]:
    return [" ".join(chosen) for chosen in rng.choice(words, (rows, 9)).tolist()]


def days(n: int, seed: int, a_day: int = 240) -> tuple[pl.DataFrame, np.ndarray]:
    """`n` whole days, each hour of a day equally often."""
    rng = np.random.default_rng(seed)
    rows = n * a_day
    at = np.arange(rows) * (DAY_MS // a_day)
    frame = pl.DataFrame(
        {
            "amount": rng.lognormal(size=rows),
            "hour": at // (DAY_MS // 24) % 24,
            "country": rng.choice(["at", "be", "ch"], rows, p=[0.6, 0.3, 0.1]),
            "repeat": rng.random(rows) < 0.5,
            "note": sentences(rng, rows, ENGLISH),
            EVENT_MS: at,
        }
    )
    score = rng.beta(1, 9, rows)
    return frame, np.column_stack([1 - score, score])


@pytest.fixture(scope="module")
def ordinary() -> Reference:
    return reference(SCHEMA, *days(30, 1))


def alarms(readings: tuple[Reading, ...]) -> set[tuple[str, str]]:
    return {(r.subject, r.test) for r in readings if r.verdict is Verdict.HARM}


def test_an_ordinary_day_raises_no_alarm_and_every_column_is_read(ordinary: Reference) -> None:
    readings = drift(ordinary, profile(ordinary, *days(1, 2)), 0.01)
    assert {r.subject for r in readings} == {*SCHEMA.names, PREDICTION}
    assert {r.test for r in readings} == set(TESTS)
    assert not alarms(readings)


@pytest.mark.parametrize(
    ("change", "alarm"),
    [
        (pl.col("amount") * 3, ("amount", "distribution")),
        (pl.when(pl.col("hour") % 5 > 0).then("amount").alias("amount"), ("amount", "missing")),
        ((pl.col("amount") > 1).replace_strict({True: "at", False: "ch"}).alias("country"), ("country", "categories")),
        (pl.when(pl.col("hour") % 5 > 0).then("country").otherwise(pl.lit("zz")), ("country", "new values")),
    ],
)
def test_a_broken_column_is_the_one_that_is_named(ordinary: Reference, change: pl.Expr, alarm: tuple[str, str]) -> None:
    frame, output = days(1, 3)
    readings = drift(ordinary, profile(ordinary, frame.with_columns(change.alias(alarm[0])), output), 0.01)
    assert alarm in alarms(readings)
    assert {subject for subject, _ in alarms(readings)} == {alarm[0]}


def test_the_reason_says_what_moved_and_where_to(ordinary: Reference) -> None:
    frame, output = days(1, 3)
    readings = drift(ordinary, profile(ordinary, frame.with_columns(pl.col("amount") * 3), output), 0.01)
    found = next(r for r in readings if r.verdict is Verdict.HARM)
    assert found.reason.startswith("amount: its distribution moved by D = ")
    assert "towards higher values" in found.reason


def test_a_column_that_never_stays_is_no_news() -> None:
    """A feature that holds one value a day (a date, a weekday) looks different in each window; ordinary life does."""
    frame, output = days(30, 4)
    dated = frame.with_columns(amount=(pl.col(EVENT_MS) // DAY_MS).cast(pl.Float64))
    weekly = frame.with_columns(amount=(pl.col(EVENT_MS) // DAY_MS % 7).cast(pl.Float64))
    for known in (dated, weekly):
        own = reference(SCHEMA, known, output)
        day = known.filter(pl.col(EVENT_MS) // DAY_MS == 29)
        assert ("amount", "distribution") not in alarms(
            drift(own, profile(own, day, output[-240:]), 0.01, DAY_MS, 29 * DAY_MS)
        )


def test_a_window_without_values_is_unknown(ordinary: Reference) -> None:
    frame, output = days(1, 5)
    readings = drift(ordinary, profile(ordinary, frame.clear(), output[:0]), 0.01)
    assert {r.verdict for r in readings} == {Verdict.UNKNOWN}


def test_profiles_add_up_and_a_reference_survives_its_bytes(ordinary: Reference) -> None:
    frame, output = days(2, 6)
    parts = [profile(ordinary, frame[i : i + 160], output[i : i + 160]) for i in (0, 160, 320)]
    whole = profile(ordinary, frame, output)
    assert same(parts[0] + parts[1] + parts[2], whole)
    stored = ordinary.to_bytes()
    again = Reference.from_bytes(stored)
    assert again.to_bytes() == stored
    assert drift(again, whole, 0.01) == drift(ordinary, whole, 0.01)
    with pytest.raises(Corrupt, match="reference profile"):
        Reference.from_bytes(stored[:-9])


def same(one: Profile, other: Profile) -> bool:
    return one.rows == other.rows and all(repr(one.columns[k]) == repr(v) for k, v in other.columns.items())


@given(numbers, st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_cells_keep_the_order_and_count_each_value_once(
    values: list[float | None], center: float, scale: float
) -> None:
    layout = NumberLayout(center, scale)
    counted = layout.count(pl.Series(values, dtype=pl.Float64))
    known = sorted(v for v in values if v is not None and not np.isnan(v))
    assert counted.missing == len(values) - len(known)
    cells = [int(layout.count(pl.Series([v])).cells[0]) for v in known]
    assert cells == sorted(cells)
    assert np.repeat(counted.cells, counted.counts).tolist() == cells


def test_counting_many_rows_equals_counting_few() -> None:
    drawn = np.random.default_rng(0).standard_cauchy(200_000)
    drawn[:4] = np.nan, np.inf, -np.inf, 0.0
    values, layout = pl.Series(drawn), NumberLayout(0.0, 2.0)
    whole, parts = layout.count(values), np.split(np.arange(200_000), 200)
    pieces = [layout.count(values.gather(rows)) for rows in parts]
    assert repr(Numbers.total(pieces)) == repr(whole)
    assert repr(layout.count_each(values, [np.arange(200_000), *parts])) == repr([whole, *pieces])


def test_the_distance_from_cells_is_that_of_the_rows() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal(20_000), rng.standard_normal(20_000) * 1.2 + 0.1
    layout = NumberLayout(0.0, 1.35)
    every = np.concatenate([one, other])
    exact = np.abs(
        np.searchsorted(np.sort(one), every, "right") - np.searchsorted(np.sort(other), every, "right")
    ).max()
    assert distance(layout.count(pl.Series(one)), layout.count(pl.Series(other))) == pytest.approx(
        exact / 20_000, abs=0.002
    )


@pytest.mark.parametrize(
    ("table", "p"),
    [
        ((3, 10, 0, 10), 0.10526315789473684),
        ((0, 10, 3, 10), 2 * 0.10526315789473684),
        ((0, 10, 0, 10), 1.0),
        ((5, 5, 0, 5), 1 / 252),
        ((0, 5, 5, 5), 2 / 252),
    ],
)
def test_the_exact_test_is_fishers_and_a_rise_counts_four_times_as_much(
    table: tuple[float, float, float, float], p: float
) -> None:
    assert p_exact(*table)[0] == pytest.approx(p)


@pytest.mark.parametrize("count", [19_000, 19_800, 20_300, 20_999])
def test_of_a_million_rows_only_counts_that_can_happen_are_summed(count: int) -> None:
    """Beside all of them, 9 million to compare with."""
    law = hypergeom(10_000_000, 180_000 + count, 1_000_000)
    low, high = law.cdf(count), law.sf(count - 1)
    fall = law.cdf(law.ppf(high / 4) - 1)  # the surest falls that are no surer than the rise, a fall weighing a quarter
    expected = high + fall if count > law.mean() else low + law.sf(law.isf(4 * low))
    p, reached = p_exact(count, 1_000_000, 180_000, 9_000_000)
    assert p == pytest.approx(expected, rel=1e-5)
    assert p in reached


def test_many_cells_add_up_as_few_do() -> None:
    rng, layout = np.random.default_rng(2), NumberLayout(0.0, 1.35)
    parts = [layout.count(pl.Series(rng.standard_normal(3_000))) for _ in range(4)]
    few = Numbers.total([Numbers.total(parts[:2]), Numbers.total(parts[2:])])
    assert sum(len(one.cells) for one in parts) > 4_096 > max(len(one.cells) for one in parts)
    many = Numbers.total(parts)
    assert many.present == 12_000
    assert np.array_equal(many.cells, few.cells)
    assert np.array_equal(many.counts, few.counts)


@given(st.integers(1, 10**7), st.integers(1, 10**7), st.floats(0, 10), st.integers(1, 500))
def test_rows_are_never_worth_more_than_themselves(n: int, others: int, t: float, windows: int) -> None:
    size = Worth(n, others, t, windows)
    assert 0 < size.window <= n
    assert size.both <= min(size.window, size.reference)


@settings(max_examples=20)
@given(st.integers(0, 1_000))
def test_wobble_is_about_zero_for_dice_and_the_distance_for_shares_that_differ(seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert wobble(rng.multinomial(500, np.full(20, 0.05), size=30)) < 0.02  # chance alone, not taken off: .038
    assert wobble(np.array([[100, 0], [0, 100]] * 10)) > 0.9
    assert wobble(np.array([[7, 3]])) == 0


def test_requests_that_break_a_rule_are_news_until_they_are_ordinary(ordinary: Reference) -> None:
    """One caller in twenty sends an amount that is too high; before, one in a thousand was no news."""

    def window(refused: dict[str, int], seed: int = 7) -> Profile:
        return profile(ordinary, *days(1, seed), refused)

    calm = [Past(window({"json": 1} if day % 4 == 0 else {}, 20 + day)) for day in range(15)]
    now = drift(ordinary, window({"amount: high": 12, "json": 1}), 0.01, past=calm)
    assert alarms(now) == {("amount", "refused")}
    (found,) = (one for one in now if one.verdict is Verdict.HARM)
    assert found.reason == "amount: 4.7% of requests are refused for the rule 'high', 0.0% before"
    used_to = [replace(one, profile=replace(one.profile, refused={"amount: high": 12})) for one in calm]
    assert not alarms(drift(ordinary, window({"amount: high": 12}), 0.01, past=used_to))
    told = [replace(one, alarmed=frozenset({"amount"})) for one in used_to]
    assert alarms(drift(ordinary, window({"amount: high": 12}), 0.01, past=told)) == {("amount", "refused")}
    stored = window({"amount: high": 2})
    assert Profile.from_bytes((stored + stored).to_bytes()).refused == {"amount: high": 4}


@pytest.mark.parametrize("how_far", [0.0, 4.0])
def test_a_shift_is_found_though_days_wander_as_far_as_their_hours(how_far: float) -> None:
    rng = np.random.default_rng(3)
    frame, output = days(120, 1, 48)
    number = frame[EVENT_MS].to_numpy() // DAY_MS
    wandering = rng.normal(size=len(frame)) + rng.normal(size=120)[number] * 0.7
    known = reference(SCHEMA, frame.with_columns(amount=wandering), output)
    today, answers = days(1, 2, 48)
    moved = rng.normal(size=48) + how_far * 1.2
    found = drift(known, profile(known, today.with_columns(amount=pl.Series(moved)), answers), 0.01)
    assert alarms(found) == ({("amount", "level")} if how_far else set())
