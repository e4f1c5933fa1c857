"""The same job on Ray and on Spark. They are big: `make cluster` installs them, outside the tree; Spark needs Java."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import homeostat
import projects
from homeostat.project import Project
from needs import place

PINS = Path(__file__).parent / "pins" / "cluster.txt"


@pytest.fixture(params=["ray", "spark"])
def engine(request: pytest.FixtureRequest) -> str:
    if not place(PINS).exists():
        pytest.skip("Ray and Spark are not installed: make cluster")
    if request.param == "spark" and shutil.which("java") is None:
        pytest.skip("no java: apt-get install openjdk-17-jre-headless")
    return str(request.param)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return projects.serving(tmp_path_factory.mktemp("clusters") / "cards")


def run(*command: object) -> subprocess.CompletedProcess[str]:
    ours = Path(homeostat.__file__).parents[1]
    environment = os.environ | {
        "PYTHONPATH": f"{ours}:{Path(__file__).parent}:{place(PINS)}",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_SUBMIT_ARGS": "--master local[2,4] pyspark-shell",  # a task is tried four times
    }
    return subprocess.run(
        [sys.executable, *map(str, command)], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_same_job_gives_the_same_bytes(engine: str, project: Project, tmp_path: Path) -> None:
    rows = projects.rows(days=20).drop("at", "fraud")
    source, far = tmp_path / "rows.parquet", tmp_path / "far"
    rows.write_parquet(source)
    project.predict_file(source, tmp_path / "here", 300)
    command = ("-m", "homeostat", "predict", source, far, "--part-rows", 300, "--engine", engine, "-p", project.root)
    done = run(*command)
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in far.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "here").iterdir())
    for name in names:
        assert (far / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
    (far / names[2]).unlink()
    again = run(*command)
    assert "4 of them from before" in again.stdout, again.stderr
    assert (far / names[2]).read_bytes() == (tmp_path / "here" / names[2]).read_bytes()


@pytest.mark.slow
def test_a_table_on_a_cluster_and_a_row_that_is_wrong(engine: str, project: Project, tmp_path: Path) -> None:
    rows = projects.rows(days=20).drop("at", "fraud")
    rows.write_delta(tmp_path / "in")
    command = ("-m", "homeostat", "predict", "--part-rows", 300, "--engine", engine, "-p", project.root)
    done = run(*command, tmp_path / "in", f"delta://{tmp_path}/out")
    assert done.returncode == 0, done.stderr
    found = pl.read_delta(str(tmp_path / "out"))
    assert found["id"].n_unique() == found.height == len(rows)
    wrong = pl.when(pl.int_range(pl.len()) == 1_000).then(99).otherwise("hour").alias("hour")
    rows.with_columns(wrong).write_parquet(tmp_path / "rows.parquet")
    failed = run(*command, tmp_path / "rows.parquet", tmp_path / "failed")
    assert failed.returncode == 2
    assert "hour must be at most 23" in failed.stderr
    assert "row 1,001 " in failed.stderr


@pytest.mark.slow
def test_what_a_killed_worker_had_is_done_again(engine: str, tmp_path: Path) -> None:
    done = run(Path(__file__).parent / "dying.py", engine, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[0, 1, 4, 9, 16, 25, 36]"
    assert {"0", "3", "6"} <= {path.name for path in tmp_path.iterdir()}
