"""The HTTP side over real sockets, around an engine in memory."""

from __future__ import annotations

import asyncio
import threading

import uvloop
from worlds import World

from homeostat.serving.http import Connection, Hub, Limits


class Server:
    """It runs on a loop of its own thread."""

    def __init__(self, world: World, limits: Limits) -> None:
        self.world = world
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._start(limits), self._loop).result(10)

    async def _start(self, limits: Limits) -> int:
        self.hub = Hub(self.world.engine, limits, self._loop)
        self._server = await self._loop.create_server(lambda: Connection(self.hub), "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            for connection in list(self.hub.connections):
                connection._transport.abort()
            await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def expire(self, seconds: float) -> None:
        """As the sweep does, `seconds` from now."""

        async def later() -> None:
            for connection in list(self.hub.connections):
                connection.expire(self._loop.time() + seconds)

        asyncio.run_coroutine_threadsafe(later(), self._loop).result(10)
