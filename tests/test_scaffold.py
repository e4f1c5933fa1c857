"""`init`: projects that pass their own tests, errors that leave nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

import homeostat
from homeostat.config import read_policy
from homeostat.domain.errors import CheckFailed, DataError, UsageError
from homeostat.domain.policy import DataPolicy, Every, GatePolicy, Schedule
from homeostat.domain.schema import Kind, Task
from homeostat.domain.units import DAY_MS, HOUR_MS, duration_ms
from homeostat.engines.checks import check
from homeostat.engines.infer import ColumnRule, column_rule, task_of
from homeostat.scaffold import Made, Options, init
from homeostat.scaffold.columns import bounds, broken, checks_of
from homeostat.scaffold.look import Look
from homeostat.scaffold.pages import checks_name, duration, yaml
from homeostat.scaffold.settings import readable

ROWS = 1_500
CHANCE = np.random.default_rng(1)
NUMBER = CHANCE.normal(size=ROWS)
HOURS = pl.datetime_range(pl.datetime(2024, 1, 1), pl.datetime(2025, 1, 1), "1h", eager=True)[:ROWS]
NEAR = NUMBER + 0.3 * CHANCE.normal(size=ROWS)
LISTED = [f"a rather long name {i}" for i in range(12)]

BINARY = pl.DataFrame(
    {
        "amount": NUMBER,
        "gaps": pl.Series(CHANCE.integers(0, 9, ROWS)).set(pl.Series(CHANCE.random(ROWS) < 0.1), None),
        "kind": [LISTED[i] for i in CHANCE.integers(0, 12, ROWS)],
        "flag": CHANCE.random(ROWS) < 0.5,
        "class": np.where(NEAR > 0, "yes", "no"),
    }
)
AWKWARD = pl.DataFrame(
    {
        "when: at": HOURS,
        "yes": CHANCE.integers(0, 50, ROWS),
        'a "quoted" ünit (€)': NUMBER,
        "big": CHANCE.integers(2**62, 2**63 - 1, ROWS),
        "1": pl.Series([None] * ROWS, dtype=pl.String),
        "y\\n": np.digitize(NEAR, [-0.5, 0.5]),
    }
)
VALUE = pl.DataFrame({"row": range(ROWS), "dull": [3] * ROWS, "amount": NUMBER, "twin": NEAR, "worth": 100 + 40 * NEAR})
RARE = BINARY.with_columns(pl.Series("class", np.arange(ROWS) % 500 == 7))


def asked(folder: Path, frame: pl.DataFrame, **options: Any) -> Options:
    file = folder / ("rows.parquet" if "when: at" in frame.columns else "rows.csv")
    frame.write_parquet(file) if file.suffix == ".parquet" else frame.write_csv(file)
    return Options(file, frame.columns[-1], **options)


def own_tests(root: Path) -> str:
    """What plain `pytest` says in the project's folder."""
    path = str(Path(homeostat.__file__).parents[1])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        command, cwd=root, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("frame", "options", "task", "tests"),
    [
        (BINARY, {"every_ms": HOUR_MS, "start": "2024-01-01", "label_horizon_ms": DAY_MS}, Task.BINARY, 10),
        (AWKWARD, {"time": ("when: at",)}, Task.MULTICLASS, 9),
        (VALUE, {"drop": ("row",)}, Task.REGRESSION, 9),
        (RARE, {}, Task.BINARY, 10),
        (VALUE[:40], {}, Task.REGRESSION, 9),
    ],
    ids=["binary", "awkward names", "regression", "rare class", "few rows"],
)
def test_a_new_project_passes_its_own_tests(
    tmp_path: Path, frame: pl.DataFrame, options: dict[str, Any], task: Task, tests: int
) -> None:
    asking = asked(tmp_path, frame, **options)
    before = asking.data.read_bytes()
    made = init(tmp_path / "price", asking)
    policy = read_policy(made.root)
    assert (policy.task, made.task, policy.name) == (task, task, "price")
    assert (policy.data.target, policy.data.label_horizon) == (asking.target, asking.label_horizon_ms)
    assert {path.relative_to(made.root).as_posix() for path in made.root.rglob("*") if path.is_file()} == set(
        made.files
    )
    assert f"{tests} passed" in own_tests(made.root)
    assert asking.data.read_bytes() == before


def test_the_policy_of_a_long_history(tmp_path: Path) -> None:
    days = pl.datetime_range(pl.datetime(2020, 1, 1), pl.datetime(2024, 12, 31), "1d", eager=True)
    frame = pl.DataFrame({"day": days.cast(pl.Date), "hr": 5, "who": "a", "x": 1.5, "y": np.arange(len(days)) * 1.0})
    options = asked(
        tmp_path, frame, time=("day", "hr"), key="who", label_horizon_ms=36 * HOUR_MS, repeated_times="allow"
    )
    made = init(tmp_path / "Shop Sales!", options)
    policy = read_policy(made.root)
    expected = DataPolicy("../rows.csv", "y", ("day", "hr"), "who", 36 * HOUR_MS, (), "allow")
    assert (policy.name, policy.data, policy.checks) == ("shop-sales", expected, "checks.schema:ShopSales")
    assert (policy.train.window, policy.train.holdout, policy.rehearsal.warmup) == (0, 100 * DAY_MS, 608 * DAY_MS)
    assert policy.gates == (GatePolicy("mae", versus="champion", margin=46.0),)
    assert policy.retrain.when == ("performance", Schedule("14d"))
    assert policy.retrain.only_if_it_helps
    assert policy.release.min_requests == 20  # one row a day
    assert (made.rows, made.fields, made.metric) == (len(frame), ("hr", "x"), "mae")
    assert made.until_ms - made.from_ms == policy_span(frame)
    assert any("called shop-sales" in note for note in made.notes)


def policy_span(frame: pl.DataFrame) -> int:
    return (len(frame) - 1) * DAY_MS


def test_short_histories_get_short_stretches(tmp_path: Path) -> None:
    timed = read_policy(init(tmp_path / "a", asked(tmp_path, BINARY, every_ms=60_000, start="2024-01-01 06:00")).root)
    assert timed.data.time == Every(60_000, "2024-01-01 06:00")
    assert (timed.train.window, timed.train.holdout, timed.rehearsal.warmup) == (180 * DAY_MS, 4 * HOUR_MS, 8 * HOUR_MS)
    bare = read_policy(init(tmp_path / "b", asked(tmp_path, BINARY)).root)
    assert (bare.train.window, bare.train.holdout, bare.rehearsal.warmup) == (0, 299_000, 499_000)
    assert bare.retrain.when == ("performance",)


def test_the_notes_name_columns_that_deserve_a_look(tmp_path: Path) -> None:
    dates = HOURS.dt.strftime("%Y-%m-%d %H:%M").alias("paid")
    frame = VALUE.with_columns(dates, pl.Series("none", [""] * ROWS)).select("paid", "none", *VALUE.columns)
    notes = "\n".join(init(tmp_path / "p", asked(tmp_path, frame.with_columns(worth=pl.col("worth").shift(1)))).notes)
    assert "they have no worth: 1 of the rows" in notes
    assert "paid looks like a time" in notes
    for said in ("counts the rows: row.", "same in all rows: dull.", "Nothing in any row: none.", "every row: paid."):
        assert said in notes
    twins = init(tmp_path / "q", asked(tmp_path, VALUE)).notes
    assert any("Nearly the same as worth: amount, twin" in note for note in twins)


NUMBERS = st.floats(allow_nan=False) | st.none() | st.sampled_from([0.0, 1.0, 5e-324, 1e308])
WHOLE = st.integers(-(2**63), 2**63 - 1) | st.none() | st.integers(0, 9)
COLUMNS = st.one_of(
    st.lists(NUMBERS, min_size=3, max_size=3).map(lambda values: pl.Series(values, dtype=pl.Float64)),
    st.lists(WHOLE, min_size=3, max_size=3).map(lambda values: pl.Series(values, dtype=pl.Int64)),
    st.lists(st.booleans() | st.none(), min_size=3, max_size=3).map(lambda values: pl.Series(values, dtype=pl.Boolean)),
    st.lists(st.text() | st.none(), min_size=3, max_size=3).map(lambda values: pl.Series(values, dtype=pl.String)),
)


@given(st.dictionaries(st.text(min_size=1), COLUMNS, max_size=4), st.sampled_from([[0, 1, 1], [1.5, -2.0, 7.0]]))
def test_the_checks_take_the_rows_they_were_made_from_and_refuse_broken_ones(
    columns: dict[str, pl.Series], target: list[float]
) -> None:
    frame = pl.DataFrame({f"x{name}": values for name, values in columns.items()} | {"y": target})
    task = task_of(frame["y"])
    rules = [column_rule(frame[name]) for name in frame.columns]
    seen = Look(frame, 0, DataPolicy("a.csv", "y"), task, tuple(rules[:-1]), rules[-1])
    scope: dict[str, Any] = {"pa": pa, "pl": pl}
    exec(f"schema = pa.DataFrameSchema({{\n{chr(10).join(checks_of(seen))}\n}})", scope)
    check(scope["schema"], frame)
    for name, literal in broken(seen):
        value = pl.lit(eval(literal), dtype=frame.schema[name])
        with pytest.raises(CheckFailed):
            check(scope["schema"], frame.with_columns(value.alias(name)))


HEAD = "t,x,y\n"
LINES = [f"2026-01-01 {i // 60:02}:{i % 60:02},{i},{i % 2}" for i in range(60)]
GOOD = HEAD + "\n".join(LINES) + "\n"
ASK = Options(Path("rows.csv"), "y", ("t",))


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (None, ASK, "the data file is not there(.|\n)*--data"),
        ("", ASK, "is empty"),
        (HEAD, ASK, "is empty"),
        (GOOD, replace(ASK, target="Y"), r"no column 'Y' \(--target\)(.|\n)*Did you mean 'y'\? Columns: t, x, y"),
        (GOOD, replace(ASK, drop=("xx",)), r"no column 'xx' \(--drop\)(.|\n)*Did you mean 'x'"),
        (GOOD, replace(ASK, time=("z",)), r"no column 'z' \(--time\)"),
        (GOOD, replace(ASK, key="z"), r"no column 'z' \(--key\)"),
        (GOOD.replace(",0\n", ",1\n"), ASK, "only 1: there is nothing to learn"),
        (HEAD + "\n".join(line[:-1] for line in LINES) + "\n", ASK, "holds nothing: there is nothing to learn"),
        (GOOD.replace(",30,", ",abc,"), ASK, "row 31 holds 'abc'"),
        (GOOD.replace("2026-01-01 00:30", "soon"), ASK, "row 31 holds 'soon', which is not a time"),
        (GOOD + LINES[0] + "\n", ASK, r"row 61 first: 2026-01-01 00:00:00(.|\n)*--key(.|\n)*--repeated-times allow"),
        (GOOD, replace(ASK, time=(), every_ms=1), "--start is missing"),
        (GOOD, replace(ASK, time=(), start="2026-01-01"), "--every is missing"),
        (GOOD, replace(ASK, time=(), every_ms=0, start="2026-01-01"), "longer than nothing"),
        (GOOD, replace(ASK, time=(), every_ms=1, start="soon"), "--start 'soon' is not a time"),
        (GOOD, replace(ASK, every_ms=1, start="2026-01-01"), "--time and --every"),
        (GOOD, replace(ASK, key="y"), "'y' is the target and in --key"),
        (GOOD, replace(ASK, drop=("y",)), "'y' is the target and in --drop"),
        (GOOD, replace(ASK, drop=("x",)), "no column is left"),
        (GOOD, replace(ASK, time=(), label_horizon_ms=1), "a label horizon needs times"),
        (GOOD, replace(ASK, label_horizon_ms=DAY_MS), "is over half of the history"),
        (HEAD + "\n".join(LINES[:30]), ASK, "30 rows with a target are too few"),
        (HEAD + "\n".join(f"2026-01-01,{i},{i}" for i in range(60)), ASK, "repeat a time"),
        (
            HEAD + "\n".join(f"2026-01-01,{i},{i}" for i in range(60)),
            replace(ASK, repeated_times="allow"),
            "all rows have the same time",
        ),
        (HEAD + "\n".join(f"{i},{i},v{i}" for i in range(200)), ASK, "text with 200 different values"),
    ],
)
def test_an_error_says_the_way_out_and_leaves_nothing(
    tmp_path: Path, text: str | None, options: Options, said: str
) -> None:
    if text is not None:
        (tmp_path / "rows.csv").write_text(text)
    with pytest.raises((UsageError, DataError), match=said) as caught:
        init(tmp_path / "price", replace(options, data=tmp_path / "rows.csv"))
    assert caught.value.exit_code == 2
    assert len(str(caught.value).splitlines()) <= 3
    assert not (tmp_path / "price").exists()


def written(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def made_in(root: Path) -> Made:
    (root.parent / "rows.csv").write_text(GOOD)
    return init(root, replace(ASK, data=root.parent / "rows.csv"))


def test_no_file_is_overwritten_and_others_stay(tmp_path: Path) -> None:
    root = tmp_path / "price"
    (root / "pipelines").mkdir(parents=True)
    (root / "pipelines" / "train.py").write_text("mine")
    with pytest.raises(UsageError, match=r"overwrites none: pipelines/train\.py"):
        made_in(root)
    assert written(root) == {"pipelines/train.py": "mine"}
    (root / "pipelines" / "train.py").rename(root / "pipelines" / "old.py")
    assert written(root).keys() | set(made_in(root).files) == written(root).keys()
    assert written(root)["pipelines/old.py"] == "mine"
    first = written(root)
    with pytest.raises(UsageError, match="files are there already"):
        made_in(root)
    assert written(root) == first


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "price"
    root.mkdir()
    (root / "tests").write_text("a file where a folder must be")
    with pytest.raises(UsageError, match="can't write the project"):
        made_in(root)
    assert [path.name for path in root.iterdir()] == ["tests"]
    with pytest.raises(UsageError, match="can't write the project"):
        init(root / "tests" / "deeper", replace(ASK, data=tmp_path / "rows.csv"))
    with pytest.raises(UsageError, match="this is a file"):
        made_in(root / "tests")


@pytest.mark.parametrize("folder", ["...", "日本"])
def test_a_folder_that_makes_no_name(tmp_path: Path, folder: str) -> None:
    with pytest.raises(UsageError, match="makes no name"):
        init(tmp_path / folder, ASK)


@given(st.integers(0, 10**12))
def test_durations_read_back(ms: int) -> None:
    assert duration_ms(duration(ms)) == ms
    assert ms / 2 < readable(ms) <= ms or ms == readable(ms) == 0


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1))
def test_texts_read_back_from_yaml(text: str) -> None:
    assert YAML(typ="rt").load(f"a: [{yaml(text)}, {yaml(text)}]")["a"] == [text, text]


@pytest.mark.parametrize(("name", "said"), [("price-2", "Price2"), ("none", "RowsNone"), ("3-d", "Rows3D")])
def test_names_in_python(name: str, said: str) -> None:
    assert checks_name(name) == said


@pytest.mark.parametrize(
    ("kind", "low", "high", "shown"),
    [
        (Kind.NUMBER, -0.35471, 1.22036, (-0.36, 1.23)),
        (Kind.NUMBER, 0.0, 1953.2, (0.0, 1960.0)),
        (Kind.NUMBER, None, 4.0, (None, 4.0)),
        (Kind.NUMBER, -1.7e308, 1.7e308, (None, None)),
        (Kind.INTEGER, 999_991.0, 1_000_021.0, (999_991, 1_000_021)),
        (Kind.INTEGER, 0.0, 1.5e19, (0, None)),
    ],
)
def test_bounds_are_rounded_outward(kind: Kind, low: float, high: float, shown: tuple[float, float]) -> None:
    found = bounds(ColumnRule("x", kind, False, low, high))
    assert found == shown
    assert [type(bound) for bound in found] == [type(bound) for bound in shown]
