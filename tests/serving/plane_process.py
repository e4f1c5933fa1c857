"""A worker in a process of its own, for tests that kill it: python plane_process.py FOLDER [PORT]. Prints its port."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

from homeostat.adapters.runtime import OnnxRuntime
from homeostat.domain.errors import NotFound
from homeostat.serving.http import Limits
from homeostat.serving.messages import ids
from homeostat.serving.server import serve
from homeostat.serving.sockets import listen
from homeostat.serving.tick import Engine
from homeostat.stores.days import DayTables
from homeostat.stores.predictions import SegmentLabels, SegmentLog
from homeostat.stores.routing import FileRouter


class Clock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def timer_ns(self) -> int:
        return time.perf_counter_ns()


class Folder:
    """Blobs as files."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self._root.mkdir(exist_ok=True)
        (self._root / digest).write_bytes(data)
        return digest

    def get(self, digest: str) -> bytes:
        try:
            return (self._root / digest).read_bytes()
        except FileNotFoundError:
            raise NotFound("no such blob") from None


def main(root: Path, port: int = 0) -> None:
    clock, prefix = Clock(), f"{time.time_ns():x}{os.getpid():x}"
    log = SegmentLog(root / "log", "w1", DayTables(root / "tables"))
    labels = SegmentLabels(root / "log", "w1", DayTables(root / "tables"))
    engine = Engine(
        Folder(root / "blobs"), OnnxRuntime(), log, labels, clock, FileRouter(root / "routing.json"), ids(prefix)
    )
    bound = listen("127.0.0.1", port)

    def started() -> None:
        os.write(1, b"%d\n" % bound.getsockname()[1])

    serve(engine, [bound], Limits(), started)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
