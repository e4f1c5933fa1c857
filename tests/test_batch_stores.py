"""Batch jobs on an object store that speaks S3: moto's server, on a port of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest

import projects
from homeostat.domain.errors import DataError, UsageError
from homeostat.project import Project
from needs import packages

PINS = Path(__file__).parent / "pins" / "moto.txt"
SECRET = "not-to-be-printed"


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an empty bucket; its credentials are in the environment, as object stores' clients read them."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    url, log = f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("moto") / "log"
    environment = os.environ | {"PYTHONPATH": str(packages(PINS))}
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as told, pytest.MonkeyPatch.context() as patch:
        server = subprocess.Popen(command, env=environment, stdout=told, stderr=told)
        try:
            while not _made(f"{url}/lake"):
                assert server.poll() is None, log.read_text()
            for name, value in _environment(url).items():
                patch.setenv(name, value)
            yield "s3://lake"
        finally:
            server.terminate()
            server.wait()


def _made(url: str) -> bool:
    with suppress(ConnectionError, urllib.error.URLError):
        urllib.request.urlopen(urllib.request.Request(url, method="PUT")).close()
        return True
    return False


def _environment(url: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return projects.serving(tmp_path_factory.mktemp("stores") / "cards")


@pytest.fixture
def rows() -> pl.DataFrame:
    return projects.rows(days=20).drop("at", "fraud")


class Stop(BaseException):
    """Like a Ctrl-C."""


def stop(done: int, _total: int, _doing: str) -> None:
    if done >= 300:
        raise Stop


@pytest.mark.parametrize("kind", ["files", "tables"])
def test_a_job_in_an_object_store(project: Project, rows: pl.DataFrame, bucket: str, tmp_path: Path, kind: str) -> None:
    """Begun, stopped, gone on with, begun again; the answers are those of local files."""
    source, out = f"{bucket}/{kind}/in", f"{bucket}/{kind}/out"
    if kind == "files":
        rows.head(1_000).write_parquet(f"{source}/a.parquet")
        rows.slice(1_000).write_csv(f"{source}/b.csv")
    else:
        rows.write_delta(source)
    target = out if kind == "files" else f"delta://{out}"
    with pytest.raises(Stop):
        project.predict_file(source, target, 300, stop)
    done = project.predict_file(source, target, 300)
    assert (done.rows, done.parts) == (len(rows), {"files": 6, "tables": 5}[kind])
    assert done.reused >= 1
    assert project.predict_file(source, target, 300).reused == done.parts
    found = pl.read_parquet(f"{out}/*.parquet") if kind == "files" else pl.read_delta(out)
    rows.write_parquet(tmp_path / "rows.parquet")
    project.predict_file(tmp_path / "rows.parquet", tmp_path / "out")
    local = pl.read_parquet(tmp_path / "out" / "*.parquet")
    assert found["id"].n_unique() == found.height == local.height
    assert found["score"].sort().equals(local["score"].sort())


def test_rows_that_changed_make_another_job(project: Project, rows: pl.DataFrame, bucket: str) -> None:
    source, out = f"{bucket}/changed/rows.parquet", f"{bucket}/changed-out"
    rows.write_parquet(source)
    project.predict_file(source, out)
    rows.with_columns(pl.col("amount") + 1).write_parquet(source)
    with pytest.raises(UsageError, match="another job"):
        project.predict_file(source, out)


def test_what_an_object_store_refuses_is_said_without_secrets(project: Project, bucket: str) -> None:
    with pytest.raises(DataError, match="404 Not Found") as refused:
        project.predict_file("s3://no-such-bucket/in", f"{bucket}/x")
    assert SECRET not in str(refused.value)
    with pytest.raises(DataError, match="no CSV or Parquet file is there"):
        project.predict_file(f"{bucket}/nothing", f"{bucket}/x")
    with pytest.raises(UsageError, match="no such kind of address: ftp://"):
        project.predict_file("ftp://x", f"{bucket}/x")
