"""Connections of strangers, byte by byte: what is sent on them is whatever they please."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from contextlib import suppress
from typing import cast
from urllib.parse import urlencode

PATIENCE = 60.0
"""Seconds in which an answer must come that has to come. A bound, and nothing that is measured."""
MOMENT = 0.01
"""Seconds that a stranger waits for what may come at once, or much later."""
_HEARD = 8192
"""Bytes of an answer that are kept: more than the head and an OPEN packet have."""
_SID = re.compile(rb'"sid":"([\w-]+)"')

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


class Wire(asyncio.Protocol):
    """A TCP connection to the server."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._heard = bytearray()
        self._something = asyncio.Event()
        self.gone = False
        self.stalled = False

    @classmethod
    async def open(cls, port: int) -> Wire:
        """Connect to the server on loopback."""
        loop = asyncio.get_running_loop()
        own = socket.socket()
        own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)  # The less there is, the sooner the server notices.
        own.setblocking(False)
        await loop.sock_connect(own, ("127.0.0.1", port))
        _, wire = await loop.create_connection(cls, sock=own)
        return wire

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be there."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Keep the beginning of what is said."""
        self._heard += data[: _HEARD - len(self._heard)]
        self._something.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Be gone."""
        self.gone = True
        self._something.set()

    def send(self, data: bytes) -> None:
        """Send bytes, if there is still somebody to send them to."""
        if not (self.gone or self._transport.is_closing()):
            self._transport.write(data)

    async def answer(self) -> bytes:
        """Return the beginning of the answer, or nothing if the server has hung up.

        Raises:
            TimeoutError: there is none.
        """
        async with asyncio.timeout(PATIENCE):
            await self._something.wait()
        return bytes(self._heard)

    @property
    def answered(self) -> bool:
        """Whether something has been heard, or nothing will be."""
        return self.gone or bool(self._heard)

    @property
    def refused(self) -> bool:
        """Whether the answer is an error of the client."""
        return self._heard.startswith(b"HTTP/1.1 4")

    async def pause(self) -> None:
        """Wait a moment for an answer, which may take longer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(MOMENT):
                await self._something.wait()

    async def sid(self) -> str | None:
        """Return the id of the session that the server begins, or None if it does not."""
        # The head of an answer may come in a segment of its own.
        async with asyncio.timeout(PATIENCE):
            while True:
                await self._something.wait()
                found = _SID.search(self._heard)
                if found is not None or self.gone or bytes(self._heard[9:12]) not in (b"", b"200"):
                    return found[1].decode() if found is not None else None
                self._something.clear()

    def stall(self) -> None:
        """Read nothing from now on."""
        if not (self.gone or self._transport.is_closing()):
            self._transport.pause_reading()
            self.stalled = True

    def read_on(self) -> None:
        """Read again."""
        if not (self.gone or self._transport.is_closing()):
            self._transport.resume_reading()
            self.stalled = False

    def half_close(self) -> None:
        """Say that nothing more will be sent, and go on listening."""
        if not (self.gone or self._transport.is_closing()) and self._transport.can_write_eof():
            with suppress(OSError):  # The server was faster.
                self._transport.write_eof()

    def close(self) -> None:
        """Hang up, once all is sent."""
        self._transport.close()

    def reset(self) -> None:
        """Hang up in the middle of everything: what is on the way is lost, and the server is told so."""
        own = self._transport.get_extra_info("socket")
        if not self.gone and own is not None and own.fileno() >= 0:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    async def drop(self) -> None:
        """Be gone when it returns, whatever is still to be sent."""
        self._transport.abort()
        while not self.gone:
            self._something.clear()
            await self._something.wait()


def request(
    method: str, query: dict[str, str], headers: dict[str, str], body: bytes = b"", *, path: str = "/socket.io/"
) -> bytes:
    """Return an HTTP request."""
    fields = {"Host": "127.0.0.1", **headers}
    if body or method == "POST":
        fields.setdefault("Content-Length", str(len(body)))
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path}?{urlencode(query)} HTTP/1.1\r\n{head}\r\n".encode() + body


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
"""The header fields of a request for a WebSocket (RFC 6455, section 1.2)."""


def frame(payload: bytes, opcode: int = TEXT, *, fin: bool = True, rsv: int = 0, length: int | None = None) -> bytes:
    """Return a WebSocket frame of a client (RFC 6455, section 5.2), masked with zeros.

    Args:
        payload: what is in it.
        opcode: any, also one that is not used.
        fin: whether it is the last of its message.
        rsv: the reserved bits.
        length: what it says of its length, if that is not true.
    """
    length = len(payload) if length is None else length
    first = fin << 7 | rsv << 4 | opcode
    if length < 126:
        head = struct.pack("!BB", first, 0x80 | length)
    elif length < 65536:
        head = struct.pack("!BBH", first, 0xFE, length)
    else:
        head = struct.pack("!BBQ", first, 0xFF, length)
    return head + bytes(4) + payload
