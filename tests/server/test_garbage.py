"""A connection that has gone leaves nothing for the garbage collector, whose rounds are pauses for all the others."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import struct
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest

from iogate import JWTAuth, Limits, Refused, Server, Socket
from iogate.transports.uvicorn_http import HTTPProtocol
from tests import servers
from tests.attacks.raw import request, wire
from tests.conformance.wire import WEBSOCKET, WebSocket, ends, enter, raw_websocket, session, within
from tests.server.left import until
from tests.servers import SECRET, Kind, make_server, make_token, serve

OURS = ("iogate", "uvicorn", "websockets.server")
"""Modules whose objects are looked for: asyncio's own event loop, and the client, leave some of theirs."""


OTHER_SECRET = "of-somebody-else-" * 3
on_both = pytest.mark.parametrize("kind", ["uvicorn-picows", "uvicorn-websockets"])


@contextmanager
def collected() -> Iterator[list[type]]:
    """Keep the collector still meanwhile, and then tell the types of what only it could free."""
    found: list[type] = []
    gc.collect()
    gc.freeze()  # What earlier tests have left is none of ours.
    gc.disable()
    try:
        yield found
        before = alive()
        gc.collect()
        # Not `gc.DEBUG_SAVEALL`: an object that a suspended generator refers to is freed before it is saved.
        found += (before[key] for key in before.keys() - alive().keys())
    finally:
        gc.enable()
        gc.unfreeze()


def alive() -> dict[int, type]:
    """Return the types of the objects that are looked for."""
    types = ((id(thing), type(thing)) for thing in gc.get_objects())
    return {key: kind for key, kind in types if str(kind.__module__).startswith(OURS)}


async def leaves_nothing(io: Server, kind: Kind, come: Callable[[str], Awaitable[None]]) -> None:
    """Let clients come one after the other, and check that the server leaves nothing of them to the collector.

    Args:
        io: the server.
        kind: how it is served.
        come: connects a client to a URL, and returns when the client has gone.
    """
    async with serve(io, kind) as url:
        with collected() as found:
            for _ in range(3):
                await come(url)
            await until(lambda: not (io._core.sessions.table or len(io._core.sessions.drain_timeout)))
        assert not found


async def refused(url: str, token: str) -> None:
    """Send a token, and wait for the end."""
    async with session(url, "websocket") as client:
        await client.send("40" + json.dumps({"token": token}))
        await ends(client)


@on_both
async def test_one_that_was_let_in(kind: Kind) -> None:
    async def come(url: str) -> None:
        async with session(url, "websocket") as client:
            await enter(client)

    await leaves_nothing(make_server(), kind, come)


@on_both
async def test_one_that_reset_the_connection(kind: Kind) -> None:
    async def come(url: str) -> None:
        async with raw_websocket(url, WEBSOCKET) as connection:
            client = WebSocket(connection)
            await client.open()
            await enter(client)
            reset = struct.pack("ii", 1, 0)
            connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            connection.transport.abort()

    await leaves_nothing(make_server(), kind, come)


@on_both
async def test_one_that_was_refused(kind: Kind) -> None:
    await leaves_nothing(make_server(), kind, partial(refused, token=make_token(secret=OTHER_SECRET)))


async def nobody(claims: Mapping[str, Any]) -> object:
    """Wait, and find no user."""
    await asyncio.sleep(0)
    raise Refused(f"no user {claims['sub']}")


@pytest.mark.parametrize("secret", [SECRET, OTHER_SECRET])
async def test_one_whose_verdict_took_several_turns(secret: str) -> None:
    """A verdict that waits has a task: for `load_user`, or for its turn among others from an address with too many."""
    auth = JWTAuth(secret=SECRET, algorithms=["HS256"])
    auth.load_user(nobody)
    io = make_server(auth=auth, limits=Limits(failures_per_address=1))
    for _ in range(2):
        io._core.gate.failures.add("127.0.0.1")
    assert io._core.gate.failures.exceeded("127.0.0.1")
    await leaves_nothing(io, "uvicorn-picows", partial(refused, token=make_token(secret=secret)))


@on_both
async def test_one_that_left_before_the_verdict(kind: Kind) -> None:
    auth = JWTAuth(secret=SECRET, algorithms=["HS256"])
    asked = asyncio.Event()

    async def for_ever(_: Mapping[str, Any]) -> object:
        asked.set()
        return await asyncio.Event().wait()

    async def come(url: str) -> None:
        asked.clear()
        async with session(url, "websocket") as client:
            await client.send("40" + json.dumps({"token": make_token()}))
            await asked.wait()

    auth.load_user(for_ever)
    await leaves_nothing(make_server(auth=auth), kind, come)


@on_both
async def test_one_that_sent_too_much(kind: Kind) -> None:
    await leaves_nothing(make_server(), kind, partial(refused, token="x" * 100_000))


@on_both
async def test_one_that_was_cut_off_while_data_waited_for_it(kind: Kind) -> None:
    io = make_server(max_buffered=1024)

    async def come(url: str) -> None:
        async with raw_websocket(url, WEBSOCKET) as connection:
            client = WebSocket(connection)
            await client.open()
            await enter(client)
            connection.transport.pause_reading()

            def is_slow() -> bool:
                io.emit("news", "x" * 100_000)
                return not io._core.sessions.table

            await until(is_slow)
            connection.transport.abort()

    await leaves_nothing(io, kind, come)


@on_both
async def test_one_that_sent_too_much_and_reset_the_connection(kind: Kind) -> None:
    async def come(url: str) -> None:
        async with raw_websocket(url, WEBSOCKET) as connection:
            client = WebSocket(connection)
            await client.open()
            connection.transport.write(b"\x81\xff" + (10_000_000).to_bytes(8, "big") + bytes(100_000))
            await ends(client)
            connection.transport.abort()

    await leaves_nothing(make_server(), kind, come)


variable: ContextVar[str] = ContextVar("variable")


async def test_handlers_that_set_a_context_variable() -> None:
    io = make_server()

    @io.on("set")
    async def set_(_: Socket, value: str) -> str:
        variable.set(value)
        return value

    async def come(url: str) -> None:
        async with session(url, "websocket") as client:
            await enter(client)
            await client.send('421["set","x"]')
            assert await within(client.receive()) == '431["x"]'

    await leaves_nothing(io, "uvicorn-picows", come)


@on_both
async def test_one_that_polled_and_made_room(kind: Kind) -> None:
    io = make_server(limits=Limits(pending=2))
    async with serve(io, kind) as url:
        with collected() as found:
            for _ in range(5):
                async with wire(url) as client:
                    await client.send(request("polling"))
                    assert await client.status() == 200
            assert len(io._core.sessions.table) == 2
        assert not found


async def test_a_request_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle connection keeps no scope, and the timer by which uvicorn ends it keeps no connection that has gone."""
    monkeypatch.setitem(servers.PROTOCOLS["uvicorn-picows"], "timeout_keep_alive", 3600)
    made: list[weakref.ref[HTTPProtocol]] = []
    connection_made = HTTPProtocol.connection_made

    def note(self: HTTPProtocol, transport: object) -> None:
        made.append(weakref.ref(self))
        connection_made(self, transport)  # type: ignore[arg-type]

    def keeps_nothing() -> bool:
        protocol = made[0]()
        return protocol is not None and not (protocol.scope or protocol.cycle.scope)

    monkeypatch.setattr(HTTPProtocol, "connection_made", note)
    async with serve(make_server(), "uvicorn-picows") as url:
        async with wire(url) as client:
            await client.send(request("polling"))
            assert await client.status() == 200
            await until(keeps_nothing)

        def is_freed() -> bool:
            gc.collect()
            return made[0]() is None

        await until(is_freed)
