"""A connection that has gone leaves nothing for the garbage collector, whose rounds are pauses for all the others."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from iogate import JWTAuth, Limits, Refused, Server
from iogate.transports.uvicorn_http import HTTPProtocol
from tests import servers
from tests.attacks.raw import request, wire
from tests.conformance.wire import ends, enter, session
from tests.server.left import until
from tests.servers import SECRET, Kind, make_server, make_token, serve

OURS = ("iogate", "uvicorn", "websockets.server")
"""Modules whose objects are looked for: asyncio's own event loop, and the client, leave some of theirs."""


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
        found += (thing for thing in gc.garbage if type(thing).__module__.startswith(OURS))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def gone(io: Server) -> None:
    """Wait until the server has seen the end of all transports."""
    await until(lambda: not (io.connections or len(io.linger_due)))


@pytest.mark.parametrize("kind", ["uvicorn-picows", "uvicorn-websockets"])
async def test_one_that_was_let_in(kind: Kind) -> None:
    io = make_server()
    async with serve(io, kind) as url:
        with collected() as found:
            for _ in range(3):
                async with session(url, "websocket") as client:
                    await enter(client)
            await gone(io)
        assert not found


@pytest.mark.parametrize("kind", ["uvicorn-picows", "uvicorn-websockets"])
async def test_one_that_was_refused(kind: Kind) -> None:
    io = make_server()
    async with serve(io, kind) as url:
        with collected() as found:
            for _ in range(3):
                async with session(url, "websocket") as client:
                    await client.send("40" + json.dumps({"token": make_token(secret="of-somebody-else-" * 3)}))
                    await ends(client)
            await gone(io)
        assert not found


async def nobody(claims: Mapping[str, Any]) -> object:
    """Wait, and find no user."""
    await asyncio.sleep(0)
    raise Refused(f"no user {claims['sub']}")


@pytest.mark.parametrize("secret", [SECRET, "of-somebody-else-" * 3])
async def test_one_whose_verdict_took_several_turns(secret: str) -> None:
    """A verdict that waits has a task: for `load_user`, or for its turn among others from an address with too many."""
    auth = JWTAuth(secret=SECRET, algorithms=["HS256"])
    auth.load_user(nobody)
    io = make_server(auth=auth, limits=Limits(failures_per_address=1))
    async with serve(io, "uvicorn-picows") as url:
        await refused(url, "of-somebody-else-" * 3)
        await refused(url, "of-somebody-else-" * 3)
        with collected() as found:
            for _ in range(3):
                await refused(url, secret)
            await gone(io)
        assert not found


@pytest.mark.parametrize("kind", ["uvicorn-picows", "uvicorn-websockets"])
async def test_one_that_left_before_the_verdict(kind: Kind) -> None:
    auth = JWTAuth(secret=SECRET, algorithms=["HS256"])
    asked = asyncio.Event()

    async def for_ever(_: Mapping[str, Any]) -> object:
        asked.set()
        return await asyncio.Event().wait()

    auth.load_user(for_ever)
    io = make_server(auth=auth)
    async with serve(io, kind) as url:
        with collected() as found:
            for _ in range(3):
                asked.clear()
                async with session(url, "websocket") as client:
                    await client.send("40" + json.dumps({"token": make_token()}))
                    await asked.wait()
            await gone(io)
        assert not found


@pytest.mark.parametrize("kind", ["uvicorn-picows", "uvicorn-websockets"])
async def test_one_that_sent_too_much(kind: Kind) -> None:
    io = make_server()
    async with serve(io, kind) as url:
        with collected() as found:
            for _ in range(3):
                async with session(url, "websocket") as client:
                    await client.send("40" + json.dumps({"token": "x" * 100_000}))
                    await ends(client)
            await gone(io)
        assert not found


async def refused(url: str, secret: str) -> None:
    """Come with a token of Mallory, and wait for the end."""
    async with session(url, "websocket") as client:
        await client.send("40" + json.dumps({"token": make_token(sub="mallory", secret=secret)}))
        await ends(client)


@pytest.mark.parametrize("kind", ["uvicorn-picows", "uvicorn-websockets"])
async def test_one_that_polled_and_made_room(kind: Kind) -> None:
    io = make_server(limits=Limits(pending=2))
    async with serve(io, kind) as url:
        with collected() as found:
            for _ in range(5):
                async with wire(url) as client:
                    await client.send(request("polling"))
                    assert await client.status() == 200
            assert len(io.connections) == 2
        assert not found


async def test_a_request_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timer by which uvicorn ends an idle connection does not keep one that has gone."""
    monkeypatch.setitem(servers.PROTOCOLS["uvicorn-picows"], "timeout_keep_alive", 3600)
    made: list[weakref.ref[HTTPProtocol]] = []
    connection_made = HTTPProtocol.connection_made

    def note(self: HTTPProtocol, transport: object) -> None:
        made.append(weakref.ref(self))
        connection_made(self, transport)  # type: ignore[arg-type]

    monkeypatch.setattr(HTTPProtocol, "connection_made", note)
    async with serve(make_server(), "uvicorn-picows") as url:
        async with wire(url) as client:
            await client.send(request("polling"))
            assert await client.status() == 200

        def is_freed() -> bool:
            gc.collect()
            return made[0]() is None

        await until(is_freed)
