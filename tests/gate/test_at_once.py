"""Verdicts that need not be waited for: they are given in the middle of reading what the client has sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from iogate import Server, Socket
from tests import refusals
from tests.conformance.wire import Session, WebSocket, ends, said, session, within
from tests.gate.support import compact, connect, make_auth
from tests.server.left import assert_nothing_left
from tests.servers import make_server, serve

BAD = "bad"


async def send_at_once(client: Session, *packets: str) -> None:
    """Send packets so that the server reads all of them at once: in one payload, or in one write to the network."""
    if not isinstance(client, WebSocket):
        await client.send(*packets)
        return
    connection = client.connection
    for packet in packets:
        connection.protocol.send_text(packet.encode())
    connection.transport.write(b"".join(connection.protocol.data_to_send()))


def with_echo(io: Server, *names: str) -> Server:
    for name in names:
        io.of(name).on("echo", lambda socket, value: value)
    return io


def refused(namespace: str = "") -> str:
    return f"44{namespace}{',' if namespace else ''}" + compact(refusals.INVALID)


async def receive(client: Session) -> str:
    return str(await within(client.receive()))


@pytest.fixture
def io() -> Server:
    return with_echo(make_server(), "/", "/admin")


# Several who ask together.


@pytest.mark.parametrize(("bad", "good"), [("", "/admin"), ("/admin", "")], ids=["the root first", "the root last"])
async def test_a_transport_stays_if_the_second_of_two_who_ask_together_is_let_in(
    io: Server, transport: str, bad: str, good: str
) -> None:
    """The refusal of the first closes the transport only if nobody else on it asks, or is in."""
    async with serve(io) as url, session(url, transport) as client:
        await send_at_once(client, connect(BAD, bad), connect(namespace=good))
        assert await receive(client) == refused(bad)
        comma = "," if good else ""
        assert (await receive(client)).startswith(f'40{good}{comma}{{"sid":')
        await client.send(f'42{good}{comma}1["echo","in"]')
        assert await receive(client) == f'43{good}{comma}1["in"]'
        await client.send(f'42{good}{comma}2["echo","still"]')
        assert await receive(client) == f'43{good}{comma}2["still"]'


async def test_a_transport_stays_while_the_second_of_two_who_ask_together_is_waited_for(
    io: Server, transport: str
) -> None:
    opened, reached = asyncio.Event(), asyncio.Event()

    @io.of("/admin").use
    async def door(socket: Socket) -> None:
        reached.set()
        await opened.wait()

    async with serve(io) as url, session(url, transport) as client:
        await send_at_once(client, connect(BAD), connect(namespace="/admin"))
        assert await receive(client) == refused()
        await within(reached.wait())
        opened.set()
        assert (await receive(client)).startswith('40/admin,{"sid":')
        await client.send('42/admin,1["echo","in"]')
        assert await receive(client) == '43/admin,1["in"]'


async def test_a_transport_is_closed_if_both_who_ask_together_are_refused(io: Server, transport: str) -> None:
    async with serve(io) as url, session(url, transport) as client:
        await send_at_once(client, connect(BAD), connect(BAD, "/admin"))
        assert await said(client) == [refused(), refused("/admin")]
        await assert_nothing_left(io)


# Hooks that do something else than to let in.


async def test_middleware_may_end_the_connection_and_wait_for_something_else_then(io: Server, transport: str) -> None:
    """It is cancelled, and nothing is left of who asked."""
    cancelled = asyncio.Event()

    @io.of("/admin").use
    async def hostile(socket: Socket) -> None:
        io.in_("user:ann").disconnect_sockets(close=True)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with serve(io) as url, session(url, transport) as client:
        await client.send(connect())
        assert (await receive(client)).startswith('40{"sid":')
        await client.send(connect(namespace="/admin"))
        await ends(client)
        await within(cancelled.wait())
        await assert_nothing_left(io)


async def test_middleware_that_has_ended_the_connection_lets_nobody_in(
    io: Server, transport: str, must_not_run: Callable[..., None]
) -> None:
    io.of("/admin").on("connect", must_not_run)

    @io.of("/admin").use
    async def hostile(socket: Socket) -> None:
        io.in_("user:ann").disconnect_sockets(close=True)

    async with serve(io) as url, session(url, transport) as client:
        await client.send(connect())
        assert (await receive(client)).startswith('40{"sid":')
        await client.send(connect(namespace="/admin"))
        assert [packet for packet in await said(client) if str(packet).startswith("4")] == ["41"]
        await assert_nothing_left(io)


async def test_what_comes_behind_a_connect_that_has_ended_the_connection_is_not_looked_at(
    io: Server, transport: str, must_not_run: Callable[..., None]
) -> None:
    io.of("/admin").use(lambda socket: io.in_("user:ann").disconnect_sockets(close=True))
    io.on("late", must_not_run)
    io.of("/other").on("connect", must_not_run)
    async with serve(io) as url, session(url, transport) as client:
        await client.send(connect())
        assert (await receive(client)).startswith('40{"sid":')
        await send_at_once(client, connect(namespace="/admin"), '42["late"]', connect(namespace="/other"))
        await ends(client)
        await assert_nothing_left(io)


# Hooks that raise `CancelledError`, which is not always what it seems.


async def _at_once(*_: Any) -> None:
    raise asyncio.CancelledError


async def _after_a_turn(*_: Any) -> None:
    await asyncio.sleep(0)
    raise asyncio.CancelledError


def _plainly(*_: Any) -> None:
    raise asyncio.CancelledError


async def _its_own_task(*_: Any) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.Event().wait()


CANCELLED = [_at_once, _after_a_turn, _plainly, _its_own_task]


async def _refuses_and_serves_on(io: Server, transport: str) -> None:
    """In the namespace `/admin` it must be refused; on the same transport all goes on."""
    async with serve(io) as url, session(url, transport) as client:
        await client.send(connect(sub="bob"))
        assert (await receive(client)).startswith('40{"sid":')
        for _ in range(2):
            await client.send(connect(namespace="/admin", sub="bob", jti="another"))
            assert await receive(client) == "44/admin," + compact(refusals.UNAVAILABLE)
        await client.send('421["echo","still here"]')
        assert await receive(client) == '431["still here"]'
        await client.send("1")
        await ends(client)
        await assert_nothing_left(io)


@pytest.mark.parametrize("hook", CANCELLED)
async def test_middleware_that_is_cancelled_is_a_refusal_and_harms_nobody_else(
    io: Server, transport: str, hook: Callable[[Socket], Awaitable[None] | None]
) -> None:
    io.of("/admin").use(hook)
    await _refuses_and_serves_on(io, transport)


@pytest.mark.parametrize("hook", CANCELLED)
async def test_a_loader_that_is_cancelled_is_a_refusal_and_harms_nobody_else(
    transport: str, hook: Callable[..., Any]
) -> None:
    auth = make_auth()

    @auth.load_user
    async def load(claims: Mapping[str, Any]) -> object:
        if claims.get("jti") != "another":
            return claims
        result = hook(claims)
        return await result if result is not None else claims

    await _refuses_and_serves_on(with_echo(make_server(auth=auth), "/", "/admin"), transport)
