"""A virtual environment for each product: its pins would not fit ours. Made once, kept in the user's cache.

`peers/<name>.txt` is what `pip freeze` says after installing mlflow or litserve or ..., with uvloop and httptools.
(MLServer's pool of processes does not start with uvloop 0.23: it has 0.21.)
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench.serve.measure import Unable

PEERS = Path(__file__).parent / "peers"


def programs(name: str, folder: Path = PEERS) -> Path:
    """The `bin` folder of the environment with the pins of `<folder>/<name>.txt`. Errors: `Unable`."""
    pins = (folder / f"{name}.txt").read_bytes()
    home = _cache() / f"{name}-{hashlib.sha256(pins + sys.version.encode()).hexdigest()[:12]}"
    if not (home / "ready").exists():
        shutil.rmtree(home, ignore_errors=True)
        sys.stderr.write(f"{name}: installing into {home}, once\n")
        _run([sys.executable, "-m", "venv", home])
        _run([home / "bin" / "pip", "install", "-q", "--no-deps", "-r", folder / f"{name}.txt"])
        (home / "ready").touch()
    return home / "bin"


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "homeostat-bench"


def _run(command: list[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unable(f"it can't be installed: {' '.join(done.stderr.split())[-300:]}")
