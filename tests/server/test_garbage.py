"""A connection that has gone leaves nothing for the garbage collector, whose rounds are pauses for all the others."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager

from iogate import Server
from iogate.server.connection import Connection
from tests.conformance.wire import ends, enter, session
from tests.server.left import until
from tests.servers import make_server, make_token, serve


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


async def test_one_that_was_let_in() -> None:
    io = make_server()
    async with serve(io, "uvicorn-fast") as url:
        with collected() as found:
            for _ in range(3):
                async with session(url, "websocket") as client:
                    await enter(client)
            await gone(io)
        assert not [thing for thing in found if type(thing) is Connection]


async def test_one_that_was_refused() -> None:
    io = make_server()
    async with serve(io, "uvicorn-fast") as url:
        with collected() as found:
            for _ in range(3):
                async with session(url, "websocket") as client:
                    await client.send("40" + json.dumps({"token": make_token(secret="of-somebody-else-" * 3)}))
                    await ends(client)
            await gone(io)
        assert not [thing for thing in found if type(thing) is Connection]
