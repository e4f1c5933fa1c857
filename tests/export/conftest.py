"""Node, onnxruntime-web and Chromium for the edge. Without one its tests are skipped, aloud;
HOMEOSTAT_REQUIRE_SERVICES=1 forbids that."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

WEB = Path(__file__).parent / "web"


def needed(program: str, package: str) -> str:
    """The path of a program."""
    found = shutil.which(program)
    if found is None:
        missing = f"{program} is not installed: apt-get install {package}"
        if os.environ.get("HOMEOSTAT_REQUIRE_SERVICES") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


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
