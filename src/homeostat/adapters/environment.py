"""The environment of a run, as text."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import distributions


@cache
def environment() -> str:
    """Python, platform and every installed distribution, one a line, sorted by name."""
    found = {(one.metadata["Name"].lower(), one.version) for one in distributions()}
    lines = [f"python=={platform.python_version()}", f"platform=={platform.system().lower()}-{platform.machine()}"]
    return "\n".join([*lines, *(f"{name}=={version}" for name, version in sorted(found))]) + "\n"
