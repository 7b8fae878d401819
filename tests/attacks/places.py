"""Where identities live and end in these tests: a server whose clock stands still until it is moved, with hooks."""

from __future__ import annotations

import inspect
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

from iogate import JWTAuth, Principal, Socket
from iogate.testing import FakeClock, settle
from tests.attacks.showing import assert_undisturbed, victim
from tests.conformance.conftest import echo_server
from tests.conformance.wire import Session, WebSocket, said, session, within
from tests.gate.support import Door, authenticate, connect, hear
from tests.servers import SECRET, connection_of, make_token

HOUR = 3600.0

HELD = "held"
"""The `jti` of tokens whose bearers the hooks are for: everybody else passes."""

Hook = Callable[[Any], Any]
"""What is put into a place. It is given the claims, and may return something to await."""


class Auth(JWTAuth):
    """A verifier with a hook of its own, for what is between the verdict on the token and what comes next."""

    hook: Hook

    async def verify_async(self, token: str) -> Principal:
        principal = await super().verify_async(token)
        result = self.hook(principal.claims)
        if inspect.isawaitable(result):
            await result
        return principal


class Place:
    """A server with a namespace that needs a scope, and hooks at each stage of the way in.

    Nobody is pinged, and nobody is called to refresh: what is said has to do with the attack.

    Args:
        connect_timeout: seconds to the verdict.
        auth: settings of `JWTAuth`.
    """

    def __init__(self, *, connect_timeout: float = 10.0, **auth: Any) -> None:
        self.clock = FakeClock(wall=float(int(time.time())))
        self.hooks: dict[str, Hook] = {}
        self.entered: list[str] = []
        self.refreshed: list[str] = []
        judge = Auth(secret=SECRET, algorithms=["HS256"], clock=self.clock, refresh_before=0, **auth)
        judge.hook = lambda claims: self._call("verify", claims)
        judge.load_user(lambda claims: self._call("load_user", claims))
        self.io = echo_server(
            auth=judge,
            clock=self.clock,
            connect_timeout=connect_timeout,
            ping_interval=HOUR,
            ping_timeout=HOUR,
        )
        self.io.use(lambda socket: self._call("middleware", socket.claims))
        self.io.of("/admin", scopes="admin")
        self.io.on("write", lambda socket: "written", scopes="write")
        self.io.on("connect", lambda socket: self.entered.append(socket.principal.subject))
        self.io.on("refresh", lambda socket, old, new: self.refreshed.append(new.subject))

    def _call(self, stage: str, claims: Mapping[str, Any]) -> Any:
        hook = self.hooks.get(stage)
        return hook(claims) if hook is not None and claims.get("jti") == HELD else claims

    def hold(self, stage: str) -> Door:
        """Return a door that whoever is meant waits at from now on."""
        door = Door()

        async def wait(claims: Any) -> object:
            await door(claims)
            return claims

        self.hooks[stage] = wait
        return door

    def ago(self, seconds: float) -> float:
        """Return the Unix time so many seconds before now; after, if it is negative."""
        return self.clock.wall() - seconds

    def token(self, **claims: Any) -> str:
        """Return a token of the attacker's, issued a while ago."""
        return make_token(**{"sub": "mallory", "iat": self.ago(100), **claims})

    async def socket(self, namespace: str = "/") -> Socket:
        """Return the attacker's socket in a namespace."""
        sockets = self.io.of(namespace).sockets.values()
        (socket,) = [socket for socket in sockets if socket.principal.subject == "mallory"]
        return socket


@asynccontextmanager
async def scene(place: Place, transport: str) -> AsyncIterator[tuple[Session, Session]]:
    """Serve; give the sessions of an attacker, and of a victim who must not have noticed anything at the end."""
    async with victim(place.io, transport) as (url, alice), session(url, transport) as mallory:
        yield mallory, alice
        await assert_undisturbed(place.io, alice)


async def enters(client: Session, token: str, namespace: str = "") -> None:
    """Be let in."""
    await client.send(connect(token, namespace))
    prefix = f"40{namespace}," if namespace else "40"
    assert str(await within(client.receive())).startswith(prefix + '{"sid":')


def in_band(way: str) -> dict[str, Any]:
    """Return the settings for this way to the gate."""
    return {"authenticate_within": 10.0} if way == "authenticate" else {}


async def asks(client: Session, way: str, token: str) -> None:
    """Come to the gate by CONNECT with a token, by `authenticate` after one without, or to refresh what there is."""
    if way == "authenticate":
        await client.send("40")
        assert str(await within(client.receive())).startswith('40{"sid":')
    await client.send(connect(token) if way == "CONNECT" else authenticate(token))


async def answer(client: Session, way: str) -> Any:
    """Return the refusal that somebody is given, who hears nothing else, and is out then."""
    if way == "CONNECT":
        (packet,) = await said(client)
        assert str(packet).startswith("44")
        return json.loads(str(packet)[2:])
    name, told = await hear(client)
    assert name == "unauthorized"
    await client.send("431[]")
    assert await said(client) == ["41"]
    return {"message": told["message"], "data": told["data"]}


class Deaf:
    """A client that does not read what it is sent, up to the point where it waits at the server.

    Args:
        session: its session, which has just been let in.
        socket: its socket at the server.
    """

    def __init__(self, session: Session, socket: Socket) -> None:
        self._session = session
        self._socket = socket
        self._numbers = count()

    async def is_sent(self, room: str) -> set[int]:
        """Send numbered news to a room, and return the numbers of those that still wait in the end."""
        connection = connection_of(self._socket)
        if isinstance(self._session, WebSocket):
            self._session.connection.transport.pause_reading()
        while not connection.has_output:
            self._send(room)
            await settle()
        for _ in range(5):
            self._send(room)
        await settle()
        waiting = {number for packet in connection._outbox or () for number in news(packet.string)}
        assert len(waiting) >= 5
        return waiting

    def _send(self, room: str) -> None:
        self._socket.namespace.to(room).emit("news", next(self._numbers), "x" * 100_000)

    def reads(self) -> None:
        """Read again."""
        if isinstance(self._session, WebSocket):
            self._session.connection.transport.resume_reading()


def news(*packets: object) -> set[int]:
    """Return the numbers of the news among packets."""
    found = (re.match(r'42(?:/admin,)?\["news",(\d+),', str(packet)) for packet in packets)
    return {int(match[1]) for match in found if match}
