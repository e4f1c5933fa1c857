"""Words, axes, plots."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.domain.gate import Verdict
from homeostat.domain.units import DAY_MS, HOUR_MS, MINUTE_MS
from homeostat.engines.report import axis, words
from homeostat.engines.report.plot import Limit, Look, Mark, Point, Series, lines
from homeostat.engines.report.small import Bar, Pair, Span, bars, histograms, intervals

SPACE = words.SPACE
JULY_1996 = 836_179_200_000


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.8421, ".842"), (0.5, ".500"), (1.0, "1.00"), (75.93, "75.9"), (0.9996, "1.00"), (9.999, "10.0"),
        (99.96, "100"), (1_184.6, "1,185"), (0.0123, ".0123"), (0.00012345, ".000123"), (1.2e-7, "1.2e-07"),
        (-0.0031, "\N{MINUS SIGN}.00310"), (0.0, "0"), (math.nan, "not measured"), (None, "not measured"),
        (math.inf, "∞"), (2.5e12, "2.5e+12"), (-0.0, "0"),
    ],
)  # fmt: skip
def test_numbers_have_three_significant_digits_and_no_leading_zero(value: float | None, said: str) -> None:
    assert words.number(value) == said


@given(st.floats(1e-4, 1e8))
def test_a_number_reads_back_within_half_a_unit_of_its_third_digit(value: float) -> None:
    assert float(words.number(value).replace(",", "")) == pytest.approx(value, rel=0.00501)


def test_words() -> None:
    assert words.interval(0.842, 0.836, 0.848) == ".842 [.836, .848]"
    assert words.interval(0.842, math.nan, 0.848) == ".842"
    assert words.span(math.nan, 1) == "not measured"
    assert [words.counted(n, "training") for n in (0, 1, 1_185)] == [
        f"0{SPACE}trainings", f"1{SPACE}training", f"1,185{SPACE}trainings",
    ]  # fmt: skip
    sizes = (17, 17 * MINUTE_MS, 90 * MINUTE_MS, 90 * DAY_MS, 365 * DAY_MS, 913 * DAY_MS)
    assert [words.duration(ms).replace(SPACE, " ") for ms in sizes] == [
        "17 ms", "17 min", "1.5 h", "90 d", "1 year", "2.5 years",
    ]  # fmt: skip
    assert words.time(JULY_1996 + HOUR_MS) == "1 Jul 1996 01:00"
    assert words.listed(["a"]) == "a"
    assert words.listed(["a", "b", "c"]) == "a, b and c"
    assert words.metric("roc_auc versus champion") == "ROC AUC versus champion"
    assert [words.short(value) for value in (100, 50, 0.8, 1_000)] == ["100", "50", ".8", "1,000"]
    assert words.percent(0.895).replace(SPACE, " ") == "89.5 %"


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_value_ticks_are_few_and_inside(low: float, span: float) -> None:
    ticks = axis.value_ticks(low, low + span)
    assert 1 <= len(ticks) <= 6
    assert all(low - span * 1e-3 <= tick.at <= low + span * 1.001 for tick in ticks)


def test_value_ticks_are_round() -> None:
    assert [tick.text for tick in axis.value_ticks(0.68, 0.91)] == [".7", ".8", ".9"]
    assert [tick.text for tick in axis.value_ticks(-0.02, 0.08)] == ["0", ".025", ".050", ".075"]
    assert [tick.text for tick in axis.value_ticks(0, 4_000)] == ["0", "1,000", "2,000", "3,000", "4,000"]
    assert [tick.text for tick in axis.log_ticks(0.1, 200)] == [".1", "1", "10", "100"]


@pytest.mark.parametrize(
    ("span", "first"),
    [
        (5 * HOUR_MS, ("00:00", "1 Jul 1996")), (8 * DAY_MS, ("1 Jul", "1996")), (400 * DAY_MS, ("Jul", "1996")),
        (9_000 * DAY_MS, ("Jan", "2000")),
    ],
)  # fmt: skip
def test_time_ticks_suit_the_span(span: int, first: tuple[str, str]) -> None:
    ticks = axis.time_ticks(JULY_1996, JULY_1996 + span)
    assert (ticks[0].text, ticks[0].under) == first
    assert 2 <= len(ticks) <= 10
    years = [tick.under for tick in ticks if tick.under]
    assert len(set(years)) == len(years)


@given(st.lists(st.floats(0, 300), max_size=8))
def test_labels_pushed_apart_never_overlap_and_keep_their_order(wanted: list[float]) -> None:
    placed = axis.pushed_apart(wanted, 17, 0, 300)
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    for above, below in pairwise(order):
        assert placed[below] - placed[above] >= 17 - 1e-6
    assert all(-1e-6 <= y <= 300 + 1e-6 for y in placed)


@given(st.lists(st.tuples(st.floats(0, 500), st.floats(1, 90)), max_size=30))
def test_words_in_one_row_never_overlap(starts: list[tuple[float, float]]) -> None:
    spans = [(left, left + width) for left, width in starts]
    rows = axis.in_rows(spans, 2)
    for row in (0, 1):
        placed = sorted(span for span, where in zip(spans, rows, strict=True) if where == row)
        assert all(one[1] <= other[0] for one, other in pairwise(placed))
    assert not spans or rows[0] == 0


def points(*values: float) -> list[Point]:
    return [Point(JULY_1996 + k * DAY_MS, value, 48, value - 1, value + 1) for k, value in enumerate(values)]


def test_a_gap_breaks_the_line_and_hover_tells_value_and_count() -> None:
    drawn = lines([Series("loop", "champion", points(1, 2, math.nan, 3, 4))])
    assert drawn.count('class="line champion"') == 2
    assert f"loop, 2 Jul 1996 00:00: 2.00 [1.00, 3.00] (48{SPACE}rows)" in drawn
    assert "nan" not in drawn
    assert drawn.count("<circle") == 4


def test_an_estimate_is_dashed_and_called_so() -> None:
    drawn = lines([Series("accuracy", "champion", points(1, 2), dashed=True)])
    assert "line champion estimated" in drawn
    assert "accuracy (estimated)" in drawn


def test_harm_is_named_first_and_a_frequent_event_once() -> None:
    events = [Mark(JULY_1996 + k * DAY_MS // 9, "release", "ok") for k in range(9)]
    drawn = lines([Series("loop", "champion", points(1, 2))], [*events, Mark(JULY_1996, "rollback", "harm", "E = 212")])
    assert drawn.count('class="word ok"') == 1
    assert drawn.count('class="word harm"') == 1
    assert drawn.count("mark ok") == 9
    assert "1 Jul 1996 00:00: E = 212" in drawn


@pytest.mark.parametrize("look", [Look("E", log=True, limits=(Limit(100, "harm at 100"),)), Look("MAE", zero=True)])
def test_one_point_or_none_can_be_drawn(look: Look) -> None:
    assert "hit alone" in lines([Series("one", "candidate", points(0))], (), look)
    assert "hit" not in lines([Series("none", "candidate", [])], (), look)


def test_small_pictures_show_what_they_are_given() -> None:
    span = Span("ROC AUC", Verdict.OK, 0.842, 0.836, 0.848, 1_185, 0.8)
    lost = Span("recall", Verdict.INVALID, None, None, None, 0)
    drawn = intervals([span, lost], "gates")
    assert f"ROC AUC: ok, .842 [.836, .848] (1,185{SPACE}rows)" in drawn
    assert "recall: invalid, not measured" in drawn
    assert 'class="reach ok"' in drawn
    assert "31 trainings" in bars([Bar("loop", 31, "31 trainings"), Bar("none", 0, "0")], "cost")
    long = bars([Bar(f"country is {', '.join('abcdefgh' * 8)}", 3, "3 losses")], "cost")
    assert f'width="{720 - 56 * 7.2 - 12 - 8 * 7.5 - 16:.1f}"' in long  # what the label leaves
    pair = Pair("price", Verdict.HARM, ("low", "high"), (0.5, 0.5), (0.2, 0.8), 4_320, 336)
    titles = histograms([pair]).replace(SPACE, " ")
    assert "price high: reference 50 % of 4,320, window 80 % of 336" in titles
