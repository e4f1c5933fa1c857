"""Results of pipeline steps, as checksummed files.

Values are pickled: estimators have no other form. Unpickling runs code, so a cache is only read from a folder that this
user owns and nobody else may write to.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import stat
from pathlib import Path
from typing import Any

from homeostat.domain.errors import Refused
from homeostat.ports import MISSING
from homeostat.stores.files import write_atomic

_DIGEST = hashlib.sha256().digest_size


class FileCache:
    """`ports.StepCache` in the folder `root`. A damaged result counts as missing: it is made again."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, key: str) -> Any:
        path = self._path(key)
        if not path.is_file():
            return MISSING
        self._refuse_foreign(self._root)
        self._refuse_foreign(path)
        data = path.read_bytes()
        if hashlib.sha256(data[_DIGEST:]).digest() != data[:_DIGEST]:
            return MISSING
        return pickle.loads(data[_DIGEST:])

    def put(self, key: str, value: Any) -> None:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        data = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
        write_atomic(self._path(key), hashlib.sha256(data).digest() + data)

    def _path(self, key: str) -> Path:
        return self._root / hashlib.sha256(key.encode()).hexdigest()

    @staticmethod
    def _refuse_foreign(path: Path) -> None:
        state = path.stat()
        if state.st_uid != os.getuid() or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Refused(
                "the step cache could have been written by someone else, so it is not read",
                where=str(path),
                way_out="Delete the folder; or make it yours alone: chown, chmod go-w.",
            )
