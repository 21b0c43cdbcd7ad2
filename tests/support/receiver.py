"""Somebody else's endpoint: a real HTTP server that notes what it was sent and answers as it is told."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager


class Receiver:
    def __init__(self):
        self.got = []
        self.answer = lambda headers, body: 204
        self.extra = ""
        self.port = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def bodies(self):
        return [json.loads(body) for _, body in self.got]

    async def serve(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")[1:]
        headers = {k.lower(): v for k, _, v in (one.partition(": ") for one in lines if one)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        status = self.answer(headers, body)
        self.got.append((headers, body))
        writer.write(f"HTTP/1.1 {status} x\r\n{self.extra}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())  # fmt: skip
        await writer.drain()
        writer.close()


@asynccontextmanager
async def receiving(tls=None):
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
