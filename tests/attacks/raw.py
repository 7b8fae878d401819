"""Requests as bytes, for what no HTTP client would send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.conformance.wire import within

TARGET = "/socket.io/?EIO=4&transport="

HANDSHAKE = {
    "Host": "chat.example",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def request(transport: str, *lines: str, without: str = "", first: str | None = None) -> bytes:
    """Return the head of the first request of a session.

    Args:
        transport: `polling` or `websocket`.
        lines: further lines.
        without: the name of a field that is left out.
        first: the request line, if it is another one.
    """
    fields = HANDSHAKE if transport == "websocket" else {"Host": HANDSHAKE["Host"]}
    head = [first or f"GET {TARGET}{transport} HTTP/1.1"]
    head += [f"{name}: {value}" for name, value in fields.items() if name != without]
    return "\r\n".join([*head, *lines, "", ""]).encode("latin-1")


class Wire:
    """A TCP connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes, as far as the server still takes them."""
        with suppress(ConnectionError):
            self._writer.write(data)
            await self._writer.drain()

    async def status(self) -> int:
        """Read an answer with its body, and return its status."""
        head = await within(self._reader.readuntil(b"\r\n\r\n"))
        lines = head.decode("latin-1").lower().split("\r\n")
        length = next((int(line.partition(":")[2]) for line in lines if line.startswith("content-length:")), 0)
        await within(self._reader.readexactly(length))
        return int(lines[0].split(" ")[1])

    async def ends(self) -> bytes:
        """Wait until the server has closed the connection; return what it still sent."""
        rest = b""
        with suppress(ConnectionError):
            while data := await within(self._reader.read(65536)):
                rest += data
        return rest

    @property
    def closed(self) -> bool:
        """Whether the server has closed the connection."""
        return self._reader.at_eof() or self._reader.exception() is not None


@asynccontextmanager
async def wire(url: str) -> AsyncIterator[Wire]:
    """Connect, and send nothing."""
    host, port = url.rpartition("/")[2].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
