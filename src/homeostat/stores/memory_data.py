"""Tables, blobs and step results in memory: for rehearsals, which touch nothing that production uses, and for tests."""

from __future__ import annotations

import hashlib
import pickle
from typing import Any

import polars as pl

from homeostat.domain.errors import NotFound
from homeostat.ports import MISSING


class MemoryTables:
    """`ports.Tables`; every version shares the columns it did not change."""

    def __init__(self) -> None:
        self._versions: dict[str, list[pl.DataFrame]] = {}

    def write(self, name: str, frame: pl.DataFrame) -> int:
        versions = self._versions.setdefault(name, [])
        versions.append(frame)
        return len(versions) - 1

    def append(self, name: str, frame: pl.DataFrame) -> int:
        versions = self._versions.get(name)
        return self.write(name, pl.concat([versions[-1], frame], rechunk=False) if versions else frame)

    def read(self, name: str, version: int | None = None) -> pl.LazyFrame:
        versions = self._versions.get(name, [])
        number = len(versions) - 1 if version is None else version
        if not 0 <= number < len(versions):
            raise NotFound(f"there is no version {version} of table {name}")
        return versions[number].lazy()

    def version(self, name: str) -> int | None:
        return len(self._versions[name]) - 1 if name in self._versions else None


class MemoryBlobs:
    """`ports.Blobs` in a dict."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self._blobs[digest] = data
        return digest

    def get(self, digest: str) -> bytes:
        if digest not in self._blobs:
            raise NotFound(f"there is no blob {digest}")
        return self._blobs[digest]


class MemoryCache:
    """`ports.StepCache` in a dict. Values are kept pickled: a caller that changes one changes nobody else's."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}

    def get(self, key: str) -> Any:
        return pickle.loads(self._values[key]) if key in self._values else MISSING

    def put(self, key: str, value: Any) -> None:
        self._values[key] = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
