"""Runs and versions in memory: for rehearsals, which touch nothing that production uses, and for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from homeostat.domain.bundle import Version
from homeostat.domain.gate import Measurement


class MemoryTracker:
    """`ports.Tracker` in a list."""

    def __init__(self) -> None:
        self._versions: list[Version] = []
        self.aliases: dict[tuple[str, str], Version] = {}

    def log_run(
        self,
        run: str,
        model: str,
        params: Mapping[str, str],
        measurements: Sequence[Measurement],
        files: Mapping[str, bytes],
    ) -> None:
        """A rehearsal's runs are told by its journal."""

    def register(self, model: str, run: str, bundle: str, onnx: bytes) -> Version:
        del onnx
        mine = self.versions(model)
        known = next((one for one in mine if (one.run, one.bundle) == (run, bundle)), None)
        made = known or Version(model, len(mine) + 1, bundle, run)
        if known is None:
            self._versions.append(made)
        return made

    def alias(self, version: Version, alias: str) -> None:
        self.aliases[version.model, alias] = version

    def versions(self, model: str) -> Sequence[Version]:
        return [one for one in self._versions if one.model == model]
