"""A release after another on a running `homeostat up`, while callers go on calling."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.release.callers import Callers, Heard

RATE = 80.0
"""Requests a second."""
LOOK_S = 0.25
MOST_S = 150.0
"""For one release."""
FINAL = {"promoted", "rolled back", "rejected", "superseded"}


@dataclass(frozen=True)
class Ended:
    """A release that is over: its record, and what callers heard meanwhile."""

    record: dict[str, Any]
    heard: Heard

    @property
    def took_s(self) -> float:
        return (self.record["ended_ms"] - self.record["started_ms"]) / 1_000


class Up:
    """A running `homeostat up`."""

    def __init__(self, root: Path, port: int) -> None:
        self.root, self.port, self.model = root, port, "cards"
        self.told = root.parent / "up.log"

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The control API. Errors: `OSError` when it is not there, or refuses."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data, {"content-type": "application/json"}, method=method
        )
        return await asyncio.to_thread(_read, request)

    async def release(self, version: int, callers: Callers, seed: int) -> Ended:
        """Ask for it, and wait for its end. Errors: `TimeoutError` after `MOST_S`."""
        heard = callers.begin(seed)
        asked = await self.ask("POST", "/v1/releases", {"version": version, "who": "bench"})
        try:
            async with asyncio.timeout(MOST_S):
                while (record := await self._record(asked["id"]))["status"] not in FINAL:
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            told = await self.ask("GET", "/v1/status")
            raise TimeoutError(f"version {version} after {MOST_S:.0f} s: {told['next']}") from None
        return Ended(record, heard)

    async def take_back(self, release: str) -> None:
        """Roll a promoted release back, and wait for that."""
        await self.ask("POST", f"/v1/releases/{release}/rollback", {"reason": "it is bad", "who": "bench"})
        async with asyncio.timeout(MOST_S):
            while (await self._record(release))["status"] == "promoted":
                await asyncio.sleep(LOOK_S)

    async def _record(self, release: str) -> dict[str, Any]:
        releases = (await self.ask("GET", "/v1/releases"))["releases"]
        return next(one for one in releases if one["id"] == release)


def _read(request: urllib.request.Request) -> Any:
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise OSError(f"{error.code}: {error.read().decode()}") from None


@asynccontextmanager
async def running(root: Path) -> AsyncIterator[Up]:
    """`homeostat up` on a free port, ready to answer; ended afterwards."""
    up = Up(root, _two_free_ports())
    command = [sys.executable, "-m", "homeostat", "up", "-p", str(root), "--port", str(up.port)]
    with up.told.open("wb") as told, subprocess.Popen(command, stdout=told, stderr=told, env=dict(os.environ)) as child:
        try:
            while not await asyncio.to_thread(_ready, up.port + 1):
                if child.poll() is not None:
                    raise RuntimeError(up.told.read_text())
                await asyncio.sleep(0.1)
            yield up
        finally:
            child.terminate()
            await asyncio.to_thread(child.wait, 30)


@asynccontextmanager
async def calling(up: Up, most_s: float) -> AsyncIterator[Callers]:
    """Callers of its data plane, for at most so long."""
    callers = Callers(up.port + 1, up.model, RATE)
    task = asyncio.create_task(callers.run(round(RATE * most_s)))
    try:
        yield callers
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _two_free_ports() -> int:
    """→ the first of two neighbours that nobody uses, below those that the kernel gives to clients."""
    for port in range(20_001 + os.getpid() % 3_000 * 3, 32_000, 3):
        with socket.socket() as one, socket.socket() as two:
            try:
                one.bind(("127.0.0.1", port))
                two.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
    raise RuntimeError("no two free ports")
