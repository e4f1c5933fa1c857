"""Slow drifts, seasons, and texts of which no two are alike."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.gate import Verdict
from homeostat.domain.monitor import Reading
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.domain.units import DAY_MS, HOUR_MS
from homeostat.engines.drift import drift, seasons
from homeostat.engines.drift.calibrate import wobble
from homeostat.engines.drift.profile import Profile, Reference, profile, reference
from homeostat.engines.drift.reference import Season
from homeostat.engines.drift.spans import Past
from homeostat.engines.drift.texts import Categories, hashes

A_DAY = 240
DAYS = 91


def made(schema: Schema, days: int, columns: dict[str, pl.Series], windows: tuple[int, ...] = (DAY_MS,)) -> Reference:
    at = np.arange(days * A_DAY) * (DAY_MS // A_DAY)
    frame = pl.DataFrame({**columns, EVENT_MS: at})
    return reference(schema, frame, np.zeros((len(frame), 1)), windows)


def test_windows_of_so_many_rows_are_calibrated_by_rows_that_follow_each_other() -> None:
    """Of 120 rows, half a day each, which is a season of its own: what they see is ordinary."""
    hours = pl.Series(np.arange(30 * A_DAY) % A_DAY / 10)
    frame = pl.DataFrame({"x": hours, EVENT_MS: np.arange(30 * A_DAY) * (DAY_MS // A_DAY)})
    plain = made(NUMBER, 30, {"x": hours})
    known = reference(NUMBER, frame, np.zeros((len(frame), 1)), (DAY_MS,), (120,))
    assert set(known.calibrations) - set(plain.calibrations) == {-120, -480}
    assert all(known.calibrations[length] == one for length, one in plain.calibrations.items())
    assert Reference.from_bytes(known.to_bytes()).calibrations == known.calibrations
    assert (known.counted(120), known.counted(119), plain.counted(120)) == (True, False, False)
    assert known.calibration(DAY_MS) == plain.calibration(DAY_MS)
    half = hours.head(120)
    assert not alarms(drift(known, seen(known, {"x": half}), 0.01, -120))
    assert alarms(drift(known, seen(known, {"x": half}), 0.01, DAY_MS))
    with pytest.raises(KeyError):
        plain.calibration(-120)


def seen(known: Reference, columns: dict[str, pl.Series]) -> Profile:
    frame = pl.DataFrame(columns)
    return profile(known, frame, np.zeros((len(frame), 1)))


def alarms(readings: tuple[Reading, ...]) -> list[Reading]:
    return [one for one in readings if one.verdict is Verdict.HARM]


NUMBER = Schema((Field("x", Kind.NUMBER),), Task.REGRESSION, "y")
TEXT = Schema((Field("x", Kind.TEXT, nullable=True),), Task.REGRESSION, "y")


def lived(known: Reference, shifts: list[float], seed: int = 3) -> list[list[Reading]]:
    """The alarms of each day, of days whose mean is moved."""
    rng = np.random.default_rng(seed)
    past: list[Past] = []
    found = []
    for day, shift in enumerate(shifts):
        window = seen(known, {"x": pl.Series(rng.standard_normal(A_DAY) + shift)})
        alarm = alarms(drift(known, window, 0.01, DAY_MS, day * DAY_MS, past[-15:]))
        past.append(Past(window, frozenset(one.subject for one in alarm if one.windows == 1)))
        found.append(alarm)
    return found


@pytest.fixture(scope="module")
def normal() -> Reference:
    return made(NUMBER, DAYS, {"x": pl.Series(np.random.default_rng(1).standard_normal(DAYS * A_DAY))})


def test_what_no_day_shows_alone_is_found_over_many(normal: Reference) -> None:
    found = lived(normal, [0.0] * 16 + [0.12] * 24)
    first = next(day for day, alarm in enumerate(found) if alarm)
    assert 17 <= first < 36
    assert {one.windows for one in found[first]} <= {4, 16}
    assert f"over the last {found[first][0].windows} windows" in found[first][0].reason


def test_a_burst_is_told_while_it_lasts_and_no_longer(normal: Reference) -> None:
    """What a day has said alone is not said again by the merged days."""
    found = lived(normal, [0.0] * 16 + [1.5] * 2 + [0.0] * 14)
    assert [bool(alarm) for alarm in found] == [False] * 16 + [True] * 2 + [False] * 14


def test_the_wobble_of_merged_windows_is_measured_not_guessed() -> None:
    """Days that wander stay apart when they are merged; days that are drawn anew do not."""
    rng = np.random.default_rng(2)
    anew = np.clip(0.5 + 0.1 * rng.standard_normal(96), 0, 1)
    wander = np.repeat(anew[::16], 16)
    for shares, least, most in ((anew, 0.0, 0.02), (wander, 0.03, 0.3)):
        ones = rng.binomial(1_000, shares)
        assert least <= wobble(np.column_stack([ones, 1_000 - ones]), 16) <= most


@pytest.fixture(scope="module")
def daily() -> Reference:
    """A number that follows the hour, watched by the hour."""
    return made(NUMBER, 30, {"x": hourly(30)}, (HOUR_MS,))


def hourly(days: int, seed: int = 4) -> pl.Series:
    hour = np.arange(days * A_DAY) * 24 // A_DAY % 24
    return pl.Series(10 * np.sin(hour / 24 * 2 * np.pi) + np.random.default_rng(seed).standard_normal(days * A_DAY))


def test_a_season_that_comes_round_raises_no_alarm_and_a_value_out_of_season_does(daily: Reference) -> None:
    day, ten = hourly(1, 5), A_DAY // 24
    for hour in range(24):
        window = seen(daily, {"x": day[hour * ten : (hour + 1) * ten]})
        readings = drift(daily, window, 0.01, HOUR_MS, 40 * DAY_MS + hour * HOUR_MS)
        assert not alarms(readings)
        level = next(one for one in readings if (one.subject, one.test) == ("x", "level"))
        assert level.reference.startswith(f"{hour:02}:00 to {hour + 1:02}:00 of ")
        at_night = drift(daily, window, 0.01, HOUR_MS, 40 * DAY_MS + (hour + 12) % 24 * HOUR_MS)
        assert hour % 12 in (0, 11, 1) or alarms(at_night)


def test_a_season_survives_its_bytes_and_is_small(daily: Reference) -> None:
    stored = daily.to_bytes()
    assert Reference.from_bytes(stored).to_bytes() == stored
    assert len(stored) < 100_000
    assert [season.cycle for season in daily.seasons] == ["hour"]


def test_where_nothing_comes_round_no_season_is_kept(normal: Reference) -> None:
    assert normal.seasons == ()


def words(rng: np.random.Generator, rows: int, first: int, count: int) -> pl.Series:
    """Of 20,000 values, as frequent as words are; nothing is said of the frequent ones."""
    shares = 1 / np.arange(1, 20_001)
    values = rng.choice(20_000, rows, p=shares / shares.sum())
    moved = np.where(values > 2_000, first + values % count, values)
    return pl.Series([f"w{value}" for value in moved])


@pytest.fixture(scope="module")
def rare() -> Reference:
    return made(TEXT, DAYS, {"x": words(np.random.default_rng(6), DAYS * A_DAY, 2_000, 18_000)})


def test_a_new_mix_of_rare_values_is_found(rare: Reference) -> None:
    """The share of values without a name is as before; of them, a few have become frequent."""
    rng = np.random.default_rng(7)
    ordinary = [alarms(drift(rare, seen(rare, {"x": words(rng, A_DAY, 2_000, 18_000)}), 0.01)) for _ in range(10)]
    assert not any(ordinary)
    moved = alarms(drift(rare, seen(rare, {"x": words(rng, A_DAY, 90_000, 3)}), 0.01))
    assert [one.test for one in moved] == ["categories"]


def test_a_value_that_is_never_the_same_is_no_news() -> None:
    """Ids: each is new, in the reference as in every window."""
    known = made(TEXT, DAYS, {"x": pl.Series([f"id {i}" for i in range(DAYS * A_DAY)])})
    window = seen(known, {"x": pl.Series([f"id {i}" for i in range(90_000, 90_500)])})
    assert not alarms(drift(known, window, 0.01))


def test_another_language_is_found_where_no_two_texts_are_alike() -> None:
    rng = np.random.default_rng(8)
    english = ["the", "cat", "sat", "on", "that", "mat", "with", "her", "hat", "and", "this"]
    german = ["der", "hund", "lief", "zu", "dem", "baum", "und", "auch", "nicht"]

    def texts(words: list[str], rows: int) -> pl.Series:
        return pl.Series([" ".join(some) for some in rng.choice(words, (rows, 12)).tolist()])

    known = made(TEXT, 30, {"x": texts(english, 30 * A_DAY)})
    assert not alarms(drift(known, seen(known, {"x": texts(english, A_DAY)}), 0.01))
    found = alarms(drift(known, seen(known, {"x": texts(german, A_DAY)}), 0.01))
    assert "wording" in {one.test for one in found}
    again = Reference.from_bytes(known.to_bytes())
    assert again.to_bytes() == known.to_bytes()


def test_memory_of_a_column_is_bounded(rare: Reference) -> None:
    column = rare.profile.columns["x"]
    assert isinstance(column, Categories)
    assert len(column.counts) <= 500 + 64


def test_hashes_are_those_of_yesterday() -> None:
    """A reference that was stored years ago must be met by what is counted today."""
    assert hashes(pl.Series(["", "a", "grün", "a" * 100])).tolist() == HASHES
    assert hashes(pl.Series([], dtype=pl.String)).tolist() == []


HASHES = [0, 15208633714157532122, 3276932609908117079, 1702660888023821881]


@pytest.mark.parametrize(
    ("cycle", "length_ms", "start", "said"),
    [
        ("hour", 6 * HOUR_MS, "2024-03-05T18:00", "18:00 to 24:00 of 9 days"),
        ("weekday", DAY_MS, "2024-03-05", "9 Tuesdays"),
        ("month", 7 * DAY_MS, "2024-02-29", "9 windows in March"),  # by the middle of the window
    ],
)
def test_a_slot_says_what_it_is(cycle: str, length_ms: int, start: str, said: str) -> None:
    at = np.array([np.datetime64(start, "ms").astype(np.int64)])
    (slot,) = seasons.slots(cycle, at, length_ms).tolist()
    season = Season(cycle, length_ms, {}, {slot: 9}, {})
    assert seasons.words(season, slot) == said
    assert next(iter(seasons.cycles(length_ms, 3 * 365 * DAY_MS))) == cycle
    assert "month" not in seasons.cycles(length_ms, 365 * DAY_MS)
