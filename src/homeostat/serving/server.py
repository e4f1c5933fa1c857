"""One worker of the data plane: listens, follows the routing document, and leaves in good order."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext

import uvloop

from homeostat.serving.http import Connection, Hub, Limits
from homeostat.serving.tick import Engine

POLL_S = 0.1
GRACE_S = 10.0
_BACKLOG = 1_024
Door = Callable[[Hub], AbstractAsyncContextManager[object]]
"""Another way in to what the hub answers, open while it lasts."""


def serve(
    engine: Engine,
    bound: Sequence[socket.socket],
    limits: Limits,
    started: Callable[[], None] = lambda: None,
    door: Door = nullcontext,
) -> None:
    """Run until SIGTERM or SIGINT; then answer what is under way, for at most `GRACE_S`. `started` is called once
    connections are accepted. Main thread only."""
    uvloop.run(_serve(engine, bound, limits, started, door))


async def _serve(
    engine: Engine, bound: Sequence[socket.socket], limits: Limits, started: Callable[[], None], door: Door
) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    engine.refresh()
    _calm_collector()
    hub = Hub(engine, limits, loop)
    servers = [await loop.create_server(lambda: Connection(hub), sock=one, backlog=_BACKLOG) for one in bound]
    follower = asyncio.create_task(_follow(engine))
    loop.call_soon(hub.sweep)
    async with door(hub):
        started()
        await stop.wait()
        for server in servers:
            server.close()
        hub.drain()
    await _drained(hub)
    follower.cancel()


def _calm_collector() -> None:
    """What is loaded by now stays: the collector need not look at it again, and a tick makes thousands of objects
    that die with it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    sys.setswitchinterval(0.0002)  # the loop and the thread of slow ticks get their turns soon


async def _follow(engine: Engine) -> None:
    """Poll the routing document. Loading happens in a thread, so that the others go on being answered."""
    loop = asyncio.get_running_loop()
    while True:
        await loop.run_in_executor(None, engine.refresh)
        await asyncio.sleep(POLL_S)


async def _drained(hub: Hub) -> None:
    hub.drain()
    end = hub.loop.time() + GRACE_S
    while hub.loop.time() < end and any(connection.busy for connection in hub.connections):
        await asyncio.sleep(0.01)
