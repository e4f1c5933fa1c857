"""The control plane's questions to the data plane, over HTTP."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from urllib.parse import quote

_TIMEOUT_S = 2.0


class HttpPlane:
    """`ports.Plane` for workers at base URLs like `http://127.0.0.1:8701`."""

    def __init__(self, *workers: str) -> None:
        self._workers: Sequence[str] = [url.rstrip("/") for url in workers]

    def ready(self, model: str, bundle: str) -> bool:
        """True when every worker has the bundle. Asking has it loaded: the first answer is False, a later one tells.
        A worker that can't be reached is not ready."""
        del model
        told = [_ready(f"{worker}/v1/bundles/{quote(bundle, safe='')}/ready") for worker in self._workers]  # ask all
        return all(told)


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:
            return bool(json.load(response)["ready"])
    except (OSError, ValueError):  # not there, or a 503 with its reason
        return False
