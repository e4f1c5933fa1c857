"""Batch scoring on a project that serves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import homeostat
import projects
from homeostat.batch.inputs import Table
from homeostat.domain.errors import DataError, NotFound, UsageError
from homeostat.project import Project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Its first version serves."""
    opened = homeostat.load(projects.make(tmp_path_factory.mktemp("batch") / "cards"))
    opened.run()
    system = opened.system
    system.plane = system.engine
    system.control.begin()
    system.control.settle()
    return opened


@pytest.fixture
def rows() -> pl.DataFrame:
    return projects.rows(days=20).drop("at", "fraud")


def scores(out: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in sorted(out.glob("part-*.parquet"))])


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv"])
def test_a_file_is_answered_as_requests_are(project: Project, rows: pl.DataFrame, tmp_path: Path, name: str) -> None:
    source = tmp_path / name
    if name.endswith("csv"):
        rows.write_csv(source)
    else:
        rows.write_parquet(source)
    result = project.predict_file(source, tmp_path / "out", part_rows=500)
    assert (result.rows, result.parts, result.reused) == (len(rows), 3, 0)
    found = scores(tmp_path / "out")
    asked = project.predict(rows)
    assert np.array_equal(found["score"].to_numpy(), asked["score"].to_numpy())
    assert found["label"].to_list() == asked["label"].to_list()
    assert found["id"].n_unique() == len(rows)
    assert found["model_version"].unique().to_list() == [1]


def test_a_job_that_was_stopped_goes_on(project: Project, rows: pl.DataFrame, tmp_path: Path) -> None:
    rows.write_parquet(tmp_path / "rows.parquet")
    whole = project.predict_file(tmp_path / "rows.parquet", tmp_path / "whole", part_rows=300)

    class Stop(BaseException):
        """Like a Ctrl-C."""

    def stop(done: int, _total: int, _doing: str) -> None:
        if done >= 600:
            raise Stop

    with pytest.raises(Stop):
        project.predict_file(tmp_path / "rows.parquet", tmp_path / "out", 300, stop)
    (tmp_path / "out" / ".part-00000-000000000600.parquet.part").write_bytes(b"half a part")
    again = project.predict_file(tmp_path / "rows.parquet", tmp_path / "out", 300)
    assert again.parts == whole.parts
    assert again.reused >= 2
    assert scores(tmp_path / "out").equals(scores(tmp_path / "whole"))


def test_a_folder_and_ids_of_the_rows_own(project: Project, rows: pl.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        named = rows.head(10).with_columns(pl.format("{}-{}", pl.lit(number), pl.int_range(pl.len())).alias("id"))
        named.write_parquet(tmp_path / "in" / f"{number}.parquet")
    seen: list[tuple[int, int]] = []
    project.predict_file(tmp_path / "in", tmp_path / "out", 4, lambda done, total, _: seen.append((done, total)))
    assert scores(tmp_path / "out")["id"].to_list() == [f"{n}-{i}" for n in range(3) for i in range(10)]
    assert seen[-1] == (30, 30)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pl.lit(-1.0).alias("amount"), "amount must be at least 0"),
        (pl.lit(None, pl.Int64).alias("hour"), "hour must not be null"),
        (pl.lit("noon").alias("hour"), "hour holds 'noon', not integer"),
        (pl.lit("maybe").alias("online"), "online holds 'maybe', not boolean"),
    ],
)
def test_a_bad_row_is_named_and_what_was_done_stays(
    project: Project, rows: pl.DataFrame, tmp_path: Path, change: pl.Expr, message: str
) -> None:
    name = change.meta.output_name()
    changed = rows.with_columns(change)
    texts = rows.with_columns(pl.col(name).cast(pl.String)), changed.with_columns(pl.col(name).cast(pl.String))
    pl.concat([texts[0].head(12), texts[1].slice(12, 1), texts[0].slice(13, 10)]).write_csv(tmp_path / "rows.csv")
    with pytest.raises(DataError, match=rf"{message}(.|\n)*rows\.csv, row 13 "):
        project.predict_file(tmp_path / "rows.csv", tmp_path / "out", 10)
    assert (tmp_path / "out" / "part-00000-000000000000.parquet").exists()
    assert not (tmp_path / "out" / "part-00000-000000000010.parquet").exists()


def test_what_can_not_be_done_is_said(project: Project, rows: pl.DataFrame, tmp_path: Path) -> None:
    source = tmp_path / "rows.parquet"
    with pytest.raises(DataError, match="the file is not there"):
        project.predict_file(source, tmp_path / "out")
    rows.drop("hour").write_parquet(source)
    with pytest.raises(DataError, match="the column 'hour' is missing"):
        project.predict_file(source, tmp_path / "out")
    rows.write_parquet(source)
    with pytest.raises(UsageError, match="another job"):
        project.predict_file(source, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(UsageError, match="not empty"):
        project.predict_file(source, tmp_path / "mine")
    fresh = homeostat.load(projects.make(tmp_path / "fresh"))
    with pytest.raises(NotFound, match="serves no version yet"):
        fresh.predict_file(source, tmp_path / "other")


def test_parts_do_not_depend_on_how_the_reader_cuts(
    rows: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows.write_parquet(tmp_path / "rows.parquet", row_group_size=7)

    def cut(lazy: pl.LazyFrame, **_: object) -> list[pl.DataFrame]:
        return list(lazy.collect().iter_slices(13))

    table = Table("rows.parquet", str(tmp_path / "rows.parquet"), "")
    whole = [(first, len(frame)) for first, frame in table.stream(100)]
    monkeypatch.setattr(pl.LazyFrame, "collect_batches", cut)
    assert [(first, len(frame)) for first, frame in table.stream(100)] == whole
    assert [size for _, size in whole] == [100] * (len(rows) // 100) + [len(rows) % 100]
