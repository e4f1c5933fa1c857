"""What the tests need of the machine: without it they are skipped, aloud, unless HOMEOSTAT_REQUIRE_SERVICES=1."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest


def lacking(what: str) -> NoReturn:
    """`what` says what is missing and how to get it."""
    if os.environ.get("HOMEOSTAT_REQUIRE_SERVICES") == "1":
        pytest.fail(what)
    pytest.skip(what)


def program(name: str, package: str) -> str:
    """Its path; Debian keeps servers off the PATH."""
    return (
        shutil.which(name) or shutil.which(name, path="/usr/sbin") or lacking(f"no {name}: apt-get install {package}")
    )


def place(pins: Path) -> Path:
    """Where `packages` puts them: a folder of its own for each content of `pins`, outside the tree."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "homeostat-tests"
    return cache / hashlib.sha256(pins.read_bytes()).hexdigest()[:12]


def packages(pins: Path) -> Path:
    """The folder of packages that do not fit beside our own pins; for PYTHONPATH. Installed once."""
    made = place(pins)
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        half = tempfile.mkdtemp(dir=made.parent)
        pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-compile", "--quiet", "--target", half]
        done = subprocess.run([*pip, "-r", pins], capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(half)
            lacking(f"the packages in {pins.name} can't be installed: {done.stderr[-300:]}")
        Path(half).rename(made)
    return made


if __name__ == "__main__":
    packages(Path(sys.argv[1]))
