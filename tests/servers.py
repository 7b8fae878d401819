"""Real servers for the tests: uvicorn or hypercorn, on loopback, in the event loop of the test."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import hypercorn.asyncio
import hypercorn.config
import uvicorn

from iogate import JWTAuth, Server, Socket
from iogate.server.gate.connection import Connection
from iogate.transports.picows.http import PicowsHTTP
from iogate.transports.picows.upgrade import PicowsProtocol
from iogate.transports.uvicorn_http import HTTPProtocol
from iogate.transports.uvicorn_websocket import WebSocketProtocol

Kind = Literal["uvicorn", "uvicorn-picows", "uvicorn-websockets", "uvicorn-wsproto", "hypercorn"]
KINDS: tuple[Kind, ...] = ("uvicorn", "uvicorn-picows", "uvicorn-wsproto", "hypercorn")

PROTOCOLS: dict[Kind, dict[str, Any]] = {
    "uvicorn": {"ws": "websockets-sansio", "ws_per_message_deflate": False},
    "uvicorn-picows": {"http": PicowsHTTP, "ws": PicowsProtocol},
    # Plain uvicorn is the first; this one is what `iogate run` takes without picows.
    "uvicorn-websockets": {"http": HTTPProtocol, "ws": WebSocketProtocol, "ws_per_message_deflate": False},
    "uvicorn-wsproto": {"ws": "wsproto", "ws_per_message_deflate": False},
}

WS: Kind = "uvicorn"
"""What `serve` takes unless it is told otherwise. The fixture `ws` sets it."""

SECRET = "a-secret-for-the-tests-that-is-long-enough"
STOP_WITHIN = 5  # seconds that a server may take to stop before the test fails


def make_token(*, secret: str = SECRET, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """Sign claims with HMAC-SHA256. `sub` and an `exp` in an hour are there unless given; None leaves one out."""
    body = {"sub": "ann", "exp": int(time.time()) + 3600, **claims}
    parts = [
        header or {"alg": "HS256", "typ": "JWT"},
        {name: value for name, value in body.items() if value is not None},
    ]
    signed = ".".join(_base64url(json.dumps(part).encode()) for part in parts)
    return f"{signed}.{_base64url(hmac.digest(secret.encode(), signed.encode(), hashlib.sha256))}"


def make_server(**settings: Any) -> Server:
    """Return a server behind the secret of the tests. The settings are those of `Server`."""
    settings.setdefault("auth", JWTAuth(secret=SECRET, algorithms=["HS256"]))
    return Server(**settings)


@asynccontextmanager
async def serve(app: Any, kind: Kind | None = None) -> AsyncIterator[str]:
    """Serve an ASGI application, or a `Server` by its own, and give its URL: `http://127.0.0.1:<free port>`."""
    kind = kind or WS
    io = app if isinstance(app, Server) else None
    # With its protocol: without, asyncio does not know that it is TCP, and every answer waits 40 ms for an ACK.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    run = _hypercorn if kind == "hypercorn" else _uvicorn
    async with run(app if io is None else io.asgi(), kind, listener):
        try:
            yield url
        finally:
            if io is not None:
                await io.shutdown(timeout=1.0)


@asynccontextmanager
async def _uvicorn(app: Any, kind: Kind, listener: socket.socket) -> AsyncIterator[None]:
    config = uvicorn.Config(
        app,
        **PROTOCOLS[kind],
        lifespan="on",
        log_config=None,
        timeout_graceful_shutdown=2,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    # Not `serve()`: that one takes the signals of the process for itself, and looks only ten times a second.
    try:
        await server.startup(sockets=[listener])
    except SystemExit as error:
        listener.close()
        raise RuntimeError("the application failed to start") from error
    try:
        yield
    finally:
        await _stop(server)


async def _stop(server: uvicorn.Server) -> None:
    # What `server.shutdown()` does, without its pauses of a tenth of a second: there are hundreds of tests.
    for listening in server.servers:
        listening.close()
    state = server.server_state
    for connection in list(state.connections):
        connection.shutdown()
    async with asyncio.timeout(STOP_WITHIN):
        while state.connections or state.tasks:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await server.lifespan.shutdown()


@asynccontextmanager
async def _hypercorn(app: Any, kind: Kind, listener: socket.socket) -> AsyncIterator[None]:
    config = hypercorn.config.Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.graceful_timeout = 2
    config.accesslog = None
    config.errorlog = None
    stop = asyncio.Event()
    # The socket listens already: a client that comes before the application has started waits in its queue.
    task = asyncio.create_task(hypercorn.asyncio.serve(app, config, shutdown_trigger=stop.wait))
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(STOP_WITHIN):
            await task


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def connection_of(socket: Socket) -> Connection:
    """Return the connection of a socket."""
    connection = socket._connection
    assert isinstance(connection, Connection)
    return connection
