"""Files as prepared frames, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from homeostat.adapters.source import Source
from homeostat.domain.dataset import ENTITY, EVENT_MS
from homeostat.domain.errors import DataError
from homeostat.domain.policy import DataPolicy, Every
from homeostat.domain.schema import Task
from homeostat.domain.units import DAY_MS, HOUR_MS


def read(root: Path, text: str, data: DataPolicy) -> pl.DataFrame:
    (root / "a.csv").write_text(text)
    return Source(root, data, Task.BINARY)()


def test_a_date_and_an_hour_make_the_time(tmp_path: Path) -> None:
    text = "day,hr,card,y\n1/2/1970,1,7,0\n1/1/1970,5,8,1\n1/31/1970,0,7,\n"
    frame = read(tmp_path, text, DataPolicy("a.csv", "y", ("day", "hr"), key="card"))
    assert frame.to_dict(as_series=False) == {
        "hr": [5, 1],
        "y": [1, 0],
        EVENT_MS: [5 * HOUR_MS, DAY_MS + HOUR_MS],
        ENTITY: ["8", "7"],
    }


@pytest.mark.parametrize(
    ("time", "times"), [(Every(HOUR_MS, "1970-01-02"), [DAY_MS, DAY_MS + HOUR_MS]), (None, [0, 1000])]
)
def test_rows_without_a_time_column(tmp_path: Path, time: Every | None, times: list[int]) -> None:
    assert read(tmp_path, "x,y\n1,0\n2,1\n", DataPolicy("a.csv", "y", time))[EVENT_MS].to_list() == times


NUMBERS = "".join(f"{i},{i % 2}\n" for i in range(40))


@pytest.mark.parametrize(
    ("text", "data", "said"),
    [
        ("", DataPolicy("a.csv", "y"), "is empty"),
        ("x,y\n", DataPolicy("a.csv", "y"), "is empty"),
        ("x,y\n1,2\n", DataPolicy("b.csv", "y"), "is not there"),
        ("x,z\n1,2\n", DataPolicy("a.csv", "y"), "no column 'y'"),
        ("x,y\n1,2\n1,2,3\n", DataPolicy("a.csv", "y"), "more values(.|\n)*a.csv, line 3"),
        ('x,y\n1,2\n1,"2\n', DataPolicy("a.csv", "y"), "can't read the file"),
        ("x,y\n1,2\n", DataPolicy("a.csv", "y", "when"), "no column 'when'"),
        (f"x,y\n{NUMBERS}abc,1\n", DataPolicy("a.csv", "y"), "row 41 holds 'abc'"),
        ("x,y\n1,2\n", DataPolicy("a.csv", "y", drop=("x",)), "no column is left"),
        ("t,y\n2026-01-01,1\nsoon,0\n", DataPolicy("a.csv", "y", "t"), "row 2 holds 'soon'"),
        ("t,x,y\n2026-01-01,1,1\n2026-01-01,1,0\n", DataPolicy("a.csv", "y", "t"), "row 2 first: 2026-01-01 00:00:00"),
    ],
)
def test_a_wrong_file_is_named_with_its_row(tmp_path: Path, text: str, data: DataPolicy, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(tmp_path, text, data)


def test_a_dropped_column_may_hold_anything(tmp_path: Path) -> None:
    frame = read(
        tmp_path, f"x,y,z\n{NUMBERS.replace(chr(10), ',1' + chr(10))}1,1,abc\n", DataPolicy("a.csv", "y", drop=("z",))
    )
    assert frame.columns == ["x", "y", EVENT_MS, ENTITY]


def test_a_part_of_the_time_can_be_dropped(tmp_path: Path) -> None:
    frame = read(tmp_path, "day,hr,x,y\n1970-01-01,1,7,0\n", DataPolicy("a.csv", "y", ("day", "hr"), drop=("hr",)))
    assert frame.columns == ["x", "y", EVENT_MS, ENTITY]


def test_repeated_times_with_a_key_or_with_leave(tmp_path: Path) -> None:
    text = "t,k,x,y\n2026-01-01,a,1,1\n2026-01-01,b,1,0\n"
    assert len(read(tmp_path, text, DataPolicy("a.csv", "y", "t", key="k"))) == 2
    assert len(read(tmp_path, text, DataPolicy("a.csv", "y", "t", repeated_times="allow"))) == 2
