"""One project folder, and the verbs of the command line on it."""

from __future__ import annotations

from pathlib import Path


class Project:
    """An open project. Make one with `homeostat.load`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def open(cls, root: str | Path) -> Project:
        return cls(Path(root))
