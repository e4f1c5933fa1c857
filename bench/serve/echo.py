"""The limit: a fixed answer on the stack that the data plane uses (uvloop, asyncio.Protocol, httptools)."""

from __future__ import annotations

import asyncio
import os
import sys

import httptools
import uvloop

BODY = b'{"release":"R1","model_version":1,"predictions":[{"id":"0123456789-1f","score":0.123456789,"label":0}]}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)

    def on_message_complete(self) -> None:
        self.transport.write(ANSWER)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port, reuse_port=True)
    await server.serve_forever()


if __name__ == "__main__":
    for _ in range(int(sys.argv[2]) - 1):  # the other workers
        if not os.fork():
            break
    uvloop.run(main(int(sys.argv[1])))
