"""A server on loopback that falls silent at a chosen point of a connect over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

Stage = Literal[
    "no answer",
    "half an answer",
    "no answer after OPEN",
    "no answer to the upgrade",
    "half an answer to the first POST",
]


class Silent:
    """Falls silent at a stage, and says so by `reached`."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.reached = asyncio.Event()
        self.url = ""
        self._gone = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the first request where the stage is a later one; then hold the connection."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            while self.stage not in {"no answer", "half an answer"} and b"sid=" not in head:
                upgrades = ["websocket"] if self.stage == "no answer to the upgrade" else []
                opened = {"sid": "s", "upgrades": upgrades, "pingInterval": 25000, "pingTimeout": 20000}
                writer.write(answer(200, "0" + json.dumps(opened)))
                head = await reader.readuntil(b"\r\n\r\n")
            if self.stage == "half an answer":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n0{")
                await writer.drain()
            if self.stage == "half an answer to the first POST" and head.startswith(b"POST"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
                await writer.drain()
            if self.stage != "half an answer to the first POST" or head.startswith(b"POST"):
                self.reached.set()
            await self._gone.wait()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def end(self) -> None:
        """Close the connections."""
        self._gone.set()


def answer(status: int, body: str, content_type: str = "text/plain") -> bytes:
    """Return an answer of HTTP."""
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {len(body.encode())}\r\n\r\n"
    return (head + body).encode()


@asynccontextmanager
async def silent(stage: Stage) -> AsyncIterator[Silent]:
    """Serve on a free port."""
    place = Silent(stage)
    server = await asyncio.start_server(place.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    place.url = f"http://{host}:{port}"
    try:
        yield place
    finally:
        place.end()
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def answering(body: str, status: int, content_type: str) -> AsyncIterator[tuple[str, asyncio.Queue[bytes]]]:
    """Serve one answer to every request; give the URL and the heads of the requests."""
    heads: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                heads.put_nowait(await reader.readuntil(b"\r\n\r\n"))
                writer.write(answer(status, body, content_type))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"http://{host}:{port}", heads
    finally:
        server.close()
        await server.wait_closed()
