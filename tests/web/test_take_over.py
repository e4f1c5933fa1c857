"""Two control planes on one database: real processes, one killed and one stopped in the middle of a move."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from homeostat.domain.rollout import Status
from homeostat.project import Project
from homeostat.stores import sql

PATIENCE_S = 60.0
HOOK = """
import json, sys, time
from pathlib import Path
message = json.load(sys.stdin)
with open("hooked.txt", "a") as out:
    out.write(message["id"] + "\\n")
while Path("wait").exists():
    time.sleep(0.02)
"""
RELEASE = """
release:
  steps: [shadow, pause, 100%]
  hooks: {before_step: "PYTHON hook.py", after_outcome: "PYTHON hook.py"}
database: "URL"
"""


class Control:
    """A running `homeostat control`."""

    def __init__(self, root: Path, name: str) -> None:
        command = [sys.executable, "-m", "homeostat", "control", "-p", str(root)]
        self.said = root.parent / f"{name}.log"
        with self.said.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def leads(self, term: int) -> bool:
        assert self.process.poll() is None, self.said.read_text()
        return f"leads, in term {term}." in self.said.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


@contextmanager
def data_plane(root: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "homeostat", "serve", "-p", str(root), "--port", "0", "--workers", "1"]
    with (root.parent / "plane.log").open("ab") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield
        finally:
            process.terminate()


def stop(control: Control, engine: sa.Engine) -> None:
    """SIGSTOP, outside of any transaction: no other process could write before this one's ends."""

    def stopped() -> bool:
        os.kill(control.process.pid, signal.SIGSTOP)
        os.waitpid(control.process.pid, os.WUNTRACED)
        try:
            with engine.begin() as connection:
                if engine.dialect.name == "sqlite":
                    connection.execute(sa.text("PRAGMA busy_timeout=0"))
                else:
                    connection.execute(sa.text("SET LOCAL lock_timeout = '50ms'"))
                connection.execute(sql.LEASES.update().values(holder=sql.LEASES.c.holder))
                return True
        except sa.exc.OperationalError:
            os.kill(control.process.pid, signal.SIGCONT)
            return False

    until(stopped)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state.db'}"
    found = str(request.getfixturevalue("postgres_url"))
    engine = sql.connect(found)
    with engine.begin() as connection:
        connection.execute(sa.text("TRUNCATE journal, rollouts, leases"))
    engine.dispose()
    return found


@pytest.fixture
def cards(project: Project, tmp_path: Path, url: str) -> Iterator[Project]:
    """The project, with hooks and this database."""
    root = tmp_path / "cards"
    shutil.copytree(project.root, root)
    shutil.copy(project.root.parent / "rows.csv", tmp_path)
    (root / "hook.py").write_text(HOOK)
    policy = root / "homeostat.yaml"
    kept = re.sub(r"^release:.*\n(?:[ #].*\n)*", "", policy.read_text(), flags=re.MULTILINE)
    policy.write_text(kept + RELEASE.replace("PYTHON", sys.executable).replace("URL", url))
    opened = Project.open(root)
    yield opened
    journal = opened.system.stores.journal
    assert isinstance(journal, sql.SqlJournal)
    journal._engine.dispose()


def test_the_one_in_reserve_takes_over_and_no_move_is_made_twice(cards: Project, url: str) -> None:
    """How long each take-over took is shown by `pytest -rP`."""
    engine, begun = sql.connect(url), list[Control]()
    try:
        with data_plane(cards.root):
            stopped_s, killed_s = _two_lives(cards, engine, begun)
            sys.stdout.write(f"taken over {stopped_s:.1f} s after a stop, {killed_s:.1f} s after a kill\n")
    finally:
        for one in begun:
            one.kill()
        engine.dispose()


def _two_lives(project: Project, engine: sa.Engine, begun: list[Control]) -> list[float]:
    """→ seconds from a stop, and from a kill, to the take-over."""
    root, releases = project.root, project.release
    one = Control(root, "one")
    begun.append(one)
    until(lambda: one.leads(1))
    until(lambda: [each.status for each in releases.history()] == [Status.PROMOTED])
    two = Control(root, "two")
    begun.append(two)
    until(lambda: "in reserve" in two.said.read_text())

    train = root / "pipelines" / "train.py"
    train.write_text(train.read_text().replace('"num_leaves": 15', '"num_leaves": 7'))
    assert project.run().version is not None
    (root / "wait").touch()
    releases.start(who="ada")
    until(lambda: "R2:before:0" in (root / "hooked.txt").read_text())
    stop(one, engine)  # its hook goes on
    stopped_s = time.monotonic()
    until(lambda: two.leads(2))
    took = [time.monotonic() - stopped_s]
    (root / "wait").unlink()
    until(lambda: releases.history()[-1].status is Status.RUNNING)
    os.kill(one.process.pid, signal.SIGCONT)
    until(lambda: "in reserve" in one.said.read_text())

    two.kill()
    killed_s = time.monotonic()
    releases.order("approve", "R2", "seen enough", "ada")
    until(lambda: one.leads(3))
    took.append(time.monotonic() - killed_s)
    until(lambda: releases.history()[-1].status is Status.WAITING)
    releases.order("reject", "R2", "no", "ben")
    until(lambda: releases.history()[-1].status is Status.REJECTED)
    until(lambda: "R2:after:rejected" in (root / "hooked.txt").read_text())

    journal = project.system.stores.journal.read(project.policy.name, "release.", "R2")
    moves = [event.kind for event in journal if event.kind.split(".")[1] in KINDS]
    assert moves == [f"release.{kind}" for kind in KINDS]
    assert releases.history()[-1].revision == 5
    ids = [line for line in (root / "hooked.txt").read_text().split() if line.startswith("R2")]
    assert ids.count("R2:before:0") == 2  # who ran it first was stopped before it could say so
    assert sorted(set(ids)) == ["R2:after:rejected", "R2:before:0", "R2:before:1"]
    assert len(ids) == 4
    routed = [
        event.body["route"] for event in project.system.stores.journal.read(project.policy.name, "release.routed")
    ]
    assert [(route["release"], route["weight"], route["shadow"]) for route in routed] == [
        ("R1", 0, False),
        ("R2", 0, True),
        ("R1", 0, False),
    ]
    assert json.loads((root / ".homeostat" / "routing.json").read_text())["term"] == 3
    return took


KINDS = ("queued", "started", "advanced", "waiting", "rejected")
