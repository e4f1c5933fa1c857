"""Batch scoring on a project that serves."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

import homeostat
import projects
from homeostat import cli
from homeostat.batch.inputs import Table
from homeostat.batch.job import Job
from homeostat.batch.outputs import out
from homeostat.batch.places import place
from homeostat.domain.errors import DataError, NotFound, UsageError
from homeostat.domain.feedback import Exploration, FeedbackPolicy
from homeostat.domain.rollout import Arm, Routing
from homeostat.domain.schema import Schema, Task
from homeostat.domain.units import DAY_MS
from homeostat.engines.answer import answers, decided
from homeostat.ports import Progress
from homeostat.project import Project
from homeostat.services.evidence_log import traffic
from homeostat.serving.explore import chosen

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return projects.serving(tmp_path_factory.mktemp("batch") / "cards")


@pytest.fixture
def rows() -> pl.DataFrame:
    return projects.rows(days=20).drop("at", "fraud")


def scores(out: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in sorted(out.glob("part-*.parquet"))])


class Stop(BaseException):
    """Like a Ctrl-C."""


def stop_after(rows: int) -> Progress:
    def stop(done: int, _total: int, _doing: str) -> None:
        if done >= rows:
            raise Stop

    return stop


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
    with pytest.raises(Stop):
        project.predict_file(tmp_path / "rows.parquet", tmp_path / "out", 300, stop_after(600))
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
    with pytest.raises(DataError, match=r"the column 'hour' is missing(.|\n)*takes: amount, hour"):
        project.predict_file(source, tmp_path / "out")
    rows.select(other="amount").write_parquet(source)
    with pytest.raises(DataError, match="the column 'amount' is missing"):
        project.predict_file(source, tmp_path / "out")
    day = date(2026, 1, 1)
    for wrong, holds in ((pl.lit(day), "Date"), (pl.concat_list("hour"), "List"), (pl.lit(True), "Boolean")):
        rows.with_columns(hour=wrong).write_parquet(source)
        with pytest.raises(DataError, match=f"hour holds {holds}.*, not integer"):
            project.predict_file(source, tmp_path / "out")
    (tmp_path / "rows.txt").touch()
    with pytest.raises(DataError, match=r"no CSV or Parquet file is there(.|\n)*end with \.csv"):
        project.predict_file(tmp_path / "rows.txt", tmp_path / "out")
    with pytest.raises(DataError, match=r"can't be read or written: .*Not a directory"):
        project.predict_file(source, source)
    (tmp_path / "more.csv").write_text(f"{rows.head(9).write_csv()}1.5,3,de,true,and more\n")
    with pytest.raises(DataError, match=r"found more fields than defined in 'Schema'\n"):
        project.predict_file(tmp_path / "more.csv", tmp_path / "out")
    rows.write_parquet(source)
    project.predict_file(source, tmp_path / "out")  # what failed before its first part has left nothing
    write(rows.head(9), source)
    with pytest.raises(UsageError, match="another job"):
        project.predict_file(source, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(UsageError, match="not empty"):
        project.predict_file(source, tmp_path / "mine")
    fresh = homeostat.load(projects.make(tmp_path / "fresh"))
    with pytest.raises(NotFound, match="serves no version yet"):
        fresh.predict_file(source, tmp_path / "other")


def test_of_two_jobs_in_one_folder_the_later_claim_counts(project: Project, rows: pl.DataFrame, tmp_path: Path) -> None:
    one, other = write(rows, tmp_path / "one.parquet"), write(rows.head(700), tmp_path / "other.parquet")

    def begin(done: int, _total: int, _doing: str) -> None:
        if not done:
            project.predict_file(other, tmp_path / "out", 300)

    with pytest.raises(UsageError, match="another job"):
        project.predict_file(one, tmp_path / "out", 300, begin)
    assert len(scores(tmp_path / "out")) == 700


def test_a_table_that_was_being_made_when_its_writer_died(project: Project, rows: pl.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "scores" / "_delta_log").mkdir(parents=True)
    project.predict_file(write(rows, tmp_path / "rows.parquet"), f"delta://{tmp_path}/scores")
    assert pl.read_delta(str(tmp_path / "scores")).height == len(rows)


def test_rows_that_change_meanwhile_are_no_job(project: Project, rows: pl.DataFrame, tmp_path: Path) -> None:
    source = write(rows, tmp_path / "rows.parquet")

    def shorten(done: int, _total: int, _doing: str) -> None:
        if not done:
            write(rows.head(1_000), source)

    with pytest.raises(DataError, match="its rows changed while they were read"):
        project.predict_file(source, tmp_path / "out", 300, shorten)


def test_parts_do_not_depend_on_how_the_reader_cuts(
    rows: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows.write_parquet(tmp_path / "rows.parquet", row_group_size=7)

    def cut(lazy: pl.LazyFrame, **_: object) -> list[pl.DataFrame]:
        return list(lazy.collect().iter_slices(13))

    table = Table("rows.parquet", str(tmp_path / "rows.parquet"), "")
    whole = [(first, len(frame)) for first, frame in table.stream(rows.columns, 100)]
    monkeypatch.setattr(pl.LazyFrame, "collect_batches", cut)
    assert [(first, len(frame)) for first, frame in table.stream(rows.columns, 100)] == whole
    assert [size for _, size in whole] == [100] * (len(rows) // 100) + [len(rows) % 100]


def test_marked_rows_have_their_reason_and_the_others_their_score(
    project: Project, rows: pl.DataFrame, tmp_path: Path
) -> None:
    at = pl.int_range(pl.len())
    texts = rows.with_columns(pl.col("amount").cast(pl.String), id=pl.format("row-{}", at))
    texts.with_columns(
        amount=pl.when(at == 3).then(pl.lit("NaN")).when(at == 4).then(pl.lit("much")).otherwise("amount"),
        hour=pl.when(at == 5).then(24).otherwise("hour"),
        id=pl.when(at == 6).then(None).otherwise("id"),
    ).write_parquet(tmp_path / "rows.parquet")
    result = project.predict_file(tmp_path / "rows.parquet", tmp_path / "out", 1_000, on_error="mark")
    found = scores(tmp_path / "out")
    assert (result.refused, found.height, found["id"].n_unique()) == (4, len(rows), len(rows))
    assert found["error"].drop_nulls().to_list() == [
        "amount must not be null",
        "amount holds 'much', not number",
        "hour must be at most 23",
        "id must have 1 to 256 characters",
    ]
    assert found["error"].is_not_null().arg_true().to_list() == [3, 4, 5, 6]
    assert (found["score"].is_null() == found["error"].is_not_null()).all()
    project.predict_file(write(rows, tmp_path / "good.parquet"), tmp_path / "good", 1_000)
    good = found["error"].is_null()
    assert found["score"].filter(good).equals(scores(tmp_path / "good")["score"].filter(good))


def write(rows: pl.DataFrame, path: Path) -> Path:
    rows.write_parquet(path)
    return path


def test_numbers_as_other_programs_write_them(project: Project, rows: pl.DataFrame, tmp_path: Path) -> None:
    plain = project.predict(rows)["score"]
    floats = rows.with_columns(pl.col("hour").cast(pl.Float64))
    project.predict_file(write(floats, tmp_path / "floats.parquet"), tmp_path / "floats")
    floats.with_columns(pl.col("online").cast(pl.Int8)).write_csv(tmp_path / "floats.csv")
    project.predict_file(tmp_path / "floats.csv", tmp_path / "texts")
    assert scores(tmp_path / "floats")["score"].equals(plain)
    assert scores(tmp_path / "texts")["score"].equals(plain)
    halves = write(rows.with_columns(pl.col("hour") + 0.5), tmp_path / "halves.parquet")
    with pytest.raises(DataError, match=r"hour holds \S+\.5, not integer"):
        project.predict_file(halves, tmp_path / "halves")


def test_a_table_is_read_at_one_version_and_written_once(project: Project, rows: pl.DataFrame, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    rows.head(700).write_delta(source)
    rows.slice(700).write_delta(source, mode="append")
    with pytest.raises(Stop):
        project.predict_file(source, f"delta://{out}", 300, stop_after(300))
    rows.head(50).write_delta(source, mode="append")
    again = project.predict_file(source, out, 300)
    assert (again.rows, again.parts) == (len(rows), 5)
    assert again.reused >= 1
    once = pl.read_delta(str(out))
    assert once["id"].n_unique() == once.height == len(rows)
    moved_on = project.predict_file(source, out, 300)
    assert (moved_on.rows, moved_on.reused) == (len(rows) + 50, 0)
    twice = pl.read_delta(str(out))
    assert twice["id"].n_unique() == twice.height == 2 * len(rows) + 50
    assert project.predict_file(source, out, 300).reused == moved_on.parts
    with pytest.raises(UsageError, match="other columns"):
        project.predict_file(source, source, 300)


def test_of_many_writers_of_a_part_one_counts(tmp_path: Path) -> None:
    job = Job("b", 1, 10, "fail", (Table("rows", "", "", rows=20),))
    frame, target = pl.DataFrame({"id": [str(i) for i in range(10)]}), out(place(f"delta://{tmp_path}/out"))
    target.claim(job, frame.clear())
    parts = list(job.parts())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda part: target.write(job, part, frame), parts * 4))
    assert target.done(job) == {part.name for part in parts}
    assert pl.read_delta(f"{tmp_path}/out")["id"].value_counts()["count"].to_list() == [2] * 10


def test_killed_again_and_again_no_part_is_doubled(project: Project, rows: pl.DataFrame, tmp_path: Path) -> None:
    """Each time as soon as a data file appears: its commit is about to come, or has just come."""
    source, out = write(rows, tmp_path / "rows.parquet"), tmp_path / "out"
    command = [sys.executable, "-m", "homeostat", "predict", source, f"delta://{out}", "-p", project.root]
    for kill in (1, 5):
        child = subprocess.Popen([*command, "--part-rows", "100"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while len(list(out.glob("*.parquet"))) < kill and child.poll() is None:
            pass
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert child.returncode == -signal.SIGKILL
    assert project.predict_file(source, out, 100).parts == 15
    found = pl.read_delta(str(out))
    assert found["id"].n_unique() == found.height == len(rows)


def test_an_unfinished_job_goes_on_with_the_version_that_it_began_with(
    rows: pl.DataFrame, tmp_path: Path, project: Project
) -> None:
    source = write(rows, tmp_path / "rows.parquet")
    with pytest.raises(Stop):
        project.predict_file(source, tmp_path / "out", 300, stop_after(300))
    router = project.system.stores.router
    before = router.read()
    route = before.routes["cards"]
    other = Arm(route.champion.version + 1, route.champion.bundle)
    router.publish(Routing(before.version + 1, {"cards": replace(route, champion=other)}))
    try:
        assert project.predict_file(source, tmp_path / "out", 300).version == route.champion.version
        with pytest.raises(UsageError, match="another job"):
            project.predict_file(source, tmp_path / "out", 300)
    finally:
        router.publish(Routing(before.version + 2, before.routes))


def test_logged_answers_are_traced_and_labelled_and_no_evidence(
    project: Project, rows: pl.DataFrame, tmp_path: Path
) -> None:
    named = rows.head(30).with_columns(pl.format("batch-{}", pl.int_range(pl.len())).alias("id"), key=pl.lit("card"))
    source, log = write(named, tmp_path / "rows.parquet"), project.system.stores.log
    project.predict_file(source, tmp_path / "silent", 10)
    assert log.find("batch-7").is_empty()
    for name in ("out", "again"):  # the same job: the same ids
        project.predict_file(source, tmp_path / name, 10, log=True)
    assert log.find("batch-7").height == 1
    found = project.trace("batch-7")
    champion = project.system.stores.router.read().routes["cards"].champion
    assert (found.release, found.bundle, found.key) == (f"batch:{champion.bundle}", champion.bundle, "card")
    assert found.inputs == rows.row(7, named=True)
    assert found.scores[0].score == scores(tmp_path / "out")["score"][7]
    assert found.rollout is None
    assert found.run is not None
    assert project.feedback([{"id": "batch-7", "label": 1}]) == 1
    label = project.trace("batch-7").label
    assert label is not None
    assert label.value == "1"
    answers = log.read("cards", 0, 2**60)
    batch = answers.filter(pl.col("release").str.starts_with("batch:"))
    assert batch.height == 30
    spread = batch.with_columns(at_ms=pl.int_range(pl.len()) * DAY_MS)
    assert traffic(spread, 30 * DAY_MS) is None
    assert traffic(spread.with_columns(release=pl.lit("R1")), 30 * DAY_MS) == 1
    with pytest.raises(UsageError, match="the prediction log is on this machine"):
        project.predict_file(source, tmp_path / "far", log=True, engine="ray")


@pytest.mark.parametrize("task", list(Task))
def test_many_answers_are_decided_as_few_are(task: Task) -> None:
    classes = {Task.BINARY: (False, True), Task.MULTICLASS: ("a", "b", "c"), Task.REGRESSION: ()}[task]
    schema = Schema((), task, "y", classes)
    output = np.random.default_rng(5).dirichlet(np.ones(max(len(classes), 1)), 500).round(2)
    few = answers(schema, 0.5, output)
    score, chosen = decided(schema, 0.5, output)
    assert score.tolist() == few.score
    assert [str(classes[i]) if classes else None for i in chosen] == few.label


def test_what_the_command_says(project: Project, rows: pl.DataFrame, tmp_path: Path) -> None:
    source = write(rows.with_columns(hour=pl.lit(77)), tmp_path / "rows.parquet")
    command = ["predict", str(source), str(tmp_path / "out"), "-p", str(project.root)]
    said = json.loads(RUNNER.invoke(cli.app, [*command, "--on-error", "mark", "--json"]).stdout)
    assert (said["rows"], said["refused"], said["parts"]) == (len(rows), len(rows), 1)
    assert isinstance(RUNNER.invoke(cli.app, command).exception, UsageError)
    shown = RUNNER.invoke(cli.app, [*command, "--on-error", "mark"]).stdout
    assert "1,440 rows scored by version 1: 1\xa0part in" in shown
    assert "1 of them from before" in shown


def test_a_slice_is_marked_where_it_is_written_down(project: Project, rows: pl.DataFrame, tmp_path: Path) -> None:
    """The ids that a request would have marked; one of two parts holds none of them, and one of their rows breaks."""
    slice_ = Exploration(2_000, 0)
    of = Project(project.root, replace(project.policy, feedback=FeedbackPolicy(selective=True, exploration=slice_)))
    ids = [f"slice-{i}" for i in range(200)]
    inside = chosen(slice_, "cards", ids)
    ids = sorted(ids, key=lambda one: one in inside)
    assert len(inside) < 100
    given = rows.head(200).with_columns(pl.Series("id", ids))
    source = write(
        given.with_columns(hour=pl.when(pl.col("id") == inside[0]).then(99).otherwise("hour")), tmp_path / "in.parquet"
    )
    said = {}
    for log in (False, True):
        of.predict_file(source, tmp_path / str(log), 100, log=log, on_error="mark")
        said[log] = scores(tmp_path / str(log))
    assert (said[False]["explore"].dtype, said[False]["explore"].null_count()) == (pl.Int64, 200)  # nobody would know
    assert set(said[True].filter(pl.col("explore") == 0)["id"]) == set(inside[1:])
    assert said[True]["explore"].null_count() == 200 - len(inside) + 1
    marks = of.system.stores.labels.signals(0, 2**60)
    assert sorted(marks["id"]) == sorted(inside[1:])
    assert marks.select("name", "value").unique().rows() == [("explore", 0.2)]
