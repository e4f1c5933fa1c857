"""The command line: what it says of bad input, its exit codes, its help."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

import projects
from homeostat import cli
from homeostat.config import read_policy
from homeostat.domain.prediction import LogBatch
from homeostat.serving.sockets import hold, listen
from homeostat.wiring.plane import logs

RUNNER = CliRunner()
EVERY = ("--every", "30m", "--start", "2026-01-01")


def homeostat(*arguments: str | Path) -> tuple[int, str, str]:
    """→ exit code, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["homeostat", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
    return int(left.value.code or 0), out.getvalue(), err.getvalue()


def csv(path: Path, change: Callable[[list[str]], list[str]] = lambda lines: lines) -> Path:
    """A small file; `change` edits its lines."""
    lines = ["a,b,y", *(f"{i * 7 % 13},{i % 5}.5,{i * 7 % 13 > 6:d}" for i in range(200))]
    path.write_text("\n".join(change(lines)) + "\n")
    return path


def with_row(number: int, text: str) -> Callable[[list[str]], list[str]]:
    return lambda lines: [*lines[:number], text, *lines[number + 1 :]]


BAD = {
    "a text in a numeric column": (with_row(50, "1,oops,0"), "y", "column 'b' holds numbers, but row 50 holds 'oops'"),
    "nothing": (lambda _: [], "y", "the data file is empty"),
    "only names": (lambda lines: lines[:1], "y", "the data file is empty"),
    "no such target": (lambda lines: lines, "z", "there is no column 'z'"),
    "one class": (lambda lines: [line[:-1] + "1" if "," in line[1:] and line[-1] in "01" else line for line in lines],
                  "y", "the target 'y' holds only 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(BAD))
def test_init_names_what_is_wrong_and_writes_nothing(tmp_path: Path, case: str) -> None:
    change, target, message = BAD[case]
    data = csv(tmp_path / "rows.csv", change)
    before = data.read_bytes()
    code, out, err = homeostat("init", tmp_path / "p", "--data", data, "--target", target, *EVERY)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) <= 3
    assert not (tmp_path / "p").exists()
    assert data.read_bytes() == before


def test_repeated_times_are_refused_with_the_way_out(tmp_path: Path) -> None:
    def dated(lines: list[str]) -> list[str]:
        return ["at," + lines[0], *(f"2026-01-{i // 20 + 1:02},{line}" for i, line in enumerate(lines[1:]))]

    data = csv(tmp_path / "rows.csv", dated)
    code, _, err = homeostat("init", tmp_path / "p", "--data", data, "--target", "y", "--time", "at")
    assert code == 2
    assert "repeat a time" in err
    assert "--repeated-times allow" in err
    allowed = homeostat(
        "init", tmp_path / "p", "--data", data, "--target", "y", "--time", "at", "--repeated-times", "allow"
    )
    assert allowed[0] == 0


def files(root: Path) -> set[Path]:
    """What the project keeps, the databases' own files apart."""
    return {path for path in (root / ".homeostat").rglob("*") if ".db" not in path.name}


def test_a_data_file_that_went_away_or_broke_between_two_runs(tmp_path: Path) -> None:
    root = projects.make(tmp_path / "cards")
    assert homeostat("run", "-p", root)[0] == 0
    state = files(root)
    (root / "rows.parquet").rename(root / "away.parquet")
    code, out, err = homeostat("run", "-p", root)
    assert (code, out) == (2, "")
    assert "the file is not there" in err
    frame = projects.rows().with_columns(pl.lit("many").alias("amount"))
    frame.write_parquet(root / "rows.parquet")
    code, _, err = homeostat("run", "-p", root)
    assert code == 2
    assert "amount" in err
    fresh = files(root) - state  # the rows are kept as a version of the data; nothing was made of them
    assert all("tables/datasets" in path.as_posix() for path in fresh)
    assert state <= files(root)
    (root / "away.parquet").rename(root / "rows.parquet")
    code, out, _ = homeostat("run", "-p", root, "--json")
    assert code == 0
    assert all(step["cached"] for step in json.loads(out)["steps"])


def test_exit_codes_of_a_run(tmp_path: Path) -> None:
    root = projects.make(tmp_path / "cards")
    projects.edited(root, "homeostat.yaml", "gates:", "gates:\n  - {metric: roc_auc, at_least: 0.999}")
    assert homeostat("run", "-p", root)[0] == 1
    measured = json.loads(homeostat("run", "-p", root, "--json")[1])["measurements"][0]
    within = (measured["value"] + measured["low"]) / 2
    projects.edited(root, "homeostat.yaml", "0.999", f"{within}")
    assert homeostat("run", "-p", root)[0] == 3
    projects.edited(root, "homeostat.yaml", f"{within}", "many")
    code, _, err = homeostat("run", "-p", root)
    assert (code, "homeostat.yaml:12" in err) == (2, True)


def test_nowhere_is_no_project(tmp_path: Path) -> None:
    for command in (("run",), ("rehearse",), ("status",), ("up",), ("release", "status"), ("trace", "x")):
        code, out, err = homeostat(*command, "-p", tmp_path)
        assert (code, out) == (2, "")
        assert "there is no homeostat.yaml here" in err
    assert not list(tmp_path.iterdir())


def test_before_anything_is_released(tmp_path: Path) -> None:
    root = projects.make(tmp_path / "cards")
    assert "Nothing is released yet" in homeostat("status", "-p", root)[1]
    assert "Nothing was released yet" in homeostat("release", "history", "-p", root)[1]
    code, _, err = homeostat("release", "start", "-p", root)
    assert (code, "no version is registered yet" in err) == (2, True)
    code, _, err = homeostat("release", "rollback", "-p", root)
    assert (code, "nothing is released yet" in err) == (2, True)
    labels = root / "labels.csv"
    labels.write_text("id,label\na,1\n")
    code, _, err = homeostat("feedback", "add", labels, "-p", root)
    assert (code, "serves no version yet" in err) == (2, True)
    labels.write_text("name,label\na,1\n")
    code, _, err = homeostat("feedback", "add", labels, "-p", root)
    assert (code, "the column 'id' is missing" in err) == (2, True)


def test_two_data_planes_do_not_share_a_port(tmp_path: Path) -> None:
    root = projects.make(tmp_path / "cards")
    with hold("127.0.0.1", 0) as held, listen("127.0.0.1", held.getsockname()[1]) as worker:
        port = str(worker.getsockname()[1])
        for listens in (False, True):
            if listens:
                worker.listen()
            for workers in ("1", "2"):
                code, _, err = homeostat("serve", "-p", root, "--port", port, "--workers", workers)
                assert (code, f"can't listen on 127.0.0.1:{port}: Address already in use" in err) == (1, True)
        listen("127.0.0.1", int(port)).close()  # another worker of the same


def test_what_the_operating_system_refuses_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "homeostat.yaml").mkdir()
    code, _, err = homeostat("status", "-p", tmp_path)
    assert (code, err) == (2, f"✕ Is a directory\n  {tmp_path}/homeostat.yaml\n")


def test_the_log_is_compacted_by_hand(tmp_path: Path) -> None:
    data = csv(tmp_path / "rows.csv")
    assert homeostat("init", tmp_path / "p", "--data", data, "--target", "y", *EVERY)[0] == 0
    assert homeostat("compact", "-p", tmp_path / "p")[1] == "0 rows moved into the tables of the log.\n"
    policy = tmp_path / "p" / "homeostat.yaml"
    policy.write_text(policy.read_text() + "log: {retain: 90d, max_size: 1GB, sync: 5s, hash: [a]}\n")
    log, _ = logs(tmp_path / "p" / ".homeostat", "w1", read_policy(tmp_path / "p"))
    said = (["k"], [1], ["champion"], ["answer"], ["ok"], [9], [0.5], ["0"], [None])
    for at_ms, name in ((0, "old"), (2**40, "older")):
        log.append(LogBatch("p", at_ms, "R1", 0, [name], *said, {"a": [1], "b": [2.5]}))
    log.close()
    code, out, _ = homeostat("compact", "-p", tmp_path / "p", "--json")
    assert (code, json.loads(out)) == (0, {"rows": 2, "removed": "older than 90 d"})
    assert log.read("p", 0, 2**62).is_empty()
    key = tmp_path / "p" / ".homeostat" / "keys" / "log"
    assert (key.stat().st_mode & 0o777, len(key.read_bytes())) == (0o600, 32)


COMMANDS = [
    (),
    *(
        (name,)
        for name in (
            "init",
            "run",
            "rehearse",
            "demo",
            "up",
            "control",
            "serve",
            "compact",
            "predict",
            "stream",
            "status",
            "trace",
            "replay",
            "feedback",
            "retrain",
            "release",
            "monitor",
            "export",
            "token",
            "experiment",
            "alerts",
        )
    ),
    *(
        ("release", name)
        for name in ("start", "status", "history", "backtest", "explain", "approve", "reject", "rollback")
    ),
    *(("monitor", name) for name in ("report", "explain", "label-set")),
    *(("export", name) for name in ("edge", "prometheus", "grafana")),
    *(("token", name) for name in ("add", "list", "remove")),
    *(("feedback", name) for name in ("add", "status", "accept", "reject")),
    *(("experiment", name) for name in ("plan", "start", "status", "stop")),
    *(("alerts", name) for name in ("list", "show", "ack", "accept", "pause", "test")),
]


GROUPS = {
    ("monitor",): cli.monitor,
    ("release",): cli.release,
    ("export",): cli.export,
    ("token",): cli.token,
    ("experiment",): cli.experiment,
    ("feedback",): cli.feedback,
    ("alerts",): cli.alerts,
}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(command: tuple[str, ...]) -> None:
    said = RUNNER.invoke(cli.app, [*command, "--help"])
    assert said.exit_code == 0
    if command not in ((), *GROUPS):
        assert f"Example: homeostat {' '.join(command)}" in " ".join(said.output.split())


def test_help_lists_every_command_that_is_tested() -> None:
    known = {command.name or command.callback.__name__ for command in cli.app.registered_commands if command.callback}
    assert {*GROUPS, *((name,) for name in known)} == {one for one in COMMANDS if len(one) == 1}
    for (group,), below in GROUPS.items():
        orders = {command.name for command in below.registered_commands}
        assert orders == {one[1] for one in COMMANDS if len(one) == 2 and one[0] == group}


def test_help_imports_nothing_heavy() -> None:
    heavy = ("polars", "numpy", "mlflow", "hamilton", "rich")
    code = f"import sys, homeostat.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_duration_that_is_none_is_explained() -> None:
    code, _, err = homeostat("rehearse", "--warmup", "3 parsecs")
    assert code == 2
    assert "is not a duration" in " ".join(err.split())
