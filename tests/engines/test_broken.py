"""Broken columns, told from drift and from ordinary life."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.quarantine import Fault
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.domain.units import DAY_MS
from homeostat.engines.broken import faults, habits, healthy, lasts, plain, reach_ms

A_DAY, DAYS = 48, 60
SCHEMA = Schema(
    (
        Field("load", Kind.NUMBER),
        Field("mood", Kind.INTEGER),
        Field("country", Kind.TEXT),
        Field("month", Kind.INTEGER),
    ),
    Task.BINARY,
    "y",
    (0, 1),
)
Break = Callable[[pl.Series], pl.Series]


def rows(days: int, first_day: int = 0, seed: int = 1) -> pl.DataFrame:
    """A load that follows the hour, a mood that stays for a while, a country, and a month that turns from 12 to 1."""
    rng, n = np.random.default_rng([seed, first_day]), days * A_DAY
    at = first_day * DAY_MS + np.arange(n) * (DAY_MS // A_DAY)
    return pl.DataFrame(
        {
            "load": 0.5 + 0.3 * np.sin(at / DAY_MS * 2 * np.pi) + rng.normal(0, 0.03, n),
            "mood": np.repeat(rng.integers(0, 5, n // 2), 2),
            "country": rng.choice(["de", "fr", "pl"], n, p=[0.5, 0.3, 0.2]),
            "month": np.where(at // DAY_MS < DAYS, at // DAY_MS // 30 + 11, 1),
            EVENT_MS: at,
        }
    )


HABITS = habits(SCHEMA, rows(DAYS))


def found(broken: pl.DataFrame) -> list[Fault]:
    """In the last of two days; the break is in force from noon of the first on."""
    inputs = pl.DataFrame([plain(broken[one.name], one.kind).alias(one.name) for one in SCHEMA.fields])
    return list(faults(HABITS, inputs, broken[EVENT_MS].to_numpy(), (DAYS + 1) * DAY_MS))


def broken(name: str, change: Break, days: int = 2) -> pl.DataFrame:
    whole = rows(days, DAYS)
    column = whole[name]
    return whole.with_columns(pl.concat([column[: A_DAY // 2], change(column)[A_DAY // 2 :].cast(column.dtype)]))


BREAKS: list[tuple[str, str, Break, str]] = [
    ("load", "stuck", lambda x: pl.Series("load", [x[A_DAY // 2 - 1]] * len(x)), "it has been"),
    ("load", "zero", lambda x: x * 0, "it has been 0 for 72 rows in 1.48 d; at most 1 in 0 ms before"),
    ("load", "unit", lambda x: x * 100, "its values look multiplied by 100"),
    ("load", "unit", lambda x: x / 1_000, "its values look divided by 1000"),
    ("load", "missing", lambda x: pl.Series("load", [None] * len(x), dtype=pl.Float64), "100% of rows have no value"),
    ("load", "default", lambda x: x.zip_with(pl.Series(np.arange(len(x)) % 3 > 0), x * 0 - 1), "33% of rows are -1"),
    ("mood", "stuck", lambda x: pl.Series("mood", [2] * len(x)), "it has been 2"),
    ("country", "renamed", lambda x: x.replace("fr", "FR"), "'fr' is gone (31% of rows before), and 'FR' is new"),
]


@pytest.mark.parametrize(("name", "kind", "change", "words"), BREAKS)
def test_a_break_is_named_and_its_stretch_is_found(name: str, kind: str, change: Break, words: str) -> None:
    noon = DAYS * DAY_MS + DAY_MS // 2
    (fault,) = found(broken(name, change))
    assert (fault.column, fault.kind, fault.until_ms) == (name, kind, None)
    assert fault.words.startswith(words)
    # a row just before may hold the same value by chance, and the first rows of a partial break may be sound
    assert abs(fault.from_ms - noon) <= 8 * DAY_MS // A_DAY


@pytest.mark.parametrize(("name", "change"), [(name, change) for name, _, change, _ in BREAKS])
def test_it_lasts_until_the_column_is_well_again(name: str, change: Break) -> None:
    (fault,) = found(broken(name, change))
    sick, well = broken(name, change, 3)[2 * A_DAY :], rows(1, DAYS + 3)
    column = plain(pl.concat([sick, well])[name], next(one.kind for one in SCHEMA.fields if one.name == name))
    at_ms = pl.concat([sick, well])[EVENT_MS].to_numpy()
    assert lasts(fault, column[:A_DAY], at_ms[:A_DAY]) is None
    until = lasts(fault, column[A_DAY:], at_ms[A_DAY:])
    assert until is not None
    assert (DAYS + 3) * DAY_MS <= until <= (DAYS + 3.5) * DAY_MS


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x,
        lambda x: x + 0.5,  # everything moves: drift
        lambda x: x * 1.5,
        lambda x: x.clip(0.3, 0.7),
    ],
)
def test_ordinary_life_and_drift_are_no_fault(change: Break) -> None:
    """Neither is a month that turns from 12 to 1, a tenth of what it was."""
    assert found(broken("load", change)) == []


def test_a_number_that_grows_without_end_has_no_other_unit() -> None:
    growing = np.arange(62 * A_DAY) * 10.0 + 1_000
    schema = Schema((Field("id", Kind.NUMBER),), Task.BINARY, "y", (0, 1))
    at = np.arange(62 * A_DAY) * (DAY_MS // A_DAY)
    known = habits(schema, pl.DataFrame({"id": growing[: 30 * A_DAY], EVENT_MS: at[: 30 * A_DAY]}))
    assert list(faults(known, pl.DataFrame({"id": growing[-2 * A_DAY :]}), at[-2 * A_DAY :], 61 * DAY_MS)) == []


def test_what_stays_for_long_needs_longer() -> None:
    """Runs of the mood are looked for over four times that, and never over the longest."""
    longest = HABITS["mood"].run_ms
    assert 4 * longest <= reach_ms(HABITS, (DAY_MS, 7 * DAY_MS)) <= 8 * DAY_MS
    assert reach_ms(HABITS, (DAY_MS, DAY_MS)) == 2 * DAY_MS
    assert HABITS["month"].changes < 5


def test_a_run_that_is_too_long_is_within_reach() -> None:
    """A price that stays for up to a day is stuck when it stays for four."""
    price = np.repeat(np.random.default_rng(4).permutation(np.arange(60.0)), A_DAY - 1)
    at = np.arange(len(price) + 6 * A_DAY) * (DAY_MS // A_DAY)
    schema = Schema((Field("price", Kind.NUMBER),), Task.BINARY, "y", (0, 1))
    known = habits(schema, pl.DataFrame({"price": price, EVENT_MS: at[: len(price)]}))
    reach = reach_ms(known, (DAY_MS, 7 * DAY_MS))
    seen = {}
    for day in range(1, 7):
        last = len(price) + day * A_DAY
        first = int(np.searchsorted(at, at[last - 1] - reach, side="right"))
        held = np.where(
            np.arange(first, last) < len(price), price[np.minimum(np.arange(first, last), len(price) - 1)], 7.0
        )
        seen[day] = list(faults(known, pl.DataFrame({"price": held}), at[first:last], int(at[last - A_DAY])))
    assert [bool(found) for found in seen.values()] == [False] * 3 + [True] * 3
    assert {found[0].kind for found in seen.values() if found} == {"stuck"}


def test_only_the_stretch_is_left_out_and_a_mended_one_stays() -> None:
    sick = broken("load", lambda x: x * 0)
    (fault,) = found(sick)
    at_ms = sick[EVENT_MS].to_numpy()
    kept = healthy(sick, [fault], at_ms)
    assert kept.equals(sick[: A_DAY // 2])
    assert healthy(sick, [fault], at_ms, sure=False).equals(kept)
    mended = rows(2, DAYS)
    assert healthy(mended, [fault], at_ms, sure=False).equals(mended)
    assert healthy(mended, [fault], at_ms).equals(mended[: A_DAY // 2])
