"""Virtual environments for what would not fit beside our own pins. Made once, kept in the user's cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

PINS = Path(__file__).parent / "pins"


def folder(name: str) -> Path:
    """Where the environment with the pins of `pins/<name>.txt` is, or would be."""
    pins = (PINS / f"{name}.txt").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "homeostat-tests"
    return cache / f"{name}-{hashlib.sha256(pins + sys.version.encode()).hexdigest()[:12]}"


def made(name: str) -> bool:
    return (folder(name) / "ready").exists()


def make(name: str, beside_ours: bool = False) -> Path:
    """→ its `bin`. `beside_ours`: what is installed here can be imported there too. Errors: `CalledProcessError`."""
    home = folder(name)
    if not made(name):
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        pip = [home / "bin" / "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", PINS / f"{name}.txt"], check=True)
        if beside_ours:
            site = next((home / "lib").glob("python*/site-packages"))
            (site / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
        (home / "ready").touch()
    return home / "bin"


if __name__ == "__main__":
    make(sys.argv[1], beside_ours=sys.argv[2:] == ["--beside-ours"])
