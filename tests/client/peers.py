"""What the tests of the clients share: both clients behind one face, a source of tokens, a server with our time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Literal

from iogate import JWTAuth, Principal, Server, Socket
from iogate.client import AsyncClient, Client, Reason
from iogate.testing import FakeClock, TokenFactory, advance
from tests.servers import serve

WITHIN = 5  # seconds
FOREVER = 3600  # seconds: nobody is to be thrown out for a pong while the clock of the server jumps
LIFETIME = 60  # seconds of the clock of the server

Kind = Literal["asyncio", "threads"]


class Source:
    """Gives tokens, and remembers what it was asked. What stands in `answers` for a reason comes first."""

    def __init__(self, tokens: TokenFactory) -> None:
        self.tokens = tokens
        self.reasons: list[Reason] = []
        self.answers: dict[Reason, list[str | BaseException | None]] = {}
        self.by_default: dict[Reason, str | None] = {}
        self.claims: dict[str, Any] = {}

    def __call__(self, reason: Reason) -> str | None:
        self.reasons.append(reason)
        if self.answers.get(reason):
            answer = self.answers[reason].pop(0)
            if isinstance(answer, BaseException):
                raise answer
            return answer
        if reason in self.by_default:
            return self.by_default[reason]
        return self.tokens.good(**self.claims)


class Peer:
    """One of the two clients. What it hears is in `heard`, as `(namespace, event, *arguments)`."""

    def __init__(self, client: AsyncClient | Client) -> None:
        self.client = client
        self.heard: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        self.all: list[tuple[Any, ...]] = []
        self._loop = asyncio.get_running_loop()

    def listen(self, *events: str, namespace: str = "/") -> None:
        for event in events:
            self.client.on(event, self._listener(namespace, event), namespace=namespace)

    def _listener(self, namespace: str, event: str) -> Callable[..., None]:
        def listener(*args: Any) -> None:
            self._loop.call_soon_threadsafe(self.keep, (namespace, event, *args))

        return listener

    def on_async(self, event: str, handler: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have this answer to an event, in the loop of the test; the client waits for its end."""

        def listener() -> None:
            asyncio.run_coroutine_threadsafe(handler(), self._loop).result(WITHIN)

        self.client.on(event, handler if isinstance(self.client, AsyncClient) else listener)

    def keep(self, item: tuple[Any, ...]) -> None:
        self.all.append(item)
        self.heard.put_nowait(item)

    async def hear(self, event: str, namespace: str = "/") -> tuple[Any, ...]:
        """Return the arguments of the next such event; drop what comes before it."""
        async with asyncio.timeout(WITHIN):
            while True:
                item = await self.heard.get()
                if item[:2] == (namespace, event):
                    return item[2:]

    def count(self, event: str) -> int:
        return sum(item[1] == event for item in self.all)

    async def is_back(self, *namespaces: str) -> None:
        """Return when the client is in these namespaces, and in no other."""
        async with asyncio.timeout(WITHIN):
            while not self._is_in(namespaces):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def _is_in(self, namespaces: tuple[str, ...]) -> bool:
        client = self.client
        # Not in the midst of an attempt: of one that fails in the end some namespaces are there for a moment.
        return client.connected and not client._run.following and set(client.namespaces) == set(namespaces)

    async def rests(self) -> None:
        """Return when the connection has ended and nothing is tried any more. (`wait` looks only once a second.)"""
        async with asyncio.timeout(WITHIN):
            while self.client.eio.state != "disconnected" or self._is_trying():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def _is_trying(self) -> bool:
        task = self.client._reconnect_task
        return task.is_alive() if isinstance(task, threading.Thread) else task is not None

    async def do(self, method: str, *args: Any, **options: Any) -> Any:
        """Call a method of the client, wherever it has to be called."""
        call = getattr(self.client, method)
        async with asyncio.timeout(2 * WITHIN):
            if isinstance(self.client, AsyncClient):
                return await call(*args, **options)
            return await asyncio.to_thread(call, *args, **options)


class World:
    """A server with the time of the test, its address, and what happened in it."""

    def __init__(self, io: Server, auth: JWTAuth, clock: FakeClock, tokens: TokenFactory) -> None:
        self.io, self.auth, self.clock, self.tokens = io, auth, clock, tokens
        self.url = ""
        self.events: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()

        @io.on("connect")
        def connected(socket: Socket) -> None:
            self.events.put_nowait(("connect", socket))

        @io.on("disconnect")
        def disconnected(socket: Socket, reason: str) -> None:
            self.events.put_nowait(("disconnect", reason))

        @io.on("refresh")
        def refreshed(socket: Socket, old: Principal | None, new: Principal) -> None:
            self.events.put_nowait(("refresh", new))

        @io.on("whoami")
        def whoami(socket: Socket) -> str:
            return socket.principal.subject

    async def until_next(self) -> None:
        """Let time pass until what is due next has happened: `token_expiring`, or else the end of the token."""
        due = self.io._core.sessions.deadlines.next()
        assert due is not None
        await advance(self.io, due - self.clock.monotonic())

    async def happens(self, event: str) -> Any:
        """Return what comes with the next such event; drop what comes before it."""
        async with asyncio.timeout(WITHIN):
            while True:
                item = await self.events.get()
                if item[0] == event:
                    return item[1]


@asynccontextmanager
async def world(*, auth: dict[str, Any] | None = None, **settings: Any) -> AsyncIterator[World]:
    """Serve a server whose time is ours, with tokens of a minute."""
    clock = FakeClock()
    tokens = TokenFactory(clock=clock, lifetime=LIFETIME)
    judge = tokens.auth(**{"refresh_before": LIFETIME / 2, **(auth or {})})
    io = Server(
        auth=judge,
        clock=clock,
        **{"ping_interval": FOREVER, "ping_timeout": FOREVER, **settings},
    )
    place = World(io, judge, clock, tokens)
    async with serve(io) as url:
        place.url = url
        yield place


@asynccontextmanager
async def client(kind: Kind, get_token: Any, **options: Any) -> AsyncIterator[Peer]:
    """Make a client that backs off for moments only, and stop it at the end."""
    kinds: dict[Kind, type[AsyncClient] | type[Client]] = {"asyncio": AsyncClient, "threads": Client}
    options = {"reconnection_delay": 0.05, "reconnection_delay_max": 0.2, "handle_sigint": False, **options}
    peer = Peer(kinds[kind](get_token=get_token, **options))
    peer.listen(
        "connect",
        "disconnect",
        "connect_error",
        "unauthorized",
        "token_refreshed",
        "token_refresh_failed",
        "login_required",
    )
    try:
        yield peer
    finally:
        await peer.do("disconnect")
