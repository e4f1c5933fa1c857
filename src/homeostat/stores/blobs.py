"""Immutable bytes under their digest, as files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from homeostat.domain.errors import Corrupt, NotFound
from homeostat.stores.files import write_atomic


class FileBlobs:
    """`ports.Blobs` below the folder `root`: ab/cdef… holds the bytes with digest abcdef… What is not there is looked
    for below the `others`: under its digest it is the same everywhere."""

    def __init__(self, root: Path, *others: Path) -> None:
        self._root, self._others = root, others

    def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        path = self._path(digest)
        if not (path.is_file() and path.read_bytes() == data):
            write_atomic(path, data)
        return digest

    def get(self, digest: str) -> bytes:
        places = [self._path(digest, root) for root in (self._root, *self._others)]
        path = next((place for place in places if place.is_file()), places[0])
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise NotFound(f"there is no blob {digest}") from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise Corrupt(f"blob {digest[:12]} does not match its digest", where=str(path))
        return data

    def _path(self, digest: str, root: Path | None = None) -> Path:
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise NotFound(f"{digest!r} is not a digest")
        return (root or self._root) / digest[:2] / digest[2:]
