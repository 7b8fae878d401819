"""The invariants of the gate. Each test has the name of its row in ARCHITECTURE.md and runs on both transports."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from iogate import AuthPayload, BearerHeader, JWTAuth, Principal, Query, Refused, Server, Socket
from tests import refusals
from tests.conformance.wire import Session, echoes, ends, enter, polling, refused, said, session, websocket, within
from tests.gate.support import CountingAuth, Door, SteppedClock, compact, connect, make_auth
from tests.servers import SECRET, make_server, make_token, serve

CONNECT = connect()


@asynccontextmanager
async def at_the_door(io: Server, transport: str) -> AsyncIterator[tuple[Session, Door]]:
    """Serve, and bring one client so far that only the verdict of a middleware is missing."""
    door = Door()
    io.use(door)
    async with serve(io) as url, session(url, transport) as client:
        await client.send(CONNECT)
        await within(door.reached.wait())
        yield client, door


# G1: before the verdict nothing of the application crosses, in or out.


async def test_g1_no_broadcast_reaches_a_socket_whose_verdict_is_pending(transport: str) -> None:
    """Of what is emitted before the verdict, in whatever way, not a byte arrives; after it, everything does."""
    io = make_server()
    async with at_the_door(io, transport) as (client, door):
        (waiting,) = door.sockets
        waiting.join("news")
        for number in range(100):
            io.emit("early", number)
            io.to("news").emit("early", number)
            io.to("user:ann").emit("early", number)
            io.to(waiting.id).emit("early", number)
            io.volatile.emit("early", number)
            waiting.emit("early", number)
            waiting.volatile.emit("early", number)
        door.opened.set()
        answer = await within(client.receive())
        io.to("news").emit("late")
        assert str(answer).startswith('40{"sid":')
        assert await within(client.receive()) == '42["late"]'


async def test_g1_a_socket_whose_verdict_is_pending_is_in_no_room_and_no_listing(transport: str) -> None:
    """Nobody can find, count or address it."""
    io = make_server()
    async with at_the_door(io, transport) as (_, door):
        (waiting,) = door.sockets
        waiting.join("news")
        assert await io.fetch_sockets() == []
        assert await io.in_("news").fetch_sockets() == []
        assert await io.in_("user:ann").fetch_sockets() == []
        assert await io.in_(waiting.id).fetch_sockets() == []
        assert dict(io.of("/").sockets) == {}
        assert waiting.rooms == frozenset()
        assert not waiting.connected
        assert await io.call("hello", timeout=1) == []


async def test_g1_no_handler_runs_before_the_verdict(transport: str) -> None:
    """An event that comes early is handled by nobody, and ends the connection."""
    io = make_server()
    ran: list[str] = []
    io.on("connect", lambda socket: ran.append("connect"))
    io.on("message", lambda socket, *args: ran.append("message"))
    io.on("*", lambda socket, event, *args: ran.append(event))
    io.on("disconnect", lambda socket, reason: ran.append("disconnect"))
    async with at_the_door(io, transport) as (client, door):
        await client.send('42["message","early"]')
        await ends(client)
        door.opened.set()
        assert not io._core.sessions.table
    assert ran == []


async def test_g1_a_transport_that_never_asked_receives_nothing(transport: str) -> None:
    """A session without CONNECT hears of no broadcast."""
    io = make_server(connect_timeout=1.0)
    async with serve(io) as url, session(url, transport) as client, session(url, transport) as other:
        await enter(other)
        for number in range(100):
            io.emit("news", number)
        assert await said(client) == []


async def test_g1_a_socket_that_is_being_refused_receives_nothing(transport: str) -> None:
    """Between the first thought of a refusal and the end of the transport there is the refusal, and nothing else."""
    io = make_server()

    @io.use
    async def closed(socket: Socket) -> None:
        io.emit("news", "while refusing")
        raise Refused("closed", data={"code": "closed"})

    async with serve(io) as url, session(url, transport) as client:
        await client.send(CONNECT)
        packets = await said(client)
    assert packets == ['44{"message":"closed","data":{"code":"closed"}}']


# G2: one absolute deadline from the opening of the transport to the verdict.


async def test_g2_a_transport_that_never_asks_is_closed_whatever_it_sends(transport: str) -> None:
    """Pongs do not extend the deadline."""
    io = make_server(connect_timeout=0.5)
    async with serve(io) as url, session(url, transport) as client:
        chatter = asyncio.create_task(_keep_sending(client, "3"))
        await ends(client)
        chatter.cancel()
        assert not io._core.sessions.table


async def test_g2_a_verdict_that_does_not_come_is_a_refusal(
    transport: str,
    must_not_run: Callable[..., None],
) -> None:
    """A hook that never returns leaves nobody at the door."""
    io = make_server(connect_timeout=0.3)
    io.on("connect", must_not_run)
    async with at_the_door(io, transport) as (client, _):
        assert await said(client) == ["44" + compact(refusals.UNAVAILABLE)]
        assert not io._core.sessions.table


async def test_g2_the_deadline_covers_all_namespaces(transport: str) -> None:
    """Asking for another namespace shortly before the deadline gains no time: all are refused together."""
    io = make_server(connect_timeout=0.5)
    io.use(Door())
    io.of("/other").use(Door())
    async with serve(io) as url, session(url, transport) as client:
        await client.send(CONNECT)
        for _ in range(4):
            await client.send("3")
        await client.send("40/other," + CONNECT[2:])
        refusal = compact(refusals.UNAVAILABLE)
        assert sorted(map(str, await said(client))) == ["44/other," + refusal, "44" + refusal]


async def test_g2_a_second_namespace_has_a_deadline_too(transport: str) -> None:
    """On a connection that is in one namespace, a verdict on another that does not come is a refusal of that one."""
    io = make_server(connect_timeout=0.3)
    io.on("echo", lambda socket, text: socket.emit("echo", text))
    io.of("/other").use(Door())
    async with serve(io) as url, session(url, transport) as client:
        await enter(client)
        await client.send("40/other," + CONNECT[2:])
        assert await within(client.receive()) == "44/other," + compact(refusals.UNAVAILABLE)
        await echoes(client)


async def test_g2_leaving_every_namespace_starts_the_deadline_again(transport: str) -> None:
    """A transport that is in no namespace any more is not kept for ever."""
    io = make_server(connect_timeout=0.3)
    async with serve(io) as url, session(url, transport) as client:
        await enter(client)
        await client.send("41")
        await ends(client)
        assert not io._core.sessions.table


# G3: a refused transport is closed at once, after the refusal is written; three attempts at most.


async def test_g3_a_refused_transport_is_closed_after_the_refusal(transport: str) -> None:
    """The client reads why, and then the end; it cannot try again on the same transport."""
    io = make_server()
    async with serve(io) as url, session(url, transport) as client:
        await client.send("40" + json.dumps({"token": make_token(secret="x" * 40)}))
        assert await said(client) == ["44" + compact(refusals.INVALID)]
        assert not io._core.sessions.table


async def test_g3_a_transport_has_three_attempts(transport: str) -> None:
    """A connection that is in a namespace is closed too when a third credential of it is refused."""
    io = make_server()
    bad = json.dumps({"token": "no.token.atall"})
    for name in "abc":
        io.of(f"/{name}")
    async with serve(io) as url, session(url, transport) as client:
        await enter(client)
        for name in "ab":
            await client.send(f"40/{name},{bad}")
            assert await within(client.receive()) == f"44/{name}," + compact(refusals.INVALID)
        await client.send(f"40/c,{bad}")
        assert await said(client) == ["44/c," + compact(refusals.INVALID)]


async def test_g3_no_more_tokens_are_verified_than_there_are_attempts(transport: str) -> None:
    """Many bad tokens sent at once cost the server three verifications."""
    auth = CountingAuth(secret=SECRET, algorithms=["HS256"])
    io = make_server(auth=auth)
    async with serve(io) as url, session(url, transport) as client:
        await client.send(*(f'40/{number},{{"token":"bad{number}"}}' for number in range(50)))
        await ends(client)
    assert auth.verified == 3


# G8: anything unexpected on the way is a refusal, generic to the client, whole in the log.


async def _raises(socket: Socket) -> None:
    raise ValueError("the inside")


def _raises_plainly(socket: Socket) -> None:
    raise KeyError("the inside")


async def _is_cancelled(socket: Socket) -> None:
    raise asyncio.CancelledError


async def _waits_for_what_is_cancelled(socket: Socket) -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def _gives_up(socket: Socket) -> None:
    raise BaseExceptionGroup("the inside", [GeneratorExit("the inside")])  # Of errors alone it would be an Exception.


@pytest.mark.parametrize(
    "middleware", [_raises, _raises_plainly, _is_cancelled, _waits_for_what_is_cancelled, _gives_up]
)
async def test_g8_middleware_that_fails_is_a_refusal(
    transport: str,
    middleware: Callable[[Socket], Awaitable[None] | None],
    caplog: pytest.LogCaptureFixture,
    must_not_run: Callable[..., None],
) -> None:
    """Whatever it raises, nobody is let in and nobody is told why."""
    io = make_server()
    io.use(middleware)
    io.on("connect", must_not_run)
    await _is_refused(io, transport, CONNECT, refusals.UNAVAILABLE)
    if "cancelled" not in middleware.__name__:
        assert "the inside" in caplog.text


async def _no_user(claims: Mapping[str, Any]) -> None:
    return None


async def _no_database(claims: Mapping[str, Any]) -> object:
    raise ConnectionError("the inside")


async def _application_says_no(claims: Mapping[str, Any]) -> object:
    raise Refused("You are banned", data={"code": "banned"})


BANNED = {"message": "You are banned", "data": {"code": "banned"}}


@pytest.mark.parametrize(
    ("loader", "refusal"),
    [
        (_no_user, refusals.INVALID),
        (_no_database, refusals.UNAVAILABLE),
        (_application_says_no, BANNED),
    ],
)
async def test_g8_a_user_that_cannot_be_loaded_is_a_refusal(
    transport: str,
    loader: Callable[[Mapping[str, Any]], Awaitable[object]],
    refusal: dict[str, Any],
    must_not_run: Callable[..., None],
) -> None:
    """None where a user was expected, and a loader that fails, let nobody in."""
    auth = make_auth()
    auth.load_user(loader)
    io = make_server(auth=auth)
    io.on("connect", must_not_run)
    await _is_refused(io, transport, CONNECT, refusal)


async def test_g8_a_verifier_that_fails_is_a_refusal(transport: str) -> None:
    """A bug in the verification itself lets nobody in."""

    class Broken(JWTAuth):
        async def verify_async(self, token: str) -> Principal:
            raise RuntimeError("the inside")

    io = make_server(auth=Broken(secret=SECRET, algorithms=["HS256"]))
    await _is_refused(io, transport, CONNECT, refusals.UNAVAILABLE)


async def test_g8_a_predicate_that_fails_is_a_refusal(transport: str) -> None:
    """So does a bug in what matches the names of namespaces."""
    io = make_server()

    def broken(name: str) -> bool:
        raise RuntimeError("the inside")

    io.of(broken)
    connect = "40/any," + CONNECT[2:]
    await _is_refused(io, transport, connect, refusals.UNAVAILABLE, namespace="/any,")


async def test_g8_a_token_that_expires_while_hooks_run_is_refused(
    transport: str,
    must_not_run: Callable[..., None],
) -> None:
    """The time that middleware takes counts."""
    now = SteppedClock()
    io = make_server(auth=make_auth(clock=now))
    io.on("connect", must_not_run)
    async with at_the_door(io, transport) as (client, door):
        now.step = 3601.0
        door.opened.set()
        assert await said(client) == ["44" + compact(refusals.EXPIRED)]


async def test_g8_a_client_that_leaves_before_the_verdict_leaves_nothing_behind(
    transport: str,
    must_not_run: Callable[..., None],
) -> None:
    """Its hooks are cancelled, and a verdict that comes late lets nobody in."""
    io = make_server()
    io.on("connect", must_not_run)
    async with at_the_door(io, transport) as (client, door):
        await client.send("1")
        await within(door.left.wait())
        assert not io._core.sessions.table
        door.opened.set()
        assert await io.fetch_sockets() == []
        assert not door.sockets[0].connected


async def test_g8_a_hook_that_does_not_heed_its_cancellation_lets_nobody_in(
    transport: str,
    must_not_run: Callable[..., None],
) -> None:
    """A verdict that comes after the deadline, or after the client has asked anew, is not heard."""
    io = make_server(connect_timeout=0.3)
    io.on("connect", must_not_run)
    woken = asyncio.Event()

    @io.use
    async def stubborn(socket: Socket) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            woken.set()

    async with serve(io) as url, session(url, transport) as client:
        await client.send(CONNECT)
        assert await said(client) == ["44" + compact(refusals.UNAVAILABLE)]
        await within(woken.wait())
        assert await io.fetch_sockets() == []
        assert not io._core.sessions.table


async def test_g8_another_persons_token_on_the_same_transport_is_refused(transport: str) -> None:
    """A connection has one identity: a second namespace cannot be entered as somebody else."""
    io = make_server()
    io.of("/other")
    async with serve(io) as url, session(url, transport) as client:
        await enter(client)
        await client.send("40/other," + json.dumps({"token": make_token(sub="bob")}))
        assert await within(client.receive()) == "44/other," + compact(refusals.INVALID)


async def test_g8_the_same_identity_serves_every_namespace(transport: str) -> None:
    """The token is verified once a transport; without one, a further namespace has the identity there is."""
    auth = CountingAuth(secret=SECRET, algorithms=["HS256"])
    io = make_server(auth=auth)
    seen: list[str] = []
    for name in ("/a", "/b", "/c"):
        io.of(name).on("connect", lambda socket: seen.append(socket.principal.subject))
    token = make_token()
    async with serve(io) as url, session(url, transport) as client:
        for name, payload in (("/a", {"token": token}), ("/b", {"token": token}), ("/c", {})):
            await client.send(f"40{name},{json.dumps(payload)}")
            assert str(await within(client.receive())).startswith(f"40{name},")
    assert seen == ["ann"] * 3
    assert auth.verified == 1


# G9: no token, secret or key in anything that iogate writes.


async def test_g9_no_token_is_in_a_log_line_or_a_repr(transport: str, caplog: pytest.LogCaptureFixture) -> None:
    """Tokens that are good, bad, in the URL and in a header leave no trace in any log."""
    caplog.set_level(logging.WARNING, logger="httpx")  # The client of the test writes down its own URLs.
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, logger="iogate")
    sources = (AuthPayload(), BearerHeader(), Query("token"))
    io = make_server(auth=make_auth(sources=sources))
    written: list[str] = []

    @io.use
    async def look(socket: Socket) -> None:
        written.extend(map(repr, (socket, socket.handshake, socket.principal, socket._connection, io, io._core.gate)))
        written.append(repr(socket.handshake.auth))
        if socket.principal.subject == "bob":
            raise ValueError("so that there is a traceback")

    good, bad, expired = make_token(), make_token(secret="y" * 40), make_token(exp=1)
    tokens = [good, bad, expired, make_token(sub="bob")]
    async with serve(io) as url:
        for token in tokens:
            async with session(url, transport) as client:
                await client.send("40" + json.dumps({"token": token, "room": "a"}))
                await within(client.receive())
        opened = polling if transport == "polling" else websocket
        async with opened(url, Authorization=f"Bearer {good}") as client:
            await client.send("40")
            await within(client.receive())
        async with httpx.AsyncClient(base_url=url) as http:
            query = {"EIO": "4", "transport": transport, "token": good}
            await http.get("/socket.io/", params=query, headers={"Authorization": f"Bearer {bad}"})
        await refused(url, {"EIO": "3", "transport": "websocket", "token": good})
    text = caplog.text + "".join(written)
    assert "EIO=4" in caplog.text  # The access log of the ASGI server was on.
    for secret in (SECRET, *tokens):
        assert secret not in text
        assert secret.split(".")[-1] not in text


async def _is_refused(io: Server, transport: str, connect: str, refusal: dict[str, Any], namespace: str = "") -> None:
    async with serve(io) as url, session(url, transport) as client:
        await client.send(connect)
        assert await said(client) == [f"44{namespace}" + compact(refusal)]
        assert not io._core.sessions.table
        assert await io.fetch_sockets() == []


async def _keep_sending(client: Session, packet: str) -> None:
    while True:
        await client.send(packet)
        await asyncio.sleep(0.02)
