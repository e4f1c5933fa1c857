"""The control plane's questions to the workers of the data plane, over HTTP."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from homeostat import codec

_TIMEOUT_S = 2.0


class HttpPlane:
    """`ports.Plane`. `workers` gives the base URL of each, like `http://127.0.0.1:8701`."""

    def __init__(self, workers: Callable[[], Sequence[str]]) -> None:
        self._workers = workers

    def ready(self, model: str, bundle: str) -> bool:
        """True when there are workers and every one has the bundle. Asking has it loaded: the first answer is False, a
        later one tells. A worker that can't be reached is not ready."""
        del model
        told = [_ready(f"{url}/v1/bundles/{quote(bundle, safe='')}/ready") for url in self._workers()]  # ask all
        return bool(told) and all(told)


@contextmanager
def announce(folder: Path, worker: str, url: str) -> Iterator[None]:
    """While it lasts, `announced` tells this process's URL."""
    folder.mkdir(parents=True, exist_ok=True)
    path, part = folder / f"{worker}.json", folder / f"{worker}.{os.getpid()}.part"
    part.write_bytes(codec.encode({"pid": os.getpid(), "url": url}))
    part.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def announced(folder: Path) -> list[str]:
    """The URLs of the workers that live. One that was killed could not take its own back."""
    told = [codec.decode(path.read_bytes(), dict) for path in sorted(folder.glob("*.json"))]
    return [str(worker["url"]) for worker in told if _lives(int(worker["pid"]))]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:
            return bool(json.load(response)["ready"])
    except (OSError, ValueError):  # not there, or a 503 with its reason
        return False
