"""Homeostat takes a machine-learning model from a notebook to production and keeps it healthy there.

import homeostat
project = homeostat.load("price")
project.run()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from homeostat.client import AsyncClient, Client
    from homeostat.project import Project

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """The clients are imported when they are first used: `import homeostat` stays quick."""
    if name not in ("AsyncClient", "Client"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from homeostat import client

    return getattr(client, name)


def load(root: str | Path) -> Project:
    """Open the project in folder `root` (the one that holds homeostat.yaml).

    Errors: `ConfigError` when the policy file is missing or wrong.
    """
    from homeostat.project import Project  # late: `import homeostat` stays quick

    return Project.open(root)
