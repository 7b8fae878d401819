"""iogate, as its users run it.

iogate run benchmarks.peers.iogate_app:app
"""

from __future__ import annotations

import os

from iogate import JWTAuth, Limits, Server, Socket

ALGORITHM = os.environ["BENCH_ALGORITHM"]

auth = JWTAuth(
    secret=os.environ["BENCH_KEY"] if ALGORITHM.startswith("HS") else None,
    public_key=None if ALGORITHM.startswith("HS") else os.environ["BENCH_KEY"],
    algorithms=[ALGORITHM],
    issuer=os.environ["BENCH_ISSUER"],
    audience=os.environ["BENCH_AUDIENCE"],
)
# All clients of a benchmark come from one address: at that they would be too many. How many bad tokens an address may
# give is left as it is.
io = Server(auth=auth, limits=Limits(pending=100_000, pending_per_address=100_000))


@io.on("echo")
async def echo(socket: Socket, text: str) -> None:
    """Send it back."""
    socket.emit("echo", text)


@io.on("plain")
def plain(socket: Socket, text: str) -> None:
    """Send it back, from a handler that is no coroutine."""
    socket.emit("plain", text)


@io.on("ack")
async def ack(socket: Socket, text: str) -> str:
    """Acknowledge it."""
    return text


@io.on("binary")
async def binary(socket: Socket, data: bytes) -> None:
    """Send it back."""
    socket.emit("binary", data)


@io.on("broadcast")
async def broadcast(socket: Socket, text: str) -> None:
    """Send it to all."""
    io.emit("broadcast", text)


@io.on("join")
async def join(socket: Socket, room: str) -> None:
    """Enter a room."""
    socket.join(room)


@io.on("room")
async def room(socket: Socket, name: str, text: str) -> None:
    """Send it to a room."""
    io.to(name).emit("room", text)


app = io.asgi()
