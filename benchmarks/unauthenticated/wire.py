"""HTTP and WebSocket as an attacker speaks them: bytes, on a socket of asyncio."""

from __future__ import annotations

import asyncio
import json
import struct
import time
from typing import Any

from joserfc import jwt
from joserfc.jwk import OctKey

from benchmarks.unauthenticated.app import SECRET

UPGRADE = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
TEXT, BINARY = 1, 2


def token(subject: str, *, secret: str = SECRET) -> str:
    """Return a token of a subject, good for an hour."""
    claims = {"sub": subject, "exp": int(time.time()) + 3600}
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(secret))


def frame(data: bytes, opcode: int = TEXT, *, rsv1: bool = False) -> bytes:
    """Return a masked frame of a client (RFC 6455, section 5.2). The mask changes nothing."""
    first = 0x80 | (0x40 if rsv1 else 0) | opcode
    if len(data) < 126:
        head = struct.pack("!BB", first, 0x80 | len(data))
    elif len(data) < 65_536:
        head = struct.pack("!BBH", first, 0x80 | 126, len(data))
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, len(data))
    return head + bytes(4) + data


def connect(payload: Any) -> bytes:
    """Return the frame of a CONNECT."""
    return frame(b"40" + json.dumps(payload).encode())


class Peer:
    """One connection of an attacker.

    Args:
        reader: what it reads from.
        writer: what it writes to.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int) -> Peer:
        """Open a TCP connection."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    @classmethod
    async def websocket(cls, port: int, fields: bytes = b"") -> tuple[Peer, bytes]:
        """Open a WebSocket with more header fields; return it and the head of the answer."""
        peer = await cls.open(port)
        head = await peer.request(UPGRADE + fields + b"\r\n")
        return peer, head

    async def request(self, data: bytes) -> bytes:
        """Send a request and return the head of the answer."""
        await self.send(data)
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def heard(self, seconds: float = 10.0) -> bytes:
        """Return what comes next; nothing if the server has closed the connection."""
        return await asyncio.wait_for(self.reader.read(65_536), seconds)

    async def ended(self, seconds: float = 10.0) -> None:
        """Wait until the server has closed the connection."""
        while await self.heard(seconds):
            pass

    async def refused(self, seconds: float = 10.0) -> None:
        """Wait until the server has refused a CONNECT, by either parser, or has closed the connection."""
        read = b""
        while b"message" not in read and (data := await self.heard(seconds)):
            read += data

    def close(self) -> None:
        """Go without a word."""
        self.writer.transport.abort()
