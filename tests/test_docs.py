"""What the documents say is there, and what is there is in them."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest

import pictures
import projects
from homeostat import cli
from homeostat.config import read_policy
from homeostat.demo.story import make
from homeostat.demo.stream import Script
from homeostat.domain.policy import Budget, Policy
from homeostat.engines import drift, inject, metrics, steps, trigger

ROOT = Path(__file__).parents[1]
DOCS = {path.name: path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}
EVERYTHING = "\n".join(DOCS.values())


def settings(kind: type, below: str = "") -> Iterator[str]:
    hints = get_type_hints(kind)
    for one in fields(kind):
        if is_dataclass(hints[one.name]) and hints[one.name] is not Budget:
            yield from settings(hints[one.name], f"{below}{one.name}.")
        else:
            yield below + one.name


def test_every_setting_is_documented_and_no_other() -> None:
    assert set(re.findall(r"^\| `([\w.]+)` \|", DOCS["policy.md"], re.MULTILINE)) == set(settings(Policy))


def test_every_piece_of_a_policy_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ALERT_URL", "BOSS_URL", "CHAT_URL"):
        monkeypatch.setenv(name, "json://localhost")
    root, piece = projects.make(tmp_path / "cards"), tmp_path / "piece.yaml"
    pieces = [(page, text) for page in DOCS for text in re.findall(r"```yaml\n(\w+:.*?)```", DOCS[page], re.DOTALL)]
    assert len(pieces) > 10
    for page, text in pieces:
        piece.write_text(text.replace(", …", ""))
        assert read_policy(root, piece), page


def test_every_kind_is_documented() -> None:
    for name in (*metrics.METRICS, *trigger.KINDS, *(kind.value for kind in steps.KINDS)):
        if name not in ("canary", "full", "manual"):  # written as a share; asked for by hand
            assert f"{name}" in DOCS["policy.md"], name
    for name in drift.TESTS:
        assert f"`{name}`" in DOCS["drift.md"], name
    for kind in inject.KINDS:
        form = inject.form(kind).replace("|", r"\|")  # in a table
        assert f"| `{form}` |" in DOCS["scenarios.md"]


def test_every_command_is_documented() -> None:
    names = [command.name or getattr(command.callback, "__name__", "") for command in cli.app.registered_commands]
    for name in names:
        assert f"homeostat {name}" in EVERYTHING, name
    for group, below in (
        ("export", cli.export),
        ("feedback", cli.feedback),
        ("token", cli.token),
        ("experiment", cli.experiment),
        ("alerts", cli.alerts),
    ):
        for command in below.registered_commands:
            assert f"homeostat {group} {command.name}" in EVERYTHING
    for command in cli.release.registered_commands:
        assert str(command.name) in EVERYTHING


def test_the_picture_of_a_release_is_current() -> None:
    assert pictures.PATH.read_text() == pictures.picture(), "python tests/pictures.py"


def test_links_lead_somewhere() -> None:
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def commands(text: str) -> list[str]:
    return [line[2:] for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]


def test_the_commands_of_the_readme_work(tmp_path: Path) -> None:
    """All but the servers and what asks them: tests/web does that."""
    make(tmp_path / "homeostat-demo", 1, Script(days=40, payments_a_day=60))
    here, done = tmp_path, []
    for command in commands(DOCS["README.md"]):
        words = shlex.split(command)
        if words[0] == "cd":
            here /= words[1]
        elif words[0] == "homeostat" and words[1] not in ("up", "trace"):
            ran = subprocess.run([sys.executable, "-m", *words], cwd=here, capture_output=True, text=True, check=False)
            assert ran.returncode == 0, f"{command}: {ran.stderr}"
            done.append(words[1])
    assert done == ["init", "run", "rehearse", "status"]
    assert read_policy(here).data.key == "card"


@pytest.mark.parametrize("name", list(DOCS))
def test_no_document_is_long(name: str) -> None:
    assert len(DOCS[name].splitlines()) <= 120, "split it, or say it shorter"
