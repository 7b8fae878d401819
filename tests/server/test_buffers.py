"""Bounds in both directions: a client that does not read, and one that asks for too much at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from iogate import Server, Socket
from iogate.server.gate.connection import Connection
from iogate.server.session import session as session_module
from tests.conformance.wire import Closed, Polling, ends, session, within
from tests.server.left import assert_nothing_left, until
from tests.server.talk import Client
from tests.servers import connection_of, make_server, serve

LARGE = "x" * 100_000
BOUND = 3


class Slow:
    """A client that has entered and does not read, beside one that does."""

    def __init__(self, io: Server, slow: Client, other: Client) -> None:
        self.io = io
        self.client = slow
        self.other = other
        self.socket = io.of("/").sockets[slow.id]

    @property
    def connection(self) -> Connection:
        return connection_of(self.socket)

    async def fill(self, size: int) -> None:
        """Emit to it until so many bytes wait in the server (what the kernel takes does not count)."""
        for _ in range(1000):
            if self.connection.buffered >= size or not self.connection.open:
                return
            self.socket.emit("large", LARGE)
            for _ in range(5):
                await asyncio.sleep(0)
        raise AssertionError("the network takes everything")


@asynccontextmanager
async def slow(io: Server, transport: str) -> AsyncIterator[Slow]:
    """Serve, with one client that does not read, and one that does."""
    io.on("echo", lambda socket, text: text)
    async with serve(io) as url, session(url, transport) as first, session(url, transport) as second:
        client, other = Client(first), Client(second)
        await client.enter()
        await other.enter(sub="bob")
        yield Slow(io, client, other)


async def test_a_consumer_that_does_not_read_is_disconnected(transport: str) -> None:
    """The others are served all the while, and nothing is left of it although its network connection stands."""
    io = make_server(max_buffered=300_000, ping_interval=0.5, ping_timeout=0.5)
    reasons: list[str] = []
    io.on("disconnect", lambda socket, reason: reasons.append(f"{socket.principal.subject}: {reason}"))
    async with slow(io, transport) as made:
        enough = asyncio.Event()
        serving = asyncio.create_task(_keep_asking(made.other, enough))
        await made.fill(10**9)
        assert reasons == ["ann: slow consumer"]
        assert list(io._core.sessions.table.values()) == [io.of("/").sockets[made.other.id]._connection]
        assert not made.connection.has_output
        enough.set()
        assert await within(serving) > 0
        await leave(made.other)
        await assert_nothing_left(io)


async def test_no_more_than_the_bound_waits_for_a_consumer() -> None:
    io = make_server(max_buffered=300_000)
    async with slow(io, "polling") as made:
        for _ in range(3):
            made.socket.emit("large", LARGE)
        assert 300_000 < made.connection.buffered <= 300_000 + 101_000
        assert made.connection.open  # The one that goes over the bound still waits; the next one is too much.
        made.socket.emit("large", LARGE)
        assert not made.connection.open


async def test_what_has_been_read_counts_no_longer(transport: str) -> None:
    """Many times the bound may go to a consumer that reads."""
    io = make_server(max_buffered=300_000)
    async with slow(io, transport) as made:
        for number in range(20):
            made.socket.emit("large", number, LARGE)
            assert (await made.client.hear())[1] == number
        await until(lambda: made.connection.buffered == 0)
        assert made.connection.open


async def test_a_volatile_event_is_dropped_while_a_consumer_does_not_read(transport: str) -> None:
    """It neither waits nor counts; what was emitted before and after it arrives in order."""
    io = make_server(max_buffered=20_000_000)
    async with slow(io, transport) as made:
        await made.fill(300_000)
        waiting = made.connection.buffered
        for _ in range(100):
            io.volatile.emit("dropped", LARGE)
            made.socket.volatile.emit("dropped", LARGE)
        assert made.connection.buffered == waiting
        made.socket.emit("end")
        while (heard := await made.client.hear()) != ["end"]:
            assert heard == ["large", LARGE]


@pytest.mark.usefixtures("ws")
async def test_a_slow_consumer_that_is_closed_is_cut_off_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A WebSocket that does not even take the close frame is kept for a few seconds, and then no more."""
    monkeypatch.setattr("iogate.server.session.sessions.DRAIN_TIMEOUT", 0.2)
    io = make_server(max_buffered=20_000_000)
    async with slow(io, "websocket") as made:
        await made.fill(300_000)
        made.socket.disconnect(close=True)
        await leave(made.other)
        await assert_nothing_left(io)


# MAX_RUNNING.


class Work:
    """A handler that takes until it is told, and how many of it run."""

    def __init__(self, io: Server) -> None:
        self.running = self.most = self.done = 0
        self.opened = asyncio.Event()
        io.on("work", self.handle)
        io.on("echo", lambda socket, text: text)

    async def handle(self, socket: Socket, number: int) -> int:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.opened.wait()
        finally:
            self.running -= 1
        self.done += 1
        return number


@pytest.fixture(autouse=True)
def _bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "MAX_RUNNING", BOUND)


@asynccontextmanager
async def busy(io: Server, transport: str, events: int) -> AsyncIterator[tuple[Work, Client, Client]]:
    """Serve; one client asks for more than is done at once, and there is another."""
    work = Work(io)
    async with serve(io) as url, session(url, transport) as first, session(url, transport) as second:
        ann, bob = Client(first), Client(second)
        await ann.enter()
        await bob.enter(sub="bob")
        sending = asyncio.create_task(ann.wire.send(*(f'42{number}["work",{number}]' for number in range(events))))
        await until(lambda: work.running == BOUND)
        yield work, ann, bob
        await within(sending)


async def test_more_events_than_may_run_at_a_time_are_all_handled_and_never_more_at_once(transport: str) -> None:
    """Meanwhile another client is served."""
    io = make_server()
    async with busy(io, transport, 20) as (work, ann, bob):
        for number in range(5):
            assert await bob.ask("echo", number) == [number]
        assert work.running == BOUND
        work.opened.set()
        answers = sorted([await ann.receive() for _ in range(20)], key=lambda answer: int(answer[2:].partition("[")[0]))
        assert answers == [f"43{number}[{number}]" for number in range(20)]
        assert await ann.ask("echo", "still here") == ["still here"]
        assert (work.most, work.done) == (BOUND, 20)


async def test_a_client_that_is_not_read_from_is_written_to(transport: str) -> None:
    """A broadcast, and a ping, do not wait until its handlers have ended."""
    io = make_server(ping_interval=0.1, ping_timeout=5.0)
    async with busy(io, transport, 20) as (work, ann, _):
        io.emit("news")
        heard = {await within(ann.wire.receive_any()) for _ in range(2)}
        assert heard == {'42["news"]', "2"}
        assert work.running == BOUND
        work.opened.set()


async def test_a_connection_that_ends_while_it_is_not_read_from_leaves_nothing(transport: str) -> None:
    """Its handlers go on to their end, and what it sent after them is not looked at."""
    io = make_server()
    async with busy(io, transport, 20) as (work, ann, bob):
        io.of("/").sockets[ann.id].disconnect(close=True)
        await ends(ann.wire)
        assert work.running == BOUND
        await leave(bob)
        work.opened.set()
        await assert_nothing_left(io)
        assert work.done == BOUND


async def test_a_second_body_while_the_first_is_still_worked_on_ends_the_session() -> None:
    """Else every further request would come past the bound."""
    io = make_server()
    async with busy(io, "polling", 20) as (work, ann, _):
        wire: Any = ann.wire
        assert isinstance(wire, Polling)
        answer = await within(wire.post('42["work",99]'))
        assert answer.status_code == 400
        assert work.running == BOUND
        with pytest.raises(Closed):
            await within(wire.receive_any())
        work.opened.set()


async def test_one_slow_handler_does_not_hold_up_the_next_event(transport: str) -> None:
    io = make_server()
    async with busy(io, transport, BOUND) as (work, ann, _):
        work.opened.set()
        assert sorted([await ann.receive() for _ in range(BOUND)]) == [
            f"43{number}[{number}]" for number in range(BOUND)
        ]
        work.opened.clear()
        await ann.emit("work", 1)
        assert await ann.ask("echo", "at once") == ["at once"]
        work.opened.set()


async def leave(client: Client) -> None:
    """Close the session, and wait until the server has done so too."""
    await client.wire.send("1")
    await ends(client.wire)


async def _keep_asking(client: Client, enough: asyncio.Event) -> int:
    asked = 0
    while not enough.is_set():
        assert await client.ask("echo", asked) == [asked]
        asked += 1
    return asked
