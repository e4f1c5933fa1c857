"""Bundles: everything that decides an answer, under one digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from homeostat import codec
from homeostat.domain.bundle import Bundle
from homeostat.domain.run import RunRecord
from homeostat.ports import Blobs


class Bundles:
    """A bundle's id is the digest of its manifest, which holds the digests of its files."""

    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs

    def save(self, manifest: Bundle, files: Mapping[str, bytes]) -> str:
        """→ the id. The files are stored first: a manifest that can be read is whole."""
        digests = {name: self.blobs.put(data) for name, data in sorted(files.items())}
        return self.blobs.put(codec.encode(replace(manifest, files=digests)))

    def load(self, bundle: str) -> Bundle:
        """Errors: `NotFound`, `Corrupt`."""
        return codec.decode(self.blobs.get(bundle), Bundle)

    def file(self, bundle: Bundle, name: str) -> bytes:
        """Errors: `NotFound`, `Corrupt`."""
        return self.blobs.get(bundle.files[name])

    def record(self, bundle: Bundle) -> RunRecord:
        """The run that made it. Errors: `NotFound`, `Corrupt`."""
        return codec.decode(self.file(bundle, "run.json"), RunRecord, exactly=True)
