"""A connection that has gone leaves nothing for the garbage collector, whose rounds are pauses for all the others."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from iogate import Limits, Server
from iogate.server.connection import Connection
from iogate.transports.uvicorn_http import HTTPProtocol
from iogate.transports.uvicorn_websocket import WebSocketProtocol
from tests import servers
from tests.attacks.raw import request, wire
from tests.conformance.wire import ends, enter, session
from tests.server.left import until
from tests.servers import Kind, make_server, make_token, serve

THINGS = (Connection, HTTPProtocol, WebSocketProtocol)


@contextmanager
def collected() -> Iterator[list[object]]:
    """Keep the collector still meanwhile, and then tell what it found."""
    found: list[object] = []
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def gone(io: Server) -> None:
    """Wait until the server has seen the end of all transports."""
    await until(lambda: not (io.connections or len(io.linger_due)))


@pytest.mark.parametrize("kind", ["uvicorn-fast", "uvicorn-ordinary"])
async def test_one_that_was_let_in(kind: Kind) -> None:
    io = make_server()
    async with serve(io, kind) as url:
        with collected() as found:
            for _ in range(3):
                async with session(url, "websocket") as client:
                    await enter(client)
            await gone(io)
        assert not [thing for thing in found if type(thing) in THINGS]


@pytest.mark.parametrize("kind", ["uvicorn-fast", "uvicorn-ordinary"])
async def test_one_that_was_refused(kind: Kind) -> None:
    io = make_server()
    async with serve(io, kind) as url:
        with collected() as found:
            for _ in range(3):
                async with session(url, "websocket") as client:
                    await client.send("40" + json.dumps({"token": make_token(secret="of-somebody-else-" * 3)}))
                    await ends(client)
            await gone(io)
        assert not [thing for thing in found if type(thing) in THINGS]


@pytest.mark.parametrize("kind", ["uvicorn-fast", "uvicorn-ordinary"])
async def test_one_that_polled_and_made_room(kind: Kind) -> None:
    io = make_server(limits=Limits(pending=2))
    async with serve(io, kind) as url:
        with collected() as found:
            for _ in range(5):
                async with wire(url) as client:
                    await client.send(request("polling"))
                    assert await client.status() == 200
            assert len(io.connections) == 2
        assert not [thing for thing in found if type(thing) in THINGS]


async def test_a_request_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timer by which uvicorn ends an idle connection does not keep one that has gone."""
    monkeypatch.setitem(servers.PROTOCOLS["uvicorn-fast"], "timeout_keep_alive", 3600)
    made: list[weakref.ref[HTTPProtocol]] = []
    connection_made = HTTPProtocol.connection_made

    def note(self: HTTPProtocol, transport: object) -> None:
        made.append(weakref.ref(self))
        connection_made(self, transport)  # type: ignore[arg-type]

    monkeypatch.setattr(HTTPProtocol, "connection_made", note)
    async with serve(make_server(), "uvicorn-fast") as url:
        async with wire(url) as client:
            await client.send(request("polling"))
            assert await client.status() == 200

        def is_freed() -> bool:
            gc.collect()
            return made[0]() is None

        await until(is_freed)
