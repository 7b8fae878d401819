"""python-socketio on uvicorn, with the token verified in its connect handler by PyJWT.

python -m benchmarks.peers.python_socketio
"""

from __future__ import annotations

import os
from typing import Any

import jwt
import socketio
import uvicorn

KEY = os.environ["BENCH_KEY"]
RULES: dict[str, Any] = {
    "algorithms": [os.environ["BENCH_ALGORITHM"]],
    "issuer": os.environ["BENCH_ISSUER"],
    "audience": os.environ["BENCH_AUDIENCE"],
    "options": {"require": ["exp", "sub"]},
}

sio = socketio.AsyncServer(async_mode="asgi", transports=["websocket"])


async def connect(sid: str, environ: dict[str, Any], auth: dict[str, Any] | None) -> None:
    """Let in who has a good token."""
    try:
        claims = jwt.decode((auth or {}).get("token", ""), KEY, **RULES)
    except jwt.PyJWTError as error:
        raise socketio.exceptions.ConnectionRefusedError("invalid token") from error
    await sio.save_session(sid, {"claims": claims})


async def echo(sid: str, text: str) -> None:
    """Send it back."""
    await sio.emit("echo", text, to=sid)


async def ack(sid: str, text: str) -> str:
    """Acknowledge it."""
    return text


async def binary(sid: str, data: bytes) -> None:
    """Send it back."""
    await sio.emit("binary", data, to=sid)


async def broadcast(sid: str, text: str) -> None:
    """Send it to all."""
    await sio.emit("broadcast", text)


async def join(sid: str, room: str) -> None:
    """Enter a room."""
    await sio.enter_room(sid, room)


async def room(sid: str, name: str, text: str) -> None:
    """Send it to a room."""
    await sio.emit("room", text, to=name)


def main() -> None:
    """Serve."""
    for handler in (connect, echo, ack, binary, broadcast, join, room):
        sio.on(handler.__name__, handler)
    uvicorn.run(
        socketio.ASGIApp(sio),
        host="127.0.0.1",
        port=int(os.environ["BENCH_PORT"]),
        loop="uvloop",
        http="httptools",
        ws_per_message_deflate=False,
        ws_ping_interval=None,  # Engine.IO has pings of its own.
        backlog=4096,
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
