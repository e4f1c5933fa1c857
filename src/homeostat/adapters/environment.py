"""The environment of a run, as text."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib.metadata import distributions


@cache
def environment() -> str:
    """Python, platform and every installed distribution, one a line, sorted by name."""
    found = {(one.metadata["Name"].lower(), one.version) for one in distributions()}
    lines = [f"python=={platform.python_version()}", f"platform=={platform.system().lower()}-{platform.machine()}"]
    return "\n".join([*lines, *(f"{name}=={version}" for name, version in sorted(found))]) + "\n"


@cache
def machine() -> str:
    """What a model does not hang on, but its answers may: no part of a bundle's environment."""
    return f"machine=={platform.node()}\ncpus=={os.cpu_count()}\n"
