"""A project that serves, and what runs an export of it: Node, onnxruntime-web and Chromium. Without one of these its
tests are skipped, aloud; HOMEOSTAT_REQUIRE_SERVICES=1 forbids that."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import homeostat
import projects
from homeostat import cli
from homeostat.domain.errors import NotFound
from homeostat.project import Project
from needs import lacking

WEB = Path(__file__).parent / "web"


def needed(program: str, package: str) -> str:
    """The path of a program."""
    return shutil.which(program) or lacking(f"{program} is not installed: apt-get install {package}")


@pytest.fixture(scope="session")
def node() -> str:
    """Node 20 or newer."""
    program = needed("node", "nodejs")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    assert int(version.lstrip("v").split(".")[0]) >= 20, f"Node {version} is too old"
    return program


@pytest.fixture(scope="session")
def chromium() -> str:
    return needed("chromium", "chromium")


@pytest.fixture(scope="session")
def runtime_web(node: str) -> Path:
    """The files of onnxruntime-web, installed once into a cache outside the tree."""
    del node
    npm = needed("npm", "npm")
    lock = (WEB / "package-lock.json").read_bytes()
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "homeostat-tests"
    home = caches / hashlib.sha256(lock).hexdigest()[:16]
    caches.mkdir(parents=True, exist_ok=True)
    with (caches / "lock").open("w") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        if not (home / "done").exists():
            home.mkdir(exist_ok=True)
            for name in ("package.json", "package-lock.json"):
                shutil.copy(WEB / name, home)
            done = subprocess.run(
                [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                cwd=home,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            (home / "done").touch()
    return home / "node_modules" / "onnxruntime-web" / "dist"


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Its first version serves."""
    opened = homeostat.load(projects.make(tmp_path_factory.mktemp("project") / "cards"))
    opened.run()
    system = opened.system
    system.plane = system.engine
    system.control.begin()
    system.control.settle()
    return opened


@pytest.fixture(scope="session")
def exported(project: Project) -> Path:
    folder = project.root / "site" / "model"
    said = CliRunner().invoke(cli.app, ["export", "edge", str(folder), "-p", str(project.root), "--json"])
    made = json.loads(said.stdout)
    assert (said.exit_code, made["version"], made["folder"]) == (0, 1, str(folder))
    key = project.root / ".homeostat" / "keys" / "edge.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode == folder.parent.stat().st_mode  # a web server may read it
    again = project.export.edge(folder, 1)
    assert (again.fingerprint, again.bundle) == (made["fingerprint"], made["bundle"])
    with pytest.raises(NotFound, match="no version 7"):
        project.export.edge(folder, 7)
    return folder


@pytest.fixture(scope="session")
def plane(project: Project) -> Iterator[str]:
    """`homeostat serve` → its address."""
    command = [sys.executable, "-m", "homeostat", "serve", "-p", str(project.root), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        yield next(line for line in process.stderr if "Data plane on" in line).split()[-1]
    finally:
        process.terminate()
        process.communicate()
