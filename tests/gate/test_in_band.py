"""A client that connects first and says `authenticate` then, as clients of Node's `socketio-jwt` do."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from iogate import Refused, Server, Socket
from tests import refusals
from tests.conformance.wire import Session, echoes, ends, enter, said, session, within
from tests.gate.support import CountingAuth, Door, authenticate, compact, connect, hear, make_auth, unauthorized
from tests.servers import SECRET, make_server, make_token, serve


def in_band_server(within: float = 5.0, **settings: Any) -> Server:
    """Return a server that a client may connect to without a token."""
    return make_server(auth=make_auth(authenticate_within=within), **settings)


async def wait_outside(client: Session) -> str:
    """Connect without a token; return the id of the socket."""
    await client.send("40")
    answer = str(await within(client.receive()))
    assert answer.startswith('40{"sid":')
    sid: str = json.loads(answer[2:])["sid"]
    return sid


async def test_a_waiting_client_authenticates_and_is_let_in(transport: str) -> None:
    """It is told who it is, and only then do the handlers run, once, with the id that it was given first."""
    io = in_band_server()
    greeted: list[str] = []
    io.on("connect", lambda socket: greeted.append(socket.id))
    io.on("echo", lambda socket, text: socket.emit("echo", text))
    async with serve(io) as url, session(url, transport) as client:
        sid = await wait_outside(client)
        assert greeted == []
        end = int(time.time()) + 200
        await client.send(authenticate(exp=end))
        assert await hear(client) == ("authenticated", {"sub": "ann", "exp": end})
        await echoes(client)
        assert greeted == [sid]
        (socket,) = await io.fetch_sockets()
        assert socket.rooms == {sid, "user:ann"}


async def test_the_acknowledgement_of_authenticate_says_the_same(transport: str) -> None:
    """Who asks for an acknowledgement gets the object there too."""
    async with serve(in_band_server()) as url, session(url, transport) as client:
        await wait_outside(client)
        end = int(time.time()) + 200
        await client.send(authenticate(ack=7, exp=end))
        assert await hear(client) == ("authenticated", {"sub": "ann", "exp": end})
        assert await within(client.receive()) == "437" + compact([{"sub": "ann", "exp": end}])


async def test_g1_a_waiting_socket_receives_nothing(transport: str) -> None:
    """Not a byte of a hundred broadcasts, in whatever way they are addressed; it is in no room and no listing."""
    io = in_band_server()
    async with serve(io) as url, session(url, transport) as client:
        sid = await wait_outside(client)
        for number in range(100):
            io.emit("news", number)
            io.to(sid).emit("news", number)
            io.to("user:ann").emit("news", number)
            io.except_("nobody").emit("news", number)
        assert await io.fetch_sockets() == []
        await client.send(authenticate())
        assert (await hear(client))[0] == "authenticated"
        io.emit("late")
        assert await hear(client) == ("late", None)


async def test_g1_of_a_waiting_socket_only_authenticate_is_dispatched(transport: str) -> None:
    """Every other event of it is dropped, middleware and catch-all included."""
    io = in_band_server()
    ran: list[str] = []
    io.on("*", lambda socket, event, *args: ran.append(event))
    io.on("echo", lambda socket, text: socket.emit("echo", text))
    io.on("disconnect", lambda socket, reason: ran.append("disconnect"))

    @io.use_event
    async def look(socket: Socket, event: Any, call_next: Any) -> Any:
        ran.append(f"middleware {event.name}")
        return await call_next(event)

    async with serve(io) as url, session(url, transport) as client:
        await wait_outside(client)
        await client.send('42["early"]', '421["early"]', '42["echo","early"]')
        await client.send(authenticate())
        assert (await hear(client))[0] == "authenticated"
        assert ran == []
        await echoes(client)
        assert ran == ["middleware echo"]


async def test_g2_a_waiting_client_is_ended_at_the_deadline(transport: str) -> None:
    """It is told `timeout`, and the transport is closed as soon as it says that it has read that."""
    io = in_band_server(within=0.3)
    async with serve(io) as url, session(url, transport) as client:
        await wait_outside(client)
        packet = str(await within(client.receive()))
        assert packet == "421" + compact(["unauthorized", unauthorized(refusals.TIMEOUT)])
        await client.send("431[]")
        assert await said(client) == ["41"]
        assert not io._core.sessions.table


async def test_g2_nothing_a_waiting_client_sends_extends_the_deadline(transport: str) -> None:
    """Neither events nor a bad `authenticate` stop the clock, as they did in the package that taught the events."""
    io = in_band_server(within=0.5)

    async def chatter(client: Session) -> None:
        while True:
            await client.send('42["hello"]', "3")
            await asyncio.sleep(0.02)

    async with serve(io) as url, session(url, transport) as client:
        await wait_outside(client)
        talking = asyncio.create_task(chatter(client))
        await ends(client)
        talking.cancel()
        assert not io._core.sessions.table


async def test_g3_who_is_refused_in_band_is_closed_when_it_has_read_why(transport: str) -> None:
    """`unauthorized` asks for an acknowledgement; with it, or after a second, the transport is closed."""
    io = in_band_server()
    async with serve(io) as url, session(url, transport) as client:
        await wait_outside(client)
        await client.send(authenticate(secret="another-secret-that-is-long-enough-for-hs256"))
        assert await within(client.receive()) == "421" + compact(["unauthorized", unauthorized(refusals.INVALID)])
        await client.send(authenticate())  # Too late.
        await client.send("431[]")
        assert await said(client) == ["41"]
        assert not io._core.sessions.table


async def test_g3_who_does_not_acknowledge_is_closed_all_the_same(transport: str) -> None:
    """The other side's silence keeps nothing open, and nothing else is sent meanwhile."""
    io = in_band_server()
    async with serve(io) as url, session(url, transport) as client:
        await wait_outside(client)
        await client.send(authenticate("no token"))
        assert (await hear(client))[0] == "unauthorized"
        for number in range(100):
            io.emit("news", number)
        assert await said(client) == ["41"]


async def test_every_refusal_in_band_has_the_codes_of_the_contract(transport: str) -> None:
    """What is wrong with the token is told as at CONNECT, in the event and in the acknowledgement."""
    cases: list[tuple[Any, dict[str, Any]]] = [
        ({"token": make_token(exp=1)}, refusals.EXPIRED),
        ({"token": make_token()[:-2] + "xx"}, refusals.INVALID),
        ({"token": 5}, refusals.BAD_FORMAT),
        ({"token": "Basic abc"}, refusals.BAD_SCHEME),
        ({}, refusals.REQUIRED),
        (None, refusals.REQUIRED),
        ("text", refusals.BAD_FORMAT),
    ]
    async with serve(in_band_server()) as url:
        for argument, refusal in cases:
            async with session(url, transport) as client:
                await wait_outside(client)
                await client.send("429" + compact(["authenticate", argument]))
                packets = {str(await within(client.receive())), str(await within(client.receive()))}
                assert packets == {
                    "439" + compact([{"error": refusal["data"]}]),
                    "421" + compact(["unauthorized", unauthorized(refusal)]),
                }


async def test_g8_an_application_can_refuse_in_band_with_its_own_code(transport: str) -> None:
    """`load_user` is the additional check of the Node package."""
    auth = make_auth(authenticate_within=5)

    @auth.load_user
    async def check(claims: Any) -> object:
        raise Refused("You are banned", data={"code": "banned"})

    io = make_server(auth=auth)
    async with serve(io) as url, session(url, transport) as client:
        await wait_outside(client)
        await client.send(authenticate())
        name, argument = await hear(client)
        assert name == "unauthorized"
        assert argument == unauthorized({"message": "You are banned", "data": {"code": "banned"}})


async def test_both_ways_may_be_enabled_at_once(transport: str) -> None:
    """A token in CONNECT is verified there, and a bad one is refused there."""
    io = in_band_server()
    async with serve(io) as url:
        async with session(url, transport) as client:
            await enter(client)
            assert len(await io.fetch_sockets()) == 1
        async with session(url, transport) as client:
            await client.send(connect("bad"))
            assert await said(client) == ["44" + compact(refusals.INVALID)]


async def test_while_the_verdict_is_pending_a_second_authenticate_counts_for_nothing(transport: str) -> None:
    """One attempt is judged, whatever is sent while it is."""
    auth = CountingAuth(secret=SECRET, algorithms=["HS256"], authenticate_within=5)
    io = make_server(auth=auth)
    door = Door()
    io.use(door)
    async with serve(io) as url, session(url, transport) as client:
        await wait_outside(client)
        await client.send(authenticate())
        await within(door.reached.wait())
        await client.send(authenticate("bad"), authenticate(sub="bob"), "40/nowhere,")
        assert str(await within(client.receive())).startswith("44/nowhere,")  # All of it has been read.
        for number in range(100):
            io.emit("news", number)
        door.opened.set()
        assert (await hear(client))[1]["sub"] == "ann"
    assert auth.verified == 1


async def test_a_waiting_client_may_leave(transport: str) -> None:
    """A DISCONNECT, or the end of the transport, leaves nothing behind and runs no handler."""
    io = in_band_server(connect_timeout=0.3, within=0.3)
    ran: list[str] = []
    io.on("disconnect", lambda socket, reason: ran.append(reason))
    async with serve(io) as url, session(url, transport) as client:
        await wait_outside(client)
        await client.send("41")
        await ends(client)
        assert not io._core.sessions.table
        assert ran == []


async def test_a_guest_can_authenticate_later(transport: str) -> None:
    """On a server that lets guests in, `authenticate` gives a guest an identity; the handlers do not run again."""
    io = make_server(auth=make_auth(guests=True))
    seen: list[Any] = []
    io.on("connect", lambda socket: seen.append(socket.authenticated))
    io.on("refresh", lambda socket, old, new: seen.append((old, new.subject, socket.authenticated)))
    async with serve(io) as url, session(url, transport) as client:
        await client.send("40")
        await within(client.receive())
        await client.send(authenticate())
        assert (await hear(client))[0] == "authenticated"
        assert seen == [False, (None, "ann", True)]
        assert len(await io.in_("user:ann").fetch_sockets()) == 1


async def test_without_a_deadline_for_it_nobody_waits_outside(transport: str) -> None:
    """In band is off unless it is asked for."""
    async with serve(make_server()) as url, session(url, transport) as client:
        await client.send("40")
        assert await said(client) == ["44" + compact(refusals.REQUIRED)]
