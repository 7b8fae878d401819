"""One of several processes of a protected server that share a Redis: `python -m tests.integrations.clustered KIND`."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import Any

import socketio

from iogate.integrations import protect
from tests.gate.houses import serve_on_threads
from tests.gate.support import make_auth
from tests.servers import serve

SLOW = "slow"
"""Whose connect handler does not end before somebody says `open`."""


def asynchronous(redis: str) -> Any:
    """Return an application on an `AsyncServer`."""
    sio = socketio.AsyncServer(async_mode="asgi", client_manager=socketio.AsyncRedisManager(redis))
    gate = protect(sio, make_auth())
    opened = asyncio.Event()

    @sio.event
    async def connect(sid: str, environ: Any, auth: Any) -> None:
        if gate.principal(sid).subject == SLOW:
            await opened.wait()

    @sio.on("open")
    async def open_(sid: str) -> None:
        opened.set()

    @sio.event
    async def tell(sid: str, room: str | None, text: str) -> None:
        await sio.emit("told", text, room=room)

    @sio.event
    async def throw_out(sid: str, other: str) -> None:
        await sio.disconnect(other)

    return serve(socketio.ASGIApp(sio))


def on_threads(redis: str) -> Any:
    """Return an application on a `Server`."""
    sio = socketio.Server(async_mode="threading", client_manager=socketio.RedisManager(redis))
    gate = protect(sio, make_auth())
    opened = threading.Event()

    @sio.event
    def connect(sid: str, environ: Any, auth: Any) -> None:
        if gate.principal(sid).subject == SLOW:
            opened.wait()

    sio.on("open", lambda sid: opened.set())
    sio.on("tell", lambda sid, room, text: sio.emit("told", text, room=room))
    sio.on("throw_out", lambda sid, other: sio.disconnect(other))
    return serve_on_threads(socketio.WSGIApp(sio))


async def main(kind: str, redis: str) -> None:
    """Serve until standard input ends."""
    async with (on_threads if kind == "Server" else asynchronous)(redis) as url:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], os.environ["REDIS_URL"]))
