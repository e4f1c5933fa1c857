"""Hooks: a command without a shell, or a POST to a URL. Both get the message as JSON, and have the same time."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from homeostat import codec
from homeostat.domain.units import show_duration

TIMEOUT_S = 30.0
"""The control loop waits for a hook: what takes longer belongs into a job that the hook starts or looks at."""


class ProjectHooks:
    """`ports.Hook`. Commands run in the project's folder and read the message on standard input."""

    def __init__(self, root: Path, timeout_s: float = TIMEOUT_S) -> None:
        self._root, self._timeout_s = root, timeout_s

    def run(self, hook: str, message: Mapping[str, Any]) -> str:
        body = codec.encode(message)
        if hook.startswith(("http://", "https://")):
            return self._posted(hook, body, str(message["id"]))
        return self._executed(hook, body)

    def _executed(self, command: str, body: bytes) -> str:
        """A command that takes too long is killed with all that it started."""
        pipe = subprocess.PIPE
        try:
            words = shlex.split(command)
            process = subprocess.Popen(
                words, stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe, cwd=self._root, start_new_session=True
            )
        except (OSError, ValueError) as error:
            return f"{command}: {error}"
        with process:
            try:
                _, said = process.communicate(body, self._timeout_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                return f"{command}: no end after {self._time}"
        lines = said.decode(errors="replace").strip().splitlines()
        return f"{command}: exit code {process.returncode}, {lines[-1] if lines else 'no word'}" * bool(
            process.returncode
        )

    def _posted(self, url: str, body: bytes, identity: str) -> str:
        headers = {"content-type": "application/json", "idempotency-key": identity}
        request = urllib.request.Request(url, body, headers)
        try:
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=self._timeout_s):
                return ""
        except (OSError, ValueError) as error:  # HTTPError and URLError are OSErrors
            return f"{url}: {error}"

    @property
    def _time(self) -> str:
        return show_duration(round(self._timeout_s * 1_000))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A POST that is redirected would arrive as a GET without its body."""

    def redirect_request(self, *_: Any) -> None:
        return None
