"""Verdicts that cross each other: what holds for one CONNECT holds however many are pending."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from iogate import JWTAuth, Refused, Server, Socket
from iogate.server.session.reasons import CloseReason
from tests import refusals
from tests.conformance.wire import session, within
from tests.server.left import assert_nothing_left, until
from tests.server.talk import Client, client
from tests.servers import SECRET, connection_of, make_server, make_token, serve


def connect(namespace: str, subject: str) -> str:
    return f"40{namespace}," + json.dumps({"token": make_token(sub=subject)})


def refusal(namespace: str, payload: dict[str, Any]) -> str:
    return f"44{namespace}," + json.dumps(payload, separators=(",", ":"))


async def test_two_persons_at_once_on_one_transport_are_not_both_let_in(transport: str) -> None:
    """A connection has one identity. The second token is verified when the first has its user, and is refused."""
    opened = asyncio.Event()
    asked: list[str] = []
    auth = JWTAuth(secret=SECRET, algorithms=["HS256"])

    @auth.load_user
    async def user(claims: Mapping[str, Any]) -> str:
        asked.append(claims["sub"])
        await opened.wait()
        return str(claims["sub"])

    io = make_server(auth=auth)
    entered: list[str] = []
    for name in ("/a", "/b"):
        io.of(name).on("connect", lambda socket: entered.append(socket.user))
    async with serve(io) as url, session(url, transport) as wire:
        await wire.send(connect("/a", "ann"), connect("/b", "bob"))
        await until(lambda: len(asked) == 1)
        opened.set()
        heard = {str(await within(wire.receive()))[:5]: None for _ in range(2)}
        assert sorted(heard) == ["40/a,", "44/b,"]
        assert (asked, entered) == (["ann"], ["ann"])
        (connection,) = io._core.sessions.table.values()
        assert connection.identity is not None
        assert connection.identity.principal.subject == "ann"


async def test_a_namespace_that_is_left_and_asked_for_again_is_entered_once(transport: str) -> None:
    """The verdict on the first CONNECT is not taken for one on the second, not even if its hook will not be stopped."""
    doors: list[asyncio.Event] = []
    entered: list[str] = []
    io = make_server()
    io.of("/slow").on("connect", lambda socket: entered.append(socket.id))

    @io.of("/slow").use
    async def stubborn(socket: Socket) -> None:
        door = asyncio.Event()
        doors.append(door)
        while not door.is_set():
            try:
                await door.wait()
            except asyncio.CancelledError:
                continue

    async with client(io, transport) as ann:
        await ann.wire.send(connect("/slow", "ann"))
        await until(lambda: len(doors) == 1)
        await ann.wire.send("41/slow,", connect("/slow", "ann"))
        await until(lambda: len(doors) == 2)
        doors[0].set()
        await ann.hears_nothing_before(io)
        assert dict(io.of("/slow").sockets) == {}
        doors[1].set()
        assert (await ann.receive()).startswith('40/slow,{"sid":')
        assert list(io.of("/slow").sockets) == entered
        await ann.wire.send("1")
    assert len(entered) == 1


async def test_a_refusal_that_has_no_json_is_a_refusal_all_the_same(
    transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The client is told so at once, nothing of the reason, and the rest of its connection goes on."""
    io = make_server()

    @io.of("/closed").use
    async def closed(socket: Socket) -> None:
        raise Refused("closed", data=object())

    async with client(io, transport) as ann:
        await ann.wire.send(connect("/closed", "ann"))
        assert await ann.receive() == refusal("/closed", refusals.UNAVAILABLE)
        assert dict(io.of("/closed").sockets) == {}
        await ann.hears_nothing_before(io)
    assert "the data of a refusal has no JSON" in caplog.text


async def test_a_connect_handler_that_ends_its_own_connection_harms_nothing(transport: str) -> None:
    """Each handler runs once, in the order in which things happened."""
    io = Server(auth=None)
    seen: list[str] = []

    @io.on("connect")
    def connected(socket: Socket) -> None:
        seen.append("connect")
        socket.disconnect(close=True)

    io.on("disconnect", lambda socket, reason: seen.append(reason))
    async with serve(io) as url, session(url, transport) as wire:
        await wire.send("40")
        assert str(await within(wire.receive())).startswith('40{"sid":')
        await until(lambda: not io._core.sessions.table)
        await Client(wire).wire.send("40")
    assert seen == ["connect", "server namespace disconnect"]


async def test_middleware_may_end_the_connection_that_it_decides_on(transport: str) -> None:
    io = make_server()
    entered: list[str] = []
    io.on("connect", lambda socket: entered.append(socket.id))

    @io.use
    async def closes(socket: Socket) -> None:
        connection_of(socket).close(CloseReason.NOT_ADMITTED)
        await asyncio.sleep(0)

    async with serve(io) as url, session(url, transport) as wire:
        await wire.send("40" + json.dumps({"token": make_token()}))
        await until(lambda: not io._core.sessions.table)
        await wire.send("40")
        assert dict(io.of("/").sockets) == {}
    if transport == "websocket":
        await assert_nothing_left(io)
    assert entered == []
