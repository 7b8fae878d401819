"""The house that strangers come to: an application that does a bit of everything, and somebody who runs it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Literal

from fuzz.live.guests import MAX_PAYLOAD
from fuzz.live.words import ROOMS, SUBJECTS
from iogate import AuthPayload, BearerHeader, JWTAuth, Limits, Query, Refused, Server, Socket
from iogate.auth.policy import CLOCK_STEP
from iogate.errors import AckTimeout, Disconnected
from iogate.server.namespaces.emitter import Broadcast
from iogate.server.namespaces.handlers import CallNext, Event
from iogate.testing import FakeClock, advance
from tests.servers import SECRET

MAX_LIFETIME = 3600
"""Seconds that tokens live at most, and revocations with them."""
MAX_BUFFERED = 200_000
"""Bytes that wait for a slow client."""
LIMITS = Limits(pending_per_address=10, failures_per_address=10, connections_per_subject=4, when_full="end_oldest")
GOOD = "good"
"""The subject of the good clients."""
FLOOD = 40
"""Packets of 16 KiB that a client asks for and need not read: with some of these it is a slow consumer."""


class Planned(Exception):
    """What a handler of the application fails with: the log may speak of it."""


class House:
    """The server, its application and its operator. Time stands still unless the operator lets it pass.

    Args:
        parser: how the server writes packets.
        clock: another one.
        max_payload: bytes that the server takes at once.
        limits: those of the server.
    """

    def __init__(
        self,
        parser: Literal["json", "msgpack"],
        *,
        clock: FakeClock | None = None,
        max_payload: int = MAX_PAYLOAD,
        limits: Limits = LIMITS,
    ) -> None:
        self.clock = clock or FakeClock()
        self._chance = Random(0)  # noqa: S311
        self._held = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()
        auth = JWTAuth(
            secret=SECRET,
            algorithms=["HS256"],
            sources=[AuthPayload("token"), BearerHeader(), Query("token")],
            authenticate_within=5,
            require=["exp", "sub", "iat"],  # Or else revocations are remembered for ever.
            max_lifetime=MAX_LIFETIME,
            clock=self.clock,
        )
        auth.load_user(_user)
        self.io = Server(
            auth=auth,
            parser=parser,
            clock=self.clock,
            max_payload=max_payload,
            max_buffered=MAX_BUFFERED,
            limits=limits,
            trusted_proxies=["127.0.0.0/8"],
        )
        self._build()

    def _build(self) -> None:
        io = self.io
        io.use(self._door)
        for namespace in (io.of("/staff", scopes="staff"), io.of(re.compile(r"/room-\d+"))):
            namespace.use(self._door)
            namespace.use_event(_around)
            namespace.on("echo", _echo)
            namespace.on("shout", _shout, scopes="kitchen")
        io.on("connect", _connected)
        io.on("disconnect", _disconnected)
        io.on("refresh", _refreshed)
        handlers: dict[str, Callable[..., Any]] = {
            "echo": _echo,
            "join": _join,
            "leave": _leave,
            "shout": _shout,
            "hold": self._hold,
            "fail": _fail,
            "ask": _ask,
            "kick": _kick,
            "flood": _flood,
            "blob": _blob,
        }
        for event, handler in handlers.items():
            io.on(event, handler)

    async def _door(self, socket: Socket) -> None:
        """Do what the token says: its claims are those that a stranger has thought of."""
        match socket.claims.get("door"):
            case "wait":
                await self._held.wait()
            case "refuse":
                raise Refused("not today", {"code": "not_today"})
            case "fail":
                raise Planned
            case "disconnect":
                socket.disconnect(close=True)
            case _:
                socket.join("door", scopes="staff" if "staff" in socket.scopes else ())

    async def _hold(self, socket: Socket, *args: Any) -> str:
        await self._held.wait()
        return "held"

    # The operator.

    def begin(self, chance: Random) -> None:
        """Begin a round: here is where the choices of the operator come from."""
        self._chance = chance

    def release(self) -> None:
        """Let go on whoever is held up."""
        self._held.set()
        self._held.clear()

    def crowd(self) -> Broadcast:
        """Return those whom the operator does something to: not the good client."""
        return self.io.in_(*ROOMS, "door").except_(f"user:{GOOD}")

    async def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        await advance(self.io, seconds)

    async def act(self) -> None:
        """Do what operators do, or let time pass. Nothing of it is meant for the good client."""
        chance, io = self._chance, self.io
        crowd = self.crowd()
        match chance.randrange(20):
            case 0:
                await io.revoke(subject=chance.choice(SUBJECTS))
                await self.pass_time(1)  # For tokens to be issued that are younger than that.
            case 1:
                for socket in (await crowd.fetch_sockets())[:1]:
                    await io.revoke(session_id=socket.claims["sid"])
            case 2:
                crowd.disconnect_sockets(close=chance.random() < 0.5)
            case 3:
                crowd.emit("news", {"picture": b"\x00" * 100})
                io.volatile.emit("news", 1)
            case 4:
                call = asyncio.ensure_future(_call(io, chance.choice(ROOMS)))
                self._calls.add(call)
                call.add_done_callback(self._calls.discard)
            case 5:
                crowd.sockets_join(chance.choice(ROOMS))
            case 6 | 7 | 8 | 9 | 10 | 11:
                self.release()
            case _:
                # Less than a good client may take to answer a ping.
                await self.pass_time(chance.choice([0.1, 1.0, 5.0, 9.0]))

    async def rest(self) -> None:
        """Let so much time pass that there is nothing left to wait for."""
        while self.io._core.sessions._tasks.keys() - {asyncio.current_task()} or self._calls:
            self.release()
            await advance(self.io, 10)
        await advance(self.io, MAX_LIFETIME + CLOCK_STEP + 1)


async def _call(io: Server, room: str) -> None:
    try:
        await io.in_(room).call("question", timeout=0.05)
    except (AckTimeout, Disconnected):
        return


# The handlers. Their arguments are what strangers please.


async def _user(claims: Mapping[str, Any]) -> object:
    """Know everybody but `gus`, and wait for what is known of `fay`."""
    if claims["sub"] == "fay":
        await asyncio.sleep(0)
    return None if claims["sub"] == "gus" else claims["sub"]


async def _around(socket: Socket, event: Event, call_next: CallNext) -> Any:
    if event.args and event.args[0] is None:
        await asyncio.sleep(0)
    return await call_next(event)


def _connected(socket: Socket) -> None:
    socket.emit("welcome", socket.principal.subject)


def _disconnected(socket: Socket, reason: str) -> None:
    socket.broadcast.emit("left", reason)
    socket.emit("too late")


def _refreshed(socket: Socket, old: Any, new: Any) -> None:
    socket.emit("renewed")


async def _echo(socket: Socket, *args: Any) -> tuple[Any, ...]:
    socket.emit("echo", *args)
    return args


def _room(args: tuple[Any, ...]) -> str:
    return args[0] if args and args[0] in ROOMS else ROOMS[0]


def _join(socket: Socket, *args: Any) -> None:
    socket.join(_room(args))


def _leave(socket: Socket, *args: Any) -> None:
    socket.leave(_room(args))


async def _shout(socket: Socket, *args: Any) -> None:
    socket.to(*ROOMS).emit("shout", *args)


async def _fail(socket: Socket, *args: Any) -> None:
    raise Planned


async def _ask(socket: Socket, *args: Any) -> Any:
    try:
        return await socket.call("question", *args, timeout=0.05)
    except (AckTimeout, Disconnected):
        return None


def _kick(socket: Socket, *args: Any) -> None:
    socket.disconnect(close=bool(args))


def _flood(socket: Socket, *args: Any) -> None:
    for _ in range(FLOOD):
        socket.emit("flood", "x" * 16_384)


async def _blob(socket: Socket, *args: Any) -> bytes:
    await asyncio.sleep(0)
    socket.emit("blob", b"\x00\xff", {"more": b"\x01"})
    return b"\x02"
