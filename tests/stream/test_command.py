"""`homeostat stream` as it is typed. That it leaves in good order on SIGTERM the tests with killed consumers see."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import places
import pytest
import redis
from typer.testing import CliRunner

from homeostat import cli
from homeostat.stream import Metrics
from homeostat.web.stream import Changes, line


def test_bad_addresses_are_told_in_three_lines(tmp_path: Path, linear_onnx: bytes) -> None:
    root = places.make(tmp_path / "flow", linear_onnx)
    command = [sys.executable, "-m", "homeostat", "stream", "redis://h/0/a", "kafka://h/b", "-p", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "of one kind" in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3


def test_a_line_of_json_says_how_it_stands(
    tmp_path: Path, linear_onnx: bytes, redis_client: redis.Redis, redis_server: str
) -> None:
    root = places.make(tmp_path / "flow", linear_onnx)
    for body in (*places.bodies(places.rows(30)), b"poison"):
        redis_client.xadd("requests", {"data": body})
    at = f"redis://{redis_server}/0"
    consumer = places.Consumer(root, f"{at}/requests", f"{at}/predictions", "--dead-letter", "graves")
    assert redis_client.xread({"graves": "0"}, block=60_000)
    said = consumer.stop()
    assert (said["answered_total"], said["dead_total"], said["lag"]) == (30, 1, 0)
    assert set(said) == set(Metrics.__slots__)
    assert redis_client.xlen("predictions") == 30
    assert [one["name"] for one in redis_client.xinfo_groups("requests")] == [b"homeostat-flow"]
    assert redis_client.xinfo_consumers("requests", "homeostat-flow") == []


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (Metrics(), "0 answered, 0 a second"),
        (
            Metrics(12_000, 3, 2, 1, 4, 1_200, 31_020.4, "no model is released yet"),
            "12,000 answered, 31,020 a second, lag 1,200, dead letters 3, reclaimed 1, rebalances 4, retries 2; "
            "waiting: no model is released yet",
        ),
    ],
)
def test_the_line_that_a_person_sees(metrics: Metrics, said: str) -> None:
    assert line(metrics) == said


def test_where_nobody_looks_on_what_it_waits_for_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    show = Changes()
    for reason in ("", "no model", "no model", "", ""):
        show(Metrics(7, waiting_for=reason))
    assert capsys.readouterr().err == "7 answered, 0 a second; waiting: no model\n7 answered, 0 a second\n"


def test_the_clients_are_imported_only_for_their_address() -> None:
    """Both are extras."""
    code = "import sys, homeostat.web.stream; sys.exit(bool({'redis', 'confluent_kafka'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert CliRunner().invoke(cli.app, ["stream", "--help"]).exit_code == 0
