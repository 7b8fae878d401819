"""Rows 43 to 46: what code of the application may do, or not, while a client's identity changes under it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from contextvars import ContextVar
from typing import Any

import pytest
import uvloop

from iogate import Limits, Server, Socket
from iogate.server.namespaces.handlers import CallNext, Event
from iogate.testing import advance
from tests import refusals
from tests.attacks.places import HELD, Place, answer, asks, enters, in_band, scene
from tests.conformance.conftest import echo_server
from tests.conformance.wire import Session, echoes, said, session, within
from tests.gate.support import Door, authenticate, connect, hear
from tests.server.left import until
from tests.servers import make_token, serve

# Row 43: identities that end while code of the application waits.


async def is_revoked(place: Place, mallory: Session) -> None:
    await place.io.revoke(subject="mallory")


async def expires(place: Place, mallory: Session) -> None:
    await advance(place.io, 60.0)


async def leaves(place: Place, mallory: Session) -> None:
    await mallory.send("41")
    await until(lambda: len(place.io.of("/").sockets) == 1)


ENDS = [is_revoked, expires, leaves]
End = Callable[[Place, Session], Awaitable[None]]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
@pytest.mark.parametrize("inner", [False, True], ids=["the handler", "the next middleware"])
async def test_event_middleware_that_waits(transport: str, end: End, inner: bool) -> None:
    """Row 43: what comes after it does not run for a client that has no identity any more."""
    place, door = Place(), Door()
    ran: list[str] = []
    raised: list[str] = []

    @place.io.use_event
    async def waits(socket: Socket, event: Event, call_next: CallNext) -> Any:
        if event.name == "held":
            await door(socket)
        try:
            return await call_next(event)
        except Exception as error:
            raised.append(type(error).__name__)
            raise

    if inner:

        @place.io.use_event
        async def notes(socket: Socket, event: Event, call_next: CallNext) -> Any:
            if event.name == "held":
                ran.append("middleware")
            return await call_next(event)

    place.io.on("held", lambda socket: ran.append("handler"))
    async with scene(place, transport) as (mallory, _):
        await enters(mallory, place.token(exp=place.ago(-60)))
        await mallory.send('421["held"]')
        await within(door.reached.wait())
        await end(place, mallory)
        door.opened.set()
        await until(lambda: raised == ["Disconnected"])
        assert ran == []


@pytest.mark.parametrize("end", [is_revoked, expires], ids=lambda end: end.__name__)
@pytest.mark.parametrize("way", ["CONNECT", "authenticate"])
@pytest.mark.parametrize(
    ("stage", "later"), [("verify", "load_user"), ("load_user", "middleware"), ("verify", "middleware")]
)
async def test_hooks_before_the_verdict_that_wait(transport: str, end: End, way: str, stage: str, later: str) -> None:
    """Row 43: the next hook does not run for a token that is good no more, and the client is told which it is."""
    place = Place(**in_band(way), connect_timeout=100.0)
    place.io._core.gate.authentication_timeout.interval = 100.0
    door = place.hold(stage)
    ran: list[str] = []

    def runs(claims: Any) -> Any:
        ran.append(later)
        return claims

    place.hooks[later] = runs
    async with scene(place, transport) as (mallory, _):
        await asks(mallory, way, place.token(jti=HELD, exp=place.ago(-60)))
        await within(door.reached.wait())
        await end(place, mallory)
        door.opened.set()
        expected = refusals.REVOKED if end is is_revoked else refusals.EXPIRED
        assert await answer(mallory, way) == expected
        assert ran == []
        assert place.entered == ["alice"]


@pytest.mark.parametrize("end", [is_revoked, expires], ids=lambda end: end.__name__)
async def test_connect_middleware_that_waits(transport: str, end: End) -> None:
    """Row 43: the middleware after it does not run."""
    place = Place(connect_timeout=100.0)
    place.io._core.gate.authentication_timeout.interval = 100.0
    door = place.hold("middleware")
    ran: list[str] = []
    place.io.use(lambda socket: ran.append(socket.principal.subject))
    async with scene(place, transport) as (mallory, _):
        await mallory.send(connect(place.token(jti=HELD, exp=place.ago(-60))))
        await within(door.reached.wait())
        await end(place, mallory)
        door.opened.set()
        expected = refusals.REVOKED if end is is_revoked else refusals.EXPIRED
        assert await answer(mallory, "CONNECT") == expected
        assert ran == ["alice"]


async def test_a_hook_that_goes_on_after_its_client_has_left(transport: str) -> None:
    """Row 43: a middleware that does not heed its cancellation enters nobody, in no table."""
    place, door = Place(), Door()
    done = asyncio.Event()

    @place.io.use
    async def stubborn(socket: Socket) -> None:
        if socket.claims.get("jti") != HELD:
            return
        while not door.opened.is_set():
            try:
                await door(socket)
            except asyncio.CancelledError:
                continue
        done.set()

    async with scene(place, transport) as (mallory, _):
        subjects = len(place.io._core.gate.subjects)
        await mallory.send(connect(place.token(jti=HELD)))
        await within(door.reached.wait())
        await mallory.send("1")
        await until(lambda: len(place.io._core.sessions.table) == 1)
        door.opened.set()
        await within(done.wait())
        assert len(place.io._core.gate.subjects) == subjects
        assert len(place.io._core.gate._expirations) == 1
        assert place.entered == ["alice"]


# Row 44: a limit that ends another connection in the middle of an admission.


async def test_the_oldest_of_a_subject_that_makes_room_in_a_namespace_made_on_demand(transport: str) -> None:
    """Row 44: the newest is in the namespace that broadcasts reach, though the oldest was the last one in it."""
    io = echo_server(limits=Limits(connections_per_subject=1, when_full="end_oldest"))
    rooms = io.of(re.compile("/room-.*"))
    present: list[int] = []
    rooms.on("disconnect", lambda socket, reason: present.append(len(rooms.children["/room-1"].sockets)))
    async with serve(io) as url, session(url, transport) as first, session(url, transport) as second:
        await enters(first, make_token(), "/room-1")
        await enters(second, make_token(jti="second"), "/room-1")
        assert [str(packet)[:24] for packet in await said(first)] == ['42/room-1,["unauthorized', "41/room-1,"]
        assert present == [1], "the newest was in when the handler of the oldest ran"
        rooms.emit("news", 1)
        assert await within(second.receive()) == '42/room-1,["news",1]'
        assert [socket.id for socket in await rooms.fetch_sockets()] == list(rooms.children["/room-1"].sockets)
        rooms.disconnect_sockets()
        assert await within(second.receive()) == "41/room-1,"
        await until(lambda: not rooms.children)


# Row 45: context variables.

VALUE: ContextVar[str] = ContextVar("VALUE", default="nobody's")


class Watched:
    """A server each of whose functions reads a context variable and sets it to the name of its client."""

    def __init__(self, *, asynchronous: bool, **settings: Any) -> None:
        self.seen: list[tuple[str, str]] = []
        self.io: Server = echo_server(**settings)
        assert self.io._core.auth is not None
        hooks: dict[str, Callable[..., Any]] = {
            name: self._asynchronous(name) if asynchronous else self._plain(name)
            for name in ("load_user", "middleware", "connect", "disconnect", "refresh", "event")
        }
        self.io._core.auth.load_user(hooks["load_user"])  # type: ignore[attr-defined]
        self.io.use(hooks["middleware"])
        for name in ("connect", "disconnect", "refresh", "event"):
            self.io.on(name, hooks[name])

    def _note(self, name: str, who: Any) -> str:
        subject = who["sub"] if isinstance(who, Mapping) else who.principal.subject
        self.seen.append((name, VALUE.get()))
        VALUE.set(subject)
        return str(subject)

    def _plain(self, name: str) -> Callable[..., Any]:
        return lambda who, *_: self._note(name, who)

    def _asynchronous(self, name: str) -> Callable[..., Any]:
        async def hook(who: Any, *_: Any) -> str:
            return self._note(name, who)

        return hook


async def _clients_come_and_go(watched: Watched, transport: str) -> None:
    clients: dict[str, Session] = {}
    async with serve(watched.io) as url, AsyncExitStack() as stack:
        for number in range(3):
            ann = await stack.enter_async_context(session(url, transport))
            bob = await stack.enter_async_context(session(url, transport))
            clients = {"ann": ann, "bob": bob}
            for name, client in clients.items():
                await enters(client, make_token(sub=name, jti=f"{name}{number}"))
                await client.send('421["event"]')
                assert await within(client.receive()) == f'431["{name}"]'
                await client.send(authenticate(sub=name, jti=f"{name}{number}'"))
                assert (await hear(client))[0] == "authenticated"
        await clients["ann"].send("41")
        await until(lambda: len(watched.io.of("/").sockets) == 1)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["def", "async def"])
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_context_variable_is_seen_by_no_other_client(transport: str, loop: Any, asynchronous: bool) -> None:
    """Row 45: in handlers and hooks of every kind, also in those that end the oldest connection of a subject."""
    limits = Limits(connections_per_subject=1, when_full="end_oldest")
    with asyncio.Runner(loop_factory=loop) as runner:
        watched = Watched(asynchronous=asynchronous, limits=limits)
        runner.run(_clients_come_and_go(watched, transport))
    names = {name for name, _ in watched.seen}
    assert names == {"load_user", "middleware", "connect", "disconnect", "refresh", "event"}
    # What the middleware of a verdict reads was set for the same client, by `load_user`.
    assert {value for name, value in watched.seen if name != "middleware"} == {"nobody's"}
    assert {value for name, value in watched.seen if name == "middleware"} <= {"ann", "bob"}


# Row 46: what connect middleware is given.

SOCKET = {
    *(
        "authenticated",
        "broadcast",
        "call",
        "claims",
        "connected",
        "data",
        "disconnect",
        "emit",
        "except_",
        "handshake",
    ),
    *("id", "join", "leave", "local", "namespace", "principal", "rooms", "scopes", "send", "to", "user", "volatile"),
}
"""What an application may use of a socket."""


async def test_what_middleware_is_given_lets_nobody_in(transport: str) -> None:
    """Row 46: whatever of it is called before the verdict, a client that is rejected is in no listing and no room."""
    place = Place()
    kept: list[Socket] = []

    async def tries(claims: Any) -> object:
        (socket,) = kept
        socket.join("news")
        socket.emit("early")
        socket.send("early")
        socket.volatile.emit("early")
        return None

    place.io.use(lambda socket: kept.append(socket) if socket.claims.get("jti") == HELD else None)
    held = place.io.handlers.connect_middleware
    held.reverse()
    place.hooks["middleware"] = tries
    place.io.use(rejects)
    async with scene(place, transport) as (mallory, alice):
        await mallory.send(connect(place.token(jti=HELD)))
        assert "unavailable" in str((await said(mallory))[0])
        (socket,) = kept
        socket.join("news")
        place.io.to("news").emit("news")
        assert {name for name in dir(socket) if not name.startswith("_")} == SOCKET
        assert (socket.connected, socket.rooms) == (False, frozenset())
        assert [one.principal.subject for one in await place.io.fetch_sockets()] == ["alice"]
        await echoes(alice)


def rejects(socket: Socket) -> None:
    """Reject whoever the hooks are for."""
    if socket.claims.get("jti") == HELD:
        raise PermissionError("closed")
