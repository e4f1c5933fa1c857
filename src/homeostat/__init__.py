"""Homeostat takes a machine-learning model from a notebook to production and keeps it healthy there.

import homeostat
project = homeostat.load("price")
project.run()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from homeostat.project import Project

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(root: str | Path) -> Project:
    """Open the project in folder `root` (the one that holds homeostat.yaml).

    Errors: `ConfigError` when the policy file is missing or wrong.
    """
    from homeostat.project import Project  # late: `import homeostat` stays quick

    return Project.open(root)
