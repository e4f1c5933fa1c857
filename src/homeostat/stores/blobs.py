"""Immutable bytes under their digest, as files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from homeostat.domain.errors import Corrupt, NotFound
from homeostat.stores.files import write_atomic


class FileBlobs:
    """`ports.Blobs` below the folder `root`: ab/cdef… holds the bytes with digest abcdef…"""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        path = self._path(digest)
        if not (path.is_file() and path.read_bytes() == data):
            write_atomic(path, data)
        return digest

    def get(self, digest: str) -> bytes:
        try:
            data = self._path(digest).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"there is no blob {digest}") from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise Corrupt(f"blob {digest[:12]} does not match its digest", where=str(self._path(digest)))
        return data

    def _path(self, digest: str) -> Path:
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise NotFound(f"{digest!r} is not a digest")
        return self._root / digest[:2] / digest[2:]
