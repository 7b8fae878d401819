"""A real server on a stage: clients in memory, a clock that stands still, hooks that wait to be released."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

from iogate import Clock, JWTAuth, Refused, Server, Socket
from iogate.protocol.engineio.packets import Encoded
from iogate.server.gate.connection import Connection
from iogate.server.session.handshake import Handshake
from iogate.server.session.reasons import CloseReason
from iogate.server.settings import Limits
from tests.gate.model import CLOSED_TODAY, ROOM_NEEDS, ROOT, STAFF, Rules
from tests.server.left import leftovers
from tests.servers import SECRET, connection_of

SETTLE = 12  # Turns of the event loop after which nothing moves any more, with room to spare.
REFRESH_BEFORE = 8.0
FAR = 3600.0


class Standing(Clock):
    """A clock that stands still until it is moved."""

    __slots__ = ("now",)

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + 1_800_000_000.0


class Wire:
    """A transport in memory. What is sent is received at once, or, while the client is slow, when it is not any more.

    Args:
        connection: the session.
        polls: whether it is like polling, where nobody waits for a slow client, or like a WebSocket.
        lazy: send in the next turn of the event loop, as the real ones do.
    """

    name = "memory"
    upgradable = False
    lingers = False

    def __init__(self, connection: Connection, polls: bool, lazy: bool = False) -> None:
        self.connection = connection
        self.polls = polls
        self.stalled = False
        self.gone = False
        self.received: list[tuple[Any, ...]] = []
        self._lazy = lazy
        self._closing = False
        self._ended = asyncio.Event()

    @property
    def writable(self) -> bool:
        return not self.stalled

    @property
    def congested(self) -> bool:
        return self.stalled and not self.polls

    def write(self, packet: Encoded) -> bool:
        return False

    def flush(self) -> None:
        if self._lazy:
            asyncio.get_running_loop().call_soon(self.move)
        else:
            self.move()

    def close(self, reason: CloseReason) -> None:
        self._closing = True
        self.flush()

    def abort(self) -> None:
        self.gone = True
        self._ended.set()

    async def closed(self) -> None:
        if not self.polls:
            await self._ended.wait()

    def move(self) -> None:
        """Let the client receive what there is, if it is not slow."""
        if self.stalled or self.gone:
            return
        for packet in self.connection.take():
            if packet.text.startswith(b"4"):
                self.received.append(read(packet.text.decode()[1:]))
            self.connection.sent(packet)
        if self._closing:
            self.abort()


def read(text: str) -> tuple[Any, ...]:
    """Return a Socket.IO packet in the words of the model."""
    kind, rest = text[0], text[1:]
    namespace = ROOT
    if rest.startswith("/"):
        namespace, _, rest = rest.partition(",")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    data: Any = json.loads(rest[digits:]) if rest[digits:] else None
    if kind == "0":
        return "connect", namespace
    if kind == "1":
        return "disconnect", namespace
    if kind == "4":
        return "refused", namespace, *why(data)
    if kind == "3":
        return "ack", namespace, int(rest[:digits]), answer(data)
    name, value = data
    if name == "unauthorized":
        return "event", namespace, name, *why(value)
    return (
        "event",
        namespace,
        name,
        {"authenticated": lambda: value.get("sub"), "forbidden": lambda: value["code"]}.get(name, lambda: value)(),
    )


def why(body: dict[str, Any]) -> tuple[str, str]:
    return body["data"]["code"], body["message"]


def answer(data: list[Any]) -> Any:
    if not data:
        return "ok"
    error = data[0].get("error")
    return data[0].get("sub") if error is None else error.get("data", error)["code"]


class Hook:
    """How the hooks of the application behave for one attempt: which of them wait, and how they return."""

    def __init__(self, holds: frozenset[str]) -> None:
        self._holds = holds
        self._returns: asyncio.Future[bool] | None = None
        self.stage = ""

    async def reached(self, stage: str) -> bool:
        if stage not in self._holds:
            return True
        self.stage = stage
        self._returns = asyncio.get_running_loop().create_future()
        try:
            return await self._returns
        finally:
            self.stage = ""

    def release(self, *, well: bool) -> None:
        if self._returns is not None and not self._returns.done():
            self._returns.set_result(well)


HOOK: ContextVar[Hook] = ContextVar("HOOK")


@contextmanager
def acting(peer: Peer, hook: Hook) -> Iterator[None]:
    """Let the hooks that run for what a client sends now behave as this one says."""
    connection = peer.connection
    before, connection.context = connection.context, connection.context.copy()
    connection.context.run(HOOK.set, hook)
    try:
        yield
    finally:
        connection.context = before


class Peer:
    """A client of the server."""

    def __init__(self, connection: Connection, wire: Wire) -> None:
        self.connection = connection
        self.wire = wire
        self.calls: list[tuple[Any, ...]] = []

    def send(self, kind: str, namespace: str, data: object = None, ack: int | None = None) -> None:
        prefix = "" if namespace == ROOT else f"{namespace},"
        text = "" if data is None else json.dumps(data)
        self.connection.receive(f"4{kind}{prefix}{'' if ack is None else ack}{text}".encode())


class Stage:
    """The server that a story is told to.

    Args:
        rules: how it is set up.
        lazy: whether its transports send in the next turn of the event loop.
    """

    def __init__(self, rules: Rules, *, lazy: bool = False) -> None:
        self.clock = Standing()
        self.rules = rules
        self._lazy = lazy
        self.auth = JWTAuth(
            secret=SECRET,
            algorithms=["HS256"],
            clock=self.clock,
            guests=rules.guests,
            authenticate_within=rules.authenticate_within,
            refresh_before=REFRESH_BEFORE,
        )
        when_full: Literal["reject", "end_oldest"] = "end_oldest" if rules.ends_oldest else "reject"
        self.io = Server(
            auth=self.auth,
            clock=self.clock,
            connect_timeout=rules.connect_timeout,
            ping_interval=FAR,
            ping_timeout=FAR,
            limits=Limits(
                connections_per_subject=rules.per_subject, when_full=when_full, failures_per_address=1_000_000
            ),
        )
        self.peers: list[Peer] = []
        self.react: Callable[[Socket], None] = lambda socket: None  # What the handlers do, all of them.
        self._of: dict[Connection, Peer] = {}
        self.auth.load_user(self._load_user)
        self.io.of(STAFF, scopes="staff")
        for name in (ROOT, STAFF):
            namespace = self.io.of(name)
            namespace.use(self._middleware)
            namespace.on("connect", self._connected)
            namespace.on("disconnect", self._disconnected)
            namespace.on("refresh", self._refreshed)
        self.io.on("mods", lambda socket: socket.join("mods", scopes="moderate"))
        self.io.on("speak", lambda socket: self._call(socket, "speak"), scopes="speak")

    def open(self, polls: bool) -> Peer:
        connection = self.io._core.open(Handshake(address="192.0.2.1"))
        wire = Wire(connection, polls, self._lazy)
        peer = self._of[connection] = Peer(connection, wire)
        self.peers.append(peer)
        connection.begin(wire)
        return peer

    async def settle(self) -> None:
        for _ in range(SETTLE):
            await asyncio.sleep(0)

    def due(self) -> float | None:
        return self.io._core.sessions.deadlines.next()

    def run(self) -> None:
        self.io._core.sessions.deadlines.run(self.clock.now)

    async def end(self) -> dict[str, object]:
        """Let everybody go, and return what is left of them, without any time going by."""
        for peer in self.peers:
            peer.connection.close(CloseReason.TRANSPORT_CLOSE)
        await self.settle()
        left = leftovers(self.io)
        for peer in self.peers:
            connection = peer.connection
            for name in ("sockets", "attempts", "waiting", "rejected"):
                if getattr(connection, name):
                    left[f"{name} of a connection"] = getattr(connection, name)
        self.io._core.sessions.deadlines.stop()
        return left

    # The application.

    async def _load_user(self, claims: Any) -> Any:
        return claims["sub"] if await HOOK.get().reached("user") else None

    async def _middleware(self, socket: Socket) -> None:
        if ROOM_NEEDS["door"] <= socket.scopes:
            socket.join("door", scopes="moderate")
        if not await HOOK.get().reached("middleware"):
            raise Refused(CLOSED_TODAY[1], data={"code": CLOSED_TODAY[0]})

    def _connected(self, socket: Socket) -> None:
        self._call(socket, "connect", socket.namespace.name)

    def _disconnected(self, socket: Socket, reason: str) -> None:
        self._call(socket, "disconnect", socket.namespace.name, reason)

    def _refreshed(self, socket: Socket, old: Any, new: Any) -> None:
        before = None if old is None else old.token_id
        self._call(socket, "refresh", socket.namespace.name, before, new.token_id)

    def _call(self, socket: Socket, *call: Any) -> None:
        self._of[connection_of(socket)].calls.append(call)
        self.react(socket)
