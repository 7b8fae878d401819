"""The identity while the socket lives: expiry, refresh, revocation, scopes. Rows G4 to G7 are here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from iogate import InsufficientScope, Socket
from iogate.server.identity import Identity, digest_of
from tests import refusals, servers
from tests.conformance.wire import Session, echoes, ends, enter, said, session, within
from tests.gate.support import (
    Door,
    SteppedClock,
    authenticate,
    compact,
    connect,
    farewell,
    hear,
    make_auth,
    unauthorized,
)
from tests.servers import connection_of, make_server, make_token, serve


def soon(seconds: float) -> float:
    """Return the Unix time so many seconds from now."""
    return time.time() + seconds


async def last_words(client: Session) -> list[str]:
    """Return what is said until the end, but for the call to refresh."""
    return [str(packet) for packet in await said(client) if "token_expiring" not in str(packet)]


# G4: at exp + grace the socket stops in both directions.


async def test_g4_an_idle_socket_ends_when_its_token_does(transport: str) -> None:
    """It is told why, leaves the namespace, and the transport is closed."""
    io = make_server()
    reasons: list[str] = []
    io.on("disconnect", lambda socket, reason: reasons.append(reason))
    async with serve(io) as url, session(url, transport) as client:
        end = soon(0.6)
        await enter(client, exp=end)
        assert await last_words(client) == farewell(refusals.EXPIRED)
        assert time.time() >= end
        assert not io._core.sessions.table
        assert reasons == ["token expired"]


async def test_g4_a_busy_socket_ends_too(transport: str) -> None:
    """Traffic does not keep it alive, and after the end no handler runs for what it still sends."""
    io = make_server()
    heard: list[float] = []
    io.on("tick", lambda socket: heard.append(time.time()))

    async def tick(client: Session) -> None:
        while True:
            await client.send('42["tick"]')
            await asyncio.sleep(0.01)

    async with serve(io) as url, session(url, transport) as client:
        end = soon(0.6)
        await enter(client, exp=end)
        ticking = asyncio.create_task(tick(client))
        await ends(client)
        ticking.cancel()
        assert not io._core.sessions.table
        assert heard


async def test_g4_the_grace_is_added(transport: str) -> None:
    """With a grace, the socket lives that much longer."""
    io = make_server(auth=make_auth(expiry_grace=0.5))
    async with serve(io) as url, session(url, transport) as client:
        end = soon(0.3)
        await enter(client, exp=end)
        await ends(client)
        assert time.time() >= end + 0.5


@pytest.mark.parametrize("step", [-3600, 3600])
async def test_g4_a_step_of_the_wall_clock_changes_no_end(transport: str, step: float) -> None:
    """Set back, nobody lives longer; set forward, nobody is ended early."""
    clock = SteppedClock()
    io = make_server(auth=make_auth(clock=clock), clock=clock)
    io.on("echo", lambda socket, text: socket.emit("echo", text))
    async with serve(io) as url, session(url, transport) as client:
        end = soon(0.8)
        await enter(client, exp=end)
        clock.step = step
        await echoes(client)
        assert await last_words(client) == farewell(refusals.EXPIRED)
        assert time.time() >= end


async def test_g4_the_greatest_age_ends_a_socket_too(transport: str) -> None:
    """A token that lives longer than `max_age` allows gives no longer session."""
    io = make_server(auth=make_auth(max_age=1))
    async with serve(io) as url, session(url, transport) as client:
        await enter(client, exp=soon(300), iat=soon(-0.5))
        assert await last_words(client) == farewell(refusals.EXPIRED)


async def test_g4_every_namespace_of_the_connection_ends(transport: str) -> None:
    """The identity is the connection's."""
    io = make_server()
    io.of("/other")
    async with serve(io) as url, session(url, transport) as client:
        token = make_token(exp=soon(0.6))
        await client.send(connect(token), connect(token, "/other"))
        await within(client.receive())
        await within(client.receive())
        assert await last_words(client) == farewell(refusals.EXPIRED) + farewell(refusals.EXPIRED, "/other")


async def test_the_client_is_called_to_refresh_before_the_end(transport: str) -> None:
    """`token_expiring` says when the token expires, ahead of time."""
    io = make_server(auth=make_auth(refresh_before=299.9))
    async with serve(io) as url, session(url, transport) as client:
        end = int(soon(1.5))
        await enter(client, exp=end)
        assert await hear(client) == ("token_expiring", {"expires_at": end, "refresh_by": end})
        assert time.time() < end


# Refresh.


async def test_g6_a_refresh_gives_the_connection_a_new_identity(transport: str) -> None:
    """Claims, user and deadline change together, in every namespace; the connect handlers do not run again."""
    auth = make_auth()
    auth.load_user(lambda claims: claims["name"].upper())
    io = make_server(auth=auth)
    other = io.of("/other")
    seen: list[Any] = []
    io.on("connect", lambda socket: seen.append("connect"))
    io.on("echo", lambda socket, text: socket.emit("echo", text))

    def refreshed(socket: Socket, old: Any, new: Any) -> None:
        seen.append((socket.namespace.name, old.claims["name"], new.claims["name"], socket.user, socket.claims["name"]))

    io.on("refresh", refreshed)
    other.on("refresh", refreshed)
    async with serve(io) as url, session(url, transport) as client:
        first = make_token(name="old", exp=soon(1), iat=soon(-10))
        await client.send(connect(first), connect(first, "/other"))
        await within(client.receive())
        await within(client.receive())
        end = int(soon(200))
        await client.send(authenticate(make_token(name="new", exp=end, iat=soon(-5)), ack=3))
        assert await hear(client) == ("authenticated", {"sub": "ann", "exp": end})
        assert await within(client.receive()) == "433" + compact([{"sub": "ann", "exp": end}])
        assert seen == ["connect", ("/", "old", "new", "NEW", "new"), ("/other", "old", "new", "NEW", "new")]
        await echoes(client)


async def test_g6_a_refresh_moves_the_end(transport: str) -> None:
    """The socket lives as long as the new token says, and no longer."""
    io = make_server(auth=make_auth(refresh_before=0))
    async with serve(io) as url, session(url, transport) as client:
        await enter(client, exp=soon(0.5), iat=soon(-10))
        end = soon(1.5)
        await client.send(authenticate(exp=end, iat=soon(-5)))
        assert (await hear(client))[0] == "authenticated"
        assert [str(packet) for packet in await said(client)] == farewell(refusals.EXPIRED)
        assert time.time() >= end


@pytest.mark.parametrize(
    ("claims", "refusal"),
    [
        ({"sub": "bob"}, refusals.INVALID),
        ({"iss": "https://elsewhere.example"}, refusals.INVALID),
        ({"iat": time.time() - 3600}, refusals.INVALID),
        ({"exp": 1}, refusals.EXPIRED),
    ],
)
async def test_g6_a_refresh_that_is_refused_changes_nothing(
    transport: str,
    claims: dict[str, Any],
    refusal: dict[str, Any],
    must_not_run: Callable[..., None],
) -> None:
    """Another person's, an older or an expired token: the client is told, and its session goes on as it was."""
    io = make_server()
    io.on("echo", lambda socket, text: socket.emit("echo", text))
    io.on("refresh", must_not_run)
    async with serve(io) as url, session(url, transport) as client:
        await enter(client, iat=soon(-10), name="Ann")
        await client.send(authenticate(ack=1, **{"iat": soon(-5), **claims}))
        assert await hear(client) == ("unauthorized", unauthorized(refusal))
        assert await within(client.receive()) == "431" + compact([{"error": refusal["data"]}])
        await echoes(client)
        (socket,) = await io.fetch_sockets()
        assert socket.claims["name"] == "Ann"


async def test_g6_a_refresh_that_fails_keeps_the_old_end(transport: str) -> None:
    """A refused refresh does not touch the deadline."""
    io = make_server()
    async with serve(io) as url, session(url, transport) as client:
        await enter(client, exp=soon(0.7))
        await client.send(authenticate(sub="bob"))
        assert (await hear(client))[0] == "unauthorized"
        assert await last_words(client) == farewell(refusals.EXPIRED)


async def test_g6_who_shows_three_bad_tokens_is_not_judged_again(transport: str) -> None:
    """The session goes on, but costs no more verifications."""
    io = make_server()
    io.on("echo", lambda socket, text: socket.emit("echo", text))
    async with serve(io) as url, session(url, transport) as client:
        await enter(client)
        for refusal in (refusals.INVALID, refusals.INVALID, refusals.INVALID, refusals.ATTEMPTS):
            await client.send(authenticate(sub="bob"))
            assert await hear(client) == ("unauthorized", unauthorized(refusal))
        await echoes(client)


async def test_g6_rooms_and_namespaces_that_the_new_token_does_not_give_are_left(transport: str) -> None:
    """Before the next packet: what is sent to them after the refresh does not arrive."""
    io = make_server()
    io.of("/admin", scopes="admin")

    @io.on("connect")
    def moderate(socket: Socket) -> None:
        socket.join("mods", scopes="moderate")
        socket.join("all")

    def narrowed(socket: Socket, old: Any, new: Any) -> None:
        io.to("mods").emit("to mods")
        io.of("/admin").emit("to admins")
        io.to("all").emit("to all")

    io.on("refresh", narrowed)
    async with serve(io) as url, session(url, transport) as client:
        token = make_token(scope="moderate admin", iat=soon(-10))
        await client.send(connect(token), connect(token, "/admin"))
        await within(client.receive())
        await within(client.receive())
        await client.send(authenticate(scope="", iat=soon(-5)))
        packets = [str(await within(client.receive())) for _ in range(3)]
    assert packets[0] == "41/admin,"
    assert packets[1] == '42["to all"]'
    assert packets[2].startswith('42["authenticated"')


async def test_g6_what_was_queued_for_a_room_that_is_left_is_dropped(transport: str) -> None:
    """Of what waits to be sent, the packets for that room alone go."""
    io = make_server()
    io.on("connect", lambda socket: socket.join("mods", scopes="moderate"))

    async with serve(io) as url, session(url, transport) as client:
        await enter(client, scope="moderate", iat=soon(-10))
        (socket,) = io.of("/").sockets.values()
        narrower = identity_of(make_token(scope="", iat=soon(-5)))
        # Nothing is awaited between these lines: all of it waits to be sent when the new identity comes.
        for number in range(3):
            io.to("mods").emit("secret", number)
            io.to("mods", socket.id).emit("own", number)
            io.emit("public", number)
        connection_of(socket).set_identity(narrower)
        io.emit("done")
        heard = [await hear(client)]
        while heard[-1][0] != "done":
            heard.append(await hear(client))
    # On picows all of it has gone to the kernel at once.
    kept = ["own", "public"] if servers.WS == "uvicorn" else ["secret", "own", "public"]
    assert [name for name, _ in heard] == kept * 3 + ["done"]


async def test_g6_a_refresh_loses_to_a_revocation(transport: str) -> None:
    """Whoever is revoked while the new token is being judged is out, however the judgement ends."""
    auth = make_auth()
    entered, opened = asyncio.Event(), asyncio.Event()
    calls: list[None] = []

    async def slow(claims: Mapping[str, Any]) -> object:
        calls.append(None)
        if len(calls) > 1:
            entered.set()
            await opened.wait()
        return "user"

    auth.load_user(slow)
    io = make_server(auth=auth)
    async with serve(io) as url, session(url, transport) as client:
        await enter(client, jti="first", iat=soon(-10))
        await client.send(authenticate(jti="second", iat=soon(-5)))
        await within(entered.wait())
        await io.revoke(token_id="first")
        opened.set()
        assert await said(client) == farewell(refusals.REVOKED)
        assert not io._core.sessions.table


# G5 and G7: revocation.


@pytest.mark.parametrize(
    "criteria",
    [{"token_id": "t1"}, {"subject": "ann"}, {"session_id": "s1"}, {"issued_before": time.time() + 3600}],
)
async def test_g5_after_revoke_not_one_more_byte_is_sent(transport: str, criteria: dict[str, Any]) -> None:
    """What was queued is dropped; the client reads why, and then nothing."""
    io = make_server()
    async with serve(io) as url, session(url, transport) as client:
        await enter(client, jti="t1", sid="s1", iat=soon(-10))
        for number in range(100):
            io.emit("news", number)
        await io.revoke(**criteria)  # Nothing has been awaited since: all of it is still here, if anything waits here.
        for number in range(100):
            io.emit("news", "late", number)
            io.to("user:ann").emit("news", "late", number)
        packets = [str(packet) for packet in await said(client)]
        assert packets[-2:] == farewell(refusals.REVOKED)
        assert not any("late" in packet for packet in packets)
        if servers.WS == "uvicorn":  # On picows it has gone to the kernel at once.
            assert len(packets) == 2
        assert not io._core.sessions.table


async def test_g5_when_revoke_returns_everything_has_left_the_server(transport: str) -> None:
    """The refusal itself goes out before the call returns, and not a frame after it."""
    io = make_server()
    app = io.asgi()
    frames = 0

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        async def counted(message: Any) -> None:
            nonlocal frames
            for _ in range(20):  # An ASGI server that takes its time.
                await asyncio.sleep(0)
            frames += 1
            await send(message)

        await app(scope, receive, counted)

    async with serve(counting) as url, session(url, transport) as client:
        await enter(client, jti="t1")
        poll = asyncio.ensure_future(said(client))
        await client.send("3")  # A round trip, so that the poll of the other line waits at the server.
        for number in range(10):
            io.emit("news", number)
        await io.revoke(token_id="t1")
        before = frames
        assert [str(packet) for packet in await poll][-2:] == farewell(refusals.REVOKED)
        if transport == "websocket":
            assert frames == before


async def test_g5_what_a_closed_session_has_left_to_fetch_is_dropped_too() -> None:
    """Over polling the last words wait for the client; a revocation takes them back."""
    io = make_server()
    async with serve(io) as url, session(url, "polling") as client:
        await enter(client, jti="t1")
        io.emit("news")
        io.disconnect_sockets(close=True)
        await io.revoke(token_id="t1")
        assert await said(client) == []


async def test_g5_who_is_not_meant_is_not_touched(transport: str) -> None:
    """All that is said of the tokens holds together."""
    io = make_server()
    io.on("echo", lambda socket, text: socket.emit("echo", text))
    async with serve(io) as url, session(url, transport) as ann, session(url, transport) as bob:
        await enter(ann, jti="t1", iat=soon(-10))
        await enter(bob, sub="bob", jti="t2", iat=soon(-10))
        await io.revoke(subject="ann", token_id="t2")
        await io.revoke(subject="carol")
        await io.revoke(issued_before=soon(-3600))
        await io.revoke(key_id="k1")
        await echoes(ann)
        await io.revoke(subject="ann")
        assert await said(ann) == farewell(refusals.REVOKED)
        await echoes(bob)


async def test_a_revoked_token_is_refused_at_connect_and_at_a_refresh(transport: str) -> None:
    """The list is asked wherever a token is shown; tokens issued afterwards are good again."""
    io = make_server()
    async with serve(io) as url:
        await io.revoke(subject="ann")
        async with session(url, transport) as client:
            await client.send(connect(iat=soon(-10)))
            assert await said(client) == ["44" + compact(refusals.REVOKED)]
        async with session(url, transport) as client:
            await client.send(connect())
            assert await said(client) == ["44" + compact(refusals.REVOKED)]  # It does not say when it was issued.
        await io.revoke(token_id="stolen")
        async with session(url, transport) as client:
            await enter(client, sub="bob", iat=soon(-10))
            await client.send(authenticate(sub="bob", iat=soon(-5), jti="stolen"))
            assert await hear(client) == ("unauthorized", unauthorized(refusals.REVOKED))


async def test_g7_a_revocation_between_verification_and_registration_holds(
    transport: str,
    must_not_run: Callable[..., None],
) -> None:
    """A token that was good when it was verified, and revoked while middleware ran, lets nobody in."""
    io = make_server()
    door = Door()
    io.use(door)
    io.on("connect", must_not_run)
    async with serve(io) as url, session(url, transport) as client:
        await client.send(connect(jti="t1"))
        await within(door.reached.wait())
        await io.revoke(token_id="t1")
        door.opened.set()
        assert await said(client) == ["44" + compact(refusals.REVOKED)]
        assert not io._core.sessions.table


async def test_a_handler_can_revoke_its_own_session(transport: str) -> None:
    """Sign-out from an event: the call returns, and the client is told."""
    io = make_server()
    returned = asyncio.Event()

    @io.on("sign out")
    async def sign_out(socket: Socket) -> None:
        await io.revoke(session_id=socket.principal.session_id)
        returned.set()

    async with serve(io) as url, session(url, transport) as client:
        await enter(client, sid="s1")
        await client.send('42["sign out"]')
        assert await said(client) == farewell(refusals.REVOKED)
        await within(returned.wait())


# Scopes.


async def test_a_namespace_that_needs_a_scope_refuses_who_lacks_it(transport: str) -> None:
    """All the scopes it names are needed, from whichever claim they come."""
    io = make_server()
    io.of("/admin", scopes="admin audit")
    io.on("echo", lambda socket, text: socket.emit("echo", text))
    async with serve(io) as url, session(url, transport) as client:
        await enter(client, scope="admin")
        await client.send("40/admin,")
        assert await within(client.receive()) == "44/admin," + compact(refusals.SCOPE)
        await echoes(client)
    for claims in ({"scope": "audit admin x"}, {"scp": ["admin", "audit"]}, {"permissions": ["admin"], "scp": "audit"}):
        async with serve(io) as url, session(url, transport) as client:
            await enter(client, "/admin", **claims)


@pytest.mark.parametrize("middleware", [False, True])
async def test_an_event_that_needs_a_scope_is_forbidden_to_who_lacks_it(transport: str, middleware: bool) -> None:
    """The handler is not run, and the client is told in an event and in the acknowledgement."""
    io = make_server()
    written: list[str] = []
    io.on("write", lambda socket, text: written.append(text), scopes="chat:write")
    if middleware:

        @io.use_event
        async def through(socket: Socket, event: Any, call_next: Any) -> Any:
            return await call_next(event)

    notice = {"event": "write", "code": "insufficient_scope", "required": ["chat:write"]}
    async with serve(io) as url:
        async with session(url, transport) as client:
            await enter(client, scope="chat:read")
            await client.send('425["write","no"]')
            assert await within(client.receive()) == "42" + compact(["forbidden", notice])
            assert await within(client.receive()) == "435" + compact([{"error": notice}])
        async with session(url, transport) as client:
            await enter(client, scope="chat:read chat:write")
            await client.send('426["write","yes"]')
            assert await within(client.receive()) == "436[]"
    assert written == ["yes"]


async def test_a_room_that_needs_a_scope_is_not_joined_without(transport: str) -> None:
    """`join` says so, and the socket is in no room that it may not be in."""
    io = make_server()
    async with serve(io) as url, session(url, transport) as client:
        await enter(client)
        (socket,) = io.of("/").sockets.values()
        with pytest.raises(InsufficientScope):
            socket.join("mods", scopes="moderate")
        assert "mods" not in socket.rooms


def identity_of(token: str) -> Identity:
    """Return the identity that the gate makes of a token."""
    return Identity(make_auth().verify(token), None, digest_of(token))


async def test_g6_a_refresh_during_slow_middleware_counts_for_the_socket_that_waits(transport: str) -> None:
    """Whoever is let in has the identity that the connection has then, and needs the scopes of it."""
    io = make_server()
    door = Door()
    other, admin = io.of("/other"), io.of("/admin", scopes="admin")
    other.use(door)
    admin.use(door)
    other.on("connect", lambda socket: socket.emit("you are", socket.claims["name"]))
    async with serve(io) as url, session(url, transport) as client:
        first = make_token(name="old", scope="admin", iat=soon(-10))
        await client.send(connect(first))
        await within(client.receive())
        await client.send(connect(first, "/other"), connect(first, "/admin"))
        await within(door.reached.wait())
        await client.send(authenticate(name="new", scope="", iat=soon(-5)))
        assert (await hear(client))[0] == "authenticated"
        door.opened.set()
        packets = {str(await within(client.receive())) for _ in range(3)}
    assert '42/other,["you are","new"]' in packets
    assert "44/admin," + compact(refusals.SCOPE) in packets


async def test_on_a_server_without_auth_authenticate_means_nothing(transport: str) -> None:
    """Nobody is told that he is authenticated where nobody can be."""
    io = make_server(auth=None)
    io.on("echo", lambda socket, text: socket.emit("echo", text))
    async with serve(io) as url, session(url, transport) as client:
        await client.send("40")
        await within(client.receive())
        await client.send(authenticate(ack=1))
        await echoes(client)
