"""Many clients in a process of their own, as cheap as they can be, so that what is measured is the server.

It reads orders as lines of JSON and answers each with one. Times are those of the monotonic clock, which the processes
of one machine share, and Unix times where they are compared with the `exp` of tokens.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import defaultdict
from functools import partial
from typing import Any

import uvloop

from benchmarks.machine import allow_files

AT_ONCE = 100
"""Clients that connect at a time."""

REQUEST = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
NEWS = b'42["news",'


class Group:
    """Clients that are looked at together."""

    def __init__(self) -> None:
        self.clients: list[Client] = []
        self.lost = 0
        self.notices: list[float] = []  # Unix times.
        self.refusals: list[float] = []
        self.ends: list[float] = []
        self.messages = 0
        self.highest = -1
        self.bytes = 0
        self.bytes_at: dict[int, int] = defaultdict(int)  # By the millisecond.
        self.messages_at: dict[int, int] = defaultdict(int)


class Client(asyncio.Protocol):
    """A WebSocket that speaks just enough Socket.IO."""

    __slots__ = ("_buffer", "_group", "_head", "_token", "_transport", "entered")

    def __init__(self, group: Group, token: str) -> None:
        self._group = group
        self._token = token
        self._buffer = b""
        self._head = True
        self._transport: Any = None
        self.entered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for a WebSocket."""
        self._transport = transport
        self._transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        """Count, and read the frames."""
        group = self._group
        now = int(time.monotonic() * 1000)
        group.bytes += len(data)
        group.bytes_at[now] += len(data)
        buffer = self._buffer + data if self._buffer else data
        if self._head:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = buffer
                return
            if not buffer.startswith(b"HTTP/1.1 101"):
                self._transport.abort()
                return
            self._head = False
            buffer = buffer[end + 4 :]
        start = 0
        while len(buffer) - start >= 2:
            size, begin = buffer[start + 1], start + 2
            if size == 126:
                if len(buffer) < start + 4:
                    break
                size, begin = int.from_bytes(buffer[start + 2 : start + 4], "big"), start + 4
            if len(buffer) < begin + size:
                break
            self._frame(buffer[start] & 0x0F, buffer[begin : begin + size], now)
            start = begin + size
        self._buffer = buffer[start:]

    def connection_lost(self, error: Exception | None) -> None:
        """Take note of the end."""
        self._group.ends.append(time.time())
        if not self.entered.done():
            self._group.lost += 1
            self.entered.set_result(False)

    def close(self) -> None:
        """Go, without a word."""
        self._transport.abort()

    def _frame(self, opcode: int, text: bytes, now: int) -> None:
        group = self._group
        if opcode == 8:
            self._transport.close()
        elif text.startswith(NEWS):
            group.messages += 1
            group.messages_at[now] += 1
            number = int(text[len(NEWS) : text.index(b",", len(NEWS))])
            group.highest = max(group.highest, number)
        elif text == b"2":
            self._send("3")
        elif text.startswith(b"40"):
            self.entered.set_result(True)
        elif text.startswith(b"0{"):
            self._send("40" + json.dumps({"token": self._token}))
        elif text.startswith(b'42["token_expiring"'):
            group.notices.append(time.time())
        elif text.startswith(b'42["unauthorized"'):
            group.refusals.append(time.time())

    def _send(self, text: str) -> None:
        payload = text.encode()
        size = len(payload)
        head = bytes((0x81, 0x80 | size)) if size < 126 else bytes((0x81, 0xFE)) + size.to_bytes(2, "big")
        self._transport.write(head + b"\0\0\0\0" + payload)  # Masked with zeros.


class Swarm:
    """All groups, and what they are told to do."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._groups: dict[str, Group] = {}

    async def connect(self, group: str, tokens: list[str], number: int = 1) -> dict[str, Any]:
        """Connect clients: as many with each token as are asked for; return when all are in."""
        began = time.monotonic()
        made = self._groups[group] = Group()
        left = [token for token in tokens for _ in range(number)]

        async def some() -> None:
            loop = asyncio.get_running_loop()
            while left:
                token = left.pop()
                try:
                    _, client = await loop.create_connection(partial(Client, made, token), "127.0.0.1", self._port)
                except OSError:
                    made.lost += 1
                    continue
                made.clients.append(client)
                await client.entered

        await asyncio.gather(*[some() for _ in range(AT_ONCE)])
        inside = sum(client.entered.result() for client in made.clients)
        return {"connected": inside, "lost": made.lost, "seconds": time.monotonic() - began}

    async def mark(self, group: str, after: float) -> dict[str, Any]:
        """Say what was received after a moment of the monotonic clock, and after this very order.

        Args:
            group: by whom.
            after: that moment, in seconds.
        """
        heard = time.monotonic()
        made = self._groups[group]
        # Whatever had come by then is read in the turn of the loop that this order was read in, or in the next.
        for _ in range(3):
            await asyncio.sleep(0)
        bytes_then, messages_then, drained = made.bytes, made.messages, time.monotonic()
        await asyncio.sleep(1.0)
        first = int(after * 1000) + 1
        last = max((moment for moment, count in made.bytes_at.items() if count), default=0)
        return {
            "heard after": heard - after,
            "drained after": drained - after,
            "bytes since": sum(count for moment, count in made.bytes_at.items() if moment >= first),
            "messages since": sum(count for moment, count in made.messages_at.items() if moment >= first),
            "last byte after": last / 1000 - after,
            "bytes after drained": made.bytes - bytes_then,
            "messages after drained": made.messages - messages_then,
            "highest": made.highest,
            "messages": made.messages,
            "ended": len(made.ends),
            "told": len(made.refusals),
        }

    async def report(self, group: str) -> dict[str, Any]:
        """Return what a group has seen."""
        made = self._groups[group]
        return {
            "notices": made.notices,
            "refusals": made.refusals,
            "ends": made.ends,
            "messages": made.messages,
            "highest": made.highest,
        }

    async def leave(self, group: str) -> dict[str, Any]:
        """Let a group go."""
        for client in self._groups.pop(group).clients:
            client.close()
        return {}


async def obey(port: int, files: int) -> None:
    """Do as is told on standard input, until it ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    swarm = Swarm(port)
    _answer({"files": allow_files(files)})
    while line := await reader.readline():
        order = json.loads(line)
        _answer(await getattr(swarm, order.pop("do"))(**order))


def _answer(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(obey(int(sys.argv[1]), int(sys.argv[2])))
