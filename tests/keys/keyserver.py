"""A key server on loopback that does on command what key servers should not do, and counts what it is asked.

It lives in the event loop of the test. What it answers under a path is an `Answer`, any coroutine function that is
given the `Exchange`; those that are needed are made by the functions below. Nothing here waits for a time to pass (but
`dripping`): what is held is held until the test lets go.
"""

from __future__ import annotations

import asyncio
import functools
import gzip
import json
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any

CONFIGURATION = "/.well-known/openid-configuration"
KEYS = "/jwks.json"
WITHIN = 5.0  # seconds in which whatever is awaited must have happened

_CHUNK = 64 * 1024


class Exchange:
    """One request, and the connection on which it is answered."""

    def __init__(self, path: str, headers: Mapping[str, str], writer: asyncio.StreamWriter) -> None:
        self.path = path
        self.headers = headers
        self.sent = 0  # Bytes of the body that the kernel has taken, that is a little more than the client has read.
        self._writer = writer

    async def head(self, status: int = 200, **headers: str) -> None:
        """Send the status and the headers; `content_type` is Content-Type."""
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self._writer.write("\r\n".join([*lines, "", ""]).encode())
        await self._writer.drain()

    async def body(self, data: bytes) -> None:
        """Send some of the body. It waits while the client does not read."""
        self._writer.write(data)
        await self._writer.drain()
        self.sent += len(data)

    async def whole(self, data: bytes, status: int = 200, **headers: str) -> None:
        """Send a complete and correct answer."""
        await self.head(status, **{"content_length": str(len(data))} | headers)
        await self.body(data)

    def hang_up(self) -> None:
        """Close the connection as a server does that has crashed."""
        self._writer.transport.abort()


Answer = Callable[[Exchange], Awaitable[None]]


class KeyServer:
    """A server under a URL, which is its issuer too. What it was not told to answer is not found."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[Exchange] = []  # All requests, also those that are not answered yet.
        self._tls = tls
        self._socket = _bind(0)
        self._port: int = self._socket.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._more = asyncio.Event()
        self._held = asyncio.Event()

    @property
    def url(self) -> str:
        """Where it is: `http://127.0.0.1:<port>`, also while it is killed."""
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self._port}"

    @property
    def jwks_url(self) -> str:
        """Where `publish` puts the keys."""
        return self.url + KEYS

    def publish(self, *keys: Mapping[str, Any], issuer: str | None = None, **headers: str) -> None:
        """Serve these keys, and a discovery document that leads to them, as a server does that is in good order."""
        self.answers[KEYS] = document({"keys": list(keys)}, **headers)
        configuration = {"issuer": issuer or self.url, "jwks_uri": self.jwks_url}
        self.answers[CONFIGURATION] = document(configuration, **headers)

    def count(self, path: str = KEYS) -> int:
        """Say how often a path was asked for."""
        return sum(exchange.path == path for exchange in self.asked)

    async def was_asked(self, times: int = 1, path: str = KEYS) -> None:
        """Wait until a path was asked for so often in all."""
        async with asyncio.timeout(WITHIN):
            while self.count(path) < times:
                self._more.clear()
                await self._more.wait()

    async def start(self) -> None:
        """Listen, also again after `kill`, on the same port."""
        self._server = await asyncio.start_server(self._serve, sock=self._socket, ssl=self._tls)

    async def kill(self) -> None:
        """Cut every connection and refuse new ones. The port stays taken, so that nobody else gets it meanwhile."""
        await self.close()
        self._socket = _bind(self._port)

    async def close(self) -> None:
        """Cut every connection, and give the port back."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._socket.close()

    async def held(self, exchange: Exchange) -> None:
        """Answer nothing (this is an `Answer`) until the test lets go, and then that there is trouble."""
        await self._held.wait()
        await failure(503)(exchange)

    def stalled(self, value: Any) -> Answer:
        """Answer with half of a document; the other half comes when the test lets go."""

        async def answer(exchange: Exchange) -> None:
            data = json.dumps(value).encode()
            await exchange.head(content_type="application/json", content_length=str(len(data)))
            await exchange.body(data[: len(data) // 2])
            await self._held.wait()
            await exchange.body(data[len(data) // 2 :])

        return answer

    def let_go(self) -> None:
        """End what is held until now."""
        self._held.set()
        self._held = asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        # What the kernel buffers counts as sent: little of it, so that `sent` says how much a client has read.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _CHUNK)
        writer.transport.set_write_buffer_limits(high=1, low=0)  # With TLS and 0 asyncio would never write again.
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while not writer.is_closing():
                    exchange = Exchange(*_request(await reader.readuntil(b"\r\n\r\n")), writer)
                    self.asked.append(exchange)
                    self._more.set()
                    await self.answers.get(exchange.path, not_found)(exchange)
        finally:
            writer.transport.abort()


@asynccontextmanager
async def key_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[KeyServer]:
    """Run a key server, with TLS if a context for it is given."""
    server = KeyServer(tls)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


# What it may answer.


async def not_found(exchange: Exchange) -> None:
    """Answer 404."""
    await exchange.whole(b"", 404)


async def crash(exchange: Exchange) -> None:
    """Close the connection without a word."""
    exchange.hang_up()


def text(body: str | bytes, status: int = 200, **headers: str) -> Answer:
    """Answer with any text."""
    data = body.encode() if isinstance(body, str) else body
    return lambda exchange: exchange.whole(data, status, **{"content_type": "application/json"} | headers)


def document(value: Any, **headers: str) -> Answer:
    """Answer with JSON, and with 304 who has it already, if there is an `etag`."""

    async def answer(exchange: Exchange) -> None:
        if "etag" in headers and exchange.headers.get("if-none-match") == headers["etag"]:
            await exchange.head(304, **headers)
        else:
            await text(json.dumps(value), 200, **headers)(exchange)

    return answer


def failure(status: int = 500) -> Answer:
    """Answer with a page of a web server that has trouble."""
    page = "<!doctype html><title>Trouble</title><h1>Trouble</h1>"
    return text(page, status, content_type="text/html")


def redirect(to: str, status: int = 302) -> Answer:
    """Answer that it is elsewhere."""
    return text(b"", status, location=to)


def large(size: int, value: Any = None) -> Answer:
    """Answer with so many bytes: a document, and spaces behind it. How many were taken is in `Exchange.sent`."""

    async def answer(exchange: Exchange) -> None:
        await exchange.head(content_type="application/json", content_length=str(size))
        data = json.dumps(value or {"keys": []}).encode()
        await exchange.body(data)
        while exchange.sent < size:
            await exchange.body(b" " * min(_CHUNK, size - exchange.sent))

    return answer


def endless(value: Any = None) -> Answer:
    """Answer with a chunked body that has no end and no announced length."""

    async def answer(exchange: Exchange) -> None:
        await exchange.head(content_type="application/json", transfer_encoding="chunked")
        data = json.dumps(value or {"keys": []}).encode()
        while True:
            await exchange.body(b"%x\r\n%s\r\n" % (len(data), data))
            data = b" " * _CHUNK

    return answer


def bomb(size: int, layers: int = 1) -> Answer:
    """Answer with few bytes that become many where they are unpacked: gzip, several times if wanted."""
    data = _packed(size)
    for _ in range(layers - 1):
        data = gzip.compress(data)
    encoding = ", ".join(["gzip"] * layers)
    return text(data, content_encoding=encoding)


def truncated(value: Any) -> Answer:
    """Announce all of a document, send half of it and hang up."""
    return _announced(value, 1.0, 0.5)


def too_long(value: Any) -> Answer:
    """Announce half of a document, and send all of it."""
    return _announced(value, 0.5, 1.0)


def dripping(every: float) -> Answer:
    """Send a byte at a time, so many seconds apart, for ever: no read of the client takes long, the whole does."""

    async def answer(exchange: Exchange) -> None:
        await exchange.head(content_type="application/json", content_length="1000000")
        while True:
            await exchange.body(b" ")
            await asyncio.sleep(every)

    return answer


def _announced(value: Any, announced: float, sent: float) -> Answer:
    async def answer(exchange: Exchange) -> None:
        data = json.dumps(value).encode()
        await exchange.head(content_type="application/json", content_length=str(int(len(data) * announced)))
        await exchange.body(data[: int(len(data) * sent)])
        exchange._writer.close()

    return answer


@functools.cache
def _packed(size: int) -> bytes:
    packer = zlib.compressobj(wbits=31)
    parts = [packer.compress(b'{"keys": []}')]
    parts += [packer.compress(b" " * min(_CHUNK, size - done)) for done in range(0, size, _CHUNK)]
    return b"".join([*parts, packer.flush()])


def _request(head: bytes) -> tuple[str, dict[str, str]]:
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    method, path, _ = first.split(" ")
    assert method == "GET", first
    fields = (line.partition(":") for line in lines)
    return path, {name.lower(): value.strip() for name, _, value in fields}


def _bind(port: int) -> socket.socket:
    """Take a port of loopback. Until somebody listens on it, connections to it are refused."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound
