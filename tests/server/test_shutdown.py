"""The end of a server, the end of clients, and that nothing is left of either."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from iogate import Refused, Server, Socket
from iogate.asgi_types import Message, Receive, Scope, Send
from tests import refusals
from tests.conformance.wire import (
    POLLING,
    WEBSOCKET,
    Closed,
    Polling,
    WebSocket,
    ends,
    enter,
    polling,
    probe,
    raw_websocket,
    refused,
    said,
    session,
    websocket,
    within,
)
from tests.server.left import assert_nothing_left, leftovers, until
from tests.server.talk import Client, client, clients
from tests.servers import make_server, make_token, serve

CONNECT = "40" + json.dumps({"token": make_token()})


@pytest.fixture
def io() -> Server:
    return make_server()


@pytest.fixture(autouse=True)
def _linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not come for the rest is waited for, but in a test not for seconds."""
    monkeypatch.setattr("iogate.server.session.sessions.DRAIN_TIMEOUT", 0.3)


# Clients.


@pytest.mark.usefixtures("ws")
async def test_a_websocket_client_is_told_that_the_server_goes(io: Server) -> None:
    async with client(io, "websocket") as ann:
        ending = asyncio.create_task(io.shutdown(timeout=2))
        assert (await ends(ann.wire)).code == 1001
        await within(ending)
        await assert_nothing_left(io)


async def test_a_poll_that_waits_is_answered(io: Server) -> None:
    async with client(io, "polling") as ann:
        wire: Any = ann.wire
        poll = asyncio.create_task(wire.get())
        await until(lambda: all(connection.transport.writable for connection in io._core.sessions.table.values()))
        await io.shutdown(timeout=2)
        answer = await within(poll)
        assert (answer.status_code, answer.text) == (200, "1")
        await assert_nothing_left(io)


async def test_a_client_that_comes_with_its_next_poll_is_told_then(io: Server) -> None:
    async with client(io, "polling") as ann:
        io.emit("last", "words")
        await io.shutdown(timeout=2)
        assert await ann.hear() == ["last", "words"]
        with pytest.raises(Closed):
            await ann.receive()
        await assert_nothing_left(io)


async def test_what_was_emitted_before_the_end_is_still_sent(io: Server, transport: str) -> None:
    """Also what disconnect handlers say to others, for whom it is not yet the end."""
    async with clients(io, transport, "ann", "bob") as both:
        for number in range(50):
            io.emit("number", number)
        ending = asyncio.create_task(io.shutdown(timeout=2))
        for each in both:
            for number in range(50):
                assert await each.hear() == ["number", number]
            await ends(each.wire)
        await within(ending)


async def test_who_waits_at_the_door_is_sent_away(io: Server, transport: str) -> None:
    reached = asyncio.Event()

    @io.use
    async def slow(socket: Socket) -> None:
        reached.set()
        await asyncio.get_running_loop().create_future()

    async with serve(io) as url, session(url, transport) as wire:
        await wire.send(CONNECT)
        await within(reached.wait())
        ending = asyncio.create_task(io.shutdown(timeout=2))
        await ends(wire)
        await within(ending)
        await assert_nothing_left(io)


@pytest.mark.usefixtures("ws")
async def test_nobody_new_is_let_in_while_the_server_ends(io: Server) -> None:
    opened = asyncio.Event()

    @io.on("work")
    async def work(socket: Socket) -> None:
        await opened.wait()

    async with serve(io) as url, websocket(url) as wire, httpx.AsyncClient(base_url=url) as http:
        await enter(wire)
        await wire.send('42["work"]')
        await until(lambda: io._core.sessions._tasks)
        ending = asyncio.create_task(io.shutdown(timeout=5))
        await ends(wire)
        assert (await http.get("/socket.io/", params=POLLING)).status_code == 503
        assert (await refused(url, WEBSOCKET)).status_code == 503
        assert not io._core.sessions.table
        opened.set()
        await within(ending)


async def test_a_server_can_be_started_again(io: Server, transport: str) -> None:
    io.on("echo", lambda socket, text: text)
    async with serve(io) as url:
        for _ in range(2):
            async with session(url, transport) as wire:
                ann = Client(wire)
                await ann.enter()
                assert await ann.ask("echo", "here") == ["here"]
                ending = asyncio.create_task(io.shutdown(timeout=2))
                await ends(wire)
                await within(ending)
            await assert_nothing_left(io)
            io.start()
        async with session(url, transport) as wire:
            await enter(wire)


async def test_deadlines_are_kept_after_a_second_start(transport: str) -> None:
    io = make_server(connect_timeout=0.3)
    async with serve(io) as url:
        await io.shutdown(timeout=1)
        io.start()
        async with session(url, transport) as wire:
            await ends(wire)
        await assert_nothing_left(io)


async def test_shutting_down_twice_and_with_nobody_there_is_nothing_special(io: Server) -> None:
    await io.shutdown()
    await io.shutdown(timeout=0)
    assert leftovers(io) == {}


# Handlers.


async def test_handlers_are_waited_for(io: Server, transport: str) -> None:
    """Those of events, and those of the disconnections that the shutdown itself causes."""
    done: list[str] = []
    reached, opened = asyncio.Event(), asyncio.Event()

    @io.on("work")
    async def work(socket: Socket) -> None:
        reached.set()
        await opened.wait()
        done.append("work")

    @io.on("disconnect")
    async def goodbye(socket: Socket, reason: str) -> None:
        await opened.wait()
        done.append(reason)

    async with client(io, transport) as ann:
        await ann.emit("work")
        await within(reached.wait())
        ending = asyncio.create_task(io.shutdown(timeout=5))
        await until(lambda: not io._core.sessions.table)
        await asyncio.sleep(0)
        assert not ending.done()
        opened.set()
        await within(ending)
        assert sorted(done) == ["server shutting down", "work"]


async def test_a_handler_that_does_not_end_in_time_is_cancelled(
    io: Server, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It may clean up; that is no error."""
    ends_: list[str] = []
    reached = asyncio.Event()

    @io.on("work")
    async def work(socket: Socket) -> None:
        reached.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ends_.append("cleaned up")

    async with client(io, transport) as ann:
        await ann.emit("work")
        await within(reached.wait())
        await io.shutdown(timeout=0.05)
        await assert_nothing_left(io)
        assert ends_ == ["cleaned up"]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_handler_may_end_the_server(io: Server, transport: str) -> None:
    """It does not wait for itself."""
    done = asyncio.Event()

    @io.on("stop")
    async def stop(socket: Socket) -> None:
        await io.shutdown(timeout=60)
        done.set()

    async with client(io, transport) as ann:
        await ann.emit("stop")
        await within(done.wait())
        await ends(ann.wire)
        await assert_nothing_left(io)


@pytest.mark.usefixtures("ws")
async def test_a_client_that_does_not_read_does_not_hold_up_the_end() -> None:
    io = make_server(max_buffered=20_000_000)
    async with serve(io) as url, websocket(url) as wire:
        await enter(wire)
        (connection,) = io._core.sessions.table.values()
        while connection.buffered < 300_000:
            io.emit("large", "x" * 100_000)
            for _ in range(5):
                await asyncio.sleep(0)
        await within(io.shutdown(timeout=0.1))
        await assert_nothing_left(io)


# Lifespan.


class Lifespan:
    """An ASGI server that starts and ends an application."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self.sent: list[str] = []
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._task = asyncio.ensure_future(app({"type": "lifespan", "state": {}}, self._inbox.get, self._send))

    async def _send(self, message: Message) -> None:
        self.sent.append(message["type"])

    async def say(self, word: str) -> None:
        """Say `startup` or `shutdown`, and wait for the answer or for the end of the application."""
        before = len(self.sent)
        self._inbox.put_nowait({"type": f"lifespan.{word}"})
        await until(lambda: len(self.sent) > before or self._task.done())

    async def ended(self) -> None:
        """Wait until the application has returned."""
        await within(self._task)


def inner(log: list[str], io: Server) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Return an application with a lifespan of its own, which notes how it goes."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "lifespan"
        while True:
            word = (await receive())["type"].removeprefix("lifespan.")
            log.append(f"{word}, closing is {io._core.sessions.closing}")
            await send({"type": f"lifespan.{word}.complete"})
            if word == "shutdown":
                return

    return app


async def test_the_lifespan_starts_and_ends_a_server(io: Server) -> None:
    lifespan = Lifespan(io.asgi())
    await lifespan.say("startup")
    assert not io._core.sessions.closing
    await lifespan.say("shutdown")
    assert io._core.sessions.closing
    await lifespan.ended()
    assert lifespan.sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_the_application_beside_has_its_lifespan_too(io: Server) -> None:
    """It starts with the server and ends after it: handlers can use what it holds until they are done."""
    log: list[str] = []
    lifespan = Lifespan(io.asgi(inner(log, io)))
    await lifespan.say("startup")
    await lifespan.say("shutdown")
    await lifespan.ended()
    assert log == ["startup, closing is False", "shutdown, closing is True"]
    assert lifespan.sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def _raises(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("only http here")


async def _reads_and_raises(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    raise KeyError("path")


async def _returns(scope: Scope, receive: Receive, send: Send) -> None:
    pass


@pytest.mark.parametrize("app", [_raises, _reads_and_raises, _returns])
async def test_an_application_without_a_lifespan_does_not_take_the_servers(
    io: Server, app: Callable[[Scope, Receive, Send], Awaitable[None]]
) -> None:
    lifespan = Lifespan(io.asgi(app))
    await lifespan.say("startup")
    await lifespan.say("shutdown")
    await lifespan.ended()
    assert io._core.sessions.closing
    assert lifespan.sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_an_application_that_cannot_start_is_not_said_to_have_started(io: Server) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    lifespan = Lifespan(io.asgi(app))
    await lifespan.say("startup")
    await lifespan.ended()
    assert lifespan.sent == ["lifespan.startup.failed"]


@pytest.mark.usefixtures("ws")
async def test_the_lifespan_of_a_real_server_ends_the_clients(io: Server) -> None:
    async with serve(io.asgi()) as url, websocket(url) as wire:
        await enter(wire)
        assert len(io._core.sessions.table) == 1
    assert io._core.sessions.closing
    await assert_nothing_left(io)


# Leaving, in every way. Each takes the URL, and leaves nothing behind.

Way = Callable[[Server, str], Awaitable[None]]


async def _without_a_word(io: Server, url: str) -> None:
    async with polling(url) as wire:
        await enter(wire)


async def _with_a_close_packet(io: Server, url: str) -> None:
    for transport in ("polling", "websocket"):
        async with session(url, transport) as wire:
            await enter(wire)
            await wire.send("1")
            await ends(wire)


async def _without_fetching_the_end(io: Server, url: str) -> None:
    async with polling(url) as wire:
        await enter(wire)
        await wire.send("1")


async def _before_connect(io: Server, url: str) -> None:
    for transport in ("polling", "websocket"):
        async with session(url, transport):
            pass


async def _by_closing_the_websocket(io: Server, url: str) -> None:
    async with websocket(url) as wire:
        await enter(wire)


async def _by_cutting_the_websocket(io: Server, url: str) -> None:
    async with websocket(url) as wire:
        await enter(wire)
        wire.connection.transport.abort()


async def _refused(io: Server, url: str) -> None:
    for transport in ("polling", "websocket"):
        async with session(url, transport) as wire:
            await wire.send('40{"token":"bad"}')
            await ends(wire)


async def _refused_without_fetching_it(io: Server, url: str) -> None:
    async with polling(url) as wire:
        await wire.send('40{"token":"bad"}')


async def _refused_with_what_has_no_json(io: Server, url: str) -> None:
    for transport in ("polling", "websocket"):
        async with session(url, transport) as wire:
            await wire.send("40/unwritable," + CONNECT[2:])
            refusal = json.dumps(refusals.UNAVAILABLE, separators=(",", ":"))
            assert await said(wire) == [f"44/unwritable,{refusal}"]


async def _refused_in_a_second_namespace(io: Server, url: str) -> None:
    for transport in ("polling", "websocket"):
        async with session(url, transport) as wire:
            await enter(wire)
            await wire.send('40/closed,{"token":"bad"}')
            await within(wire.receive())
            await wire.send("1")
            await ends(wire)


async def _while_the_verdict_is_pending(io: Server, url: str) -> None:
    for transport in ("polling", "websocket"):
        async with session(url, transport) as wire:
            await wire.send("40/slow," + CONNECT[2:], "40/room-1," + CONNECT[2:])
            await until(lambda: any(connection.attempts for connection in io._core.sessions.table.values()))
            await wire.send("1")
            await ends(wire)


async def _by_a_disconnect_while_the_verdict_is_pending(io: Server, url: str) -> None:
    for transport in ("polling", "websocket"):
        async with session(url, transport) as wire:
            await wire.send("40/slow," + CONNECT[2:], "41/slow,", "40/slow," + CONNECT[2:], "41/slow,")
            await enter(wire)
            await wire.send("1")
            await ends(wire)


async def _by_the_deadline(io: Server, url: str) -> None:
    for transport in ("polling", "websocket"):
        async with session(url, transport) as wire:
            await wire.send("40/slow," + CONNECT[2:])
            await ends(wire)


async def _in_the_middle_of_a_poll(io: Server, url: str) -> None:
    async with polling(url) as wire:
        await enter(wire)
        poll = asyncio.create_task(wire.get())
        await until(lambda: all(connection.transport.writable for connection in io._core.sessions.table.values()))
        poll.cancel()


async def _in_the_middle_of_a_post(io: Server, url: str) -> None:
    sent = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b'42["echo"'
        sent.set()
        await asyncio.get_running_loop().create_future()

    async with polling(url) as wire:
        await enter(wire)
        post = asyncio.create_task(wire.http.post("/socket.io/", params=wire.query, content=body()))
        await within(sent.wait())
        post.cancel()


async def _by_two_polls_at_once(io: Server, url: str) -> None:
    async with polling(url) as wire:
        await enter(wire)
        await asyncio.gather(wire.get(), wire.get())


async def _in_the_middle_of_an_upgrade(io: Server, url: str) -> None:
    for probed in (False, True):
        async with polling(url) as wire:
            await enter(wire)
            async with raw_websocket(url, _target(wire)) as connection:
                if probed:
                    await probe(connection)


async def _after_an_upgrade(io: Server, url: str) -> None:
    async with polling(url) as wire:
        await enter(wire)
        async with raw_websocket(url, _target(wire)) as connection:
            await probe(connection)
            await connection.send("5")
            moved = WebSocket(connection)
            await moved.send('427["echo","moved"]')
            assert await within(moved.receive()) == '437["moved"]'


async def _by_breaking_the_grammar(io: Server, url: str) -> None:
    for transport in ("polling", "websocket"):
        async with session(url, transport) as wire:
            await enter(wire)
            await wire.send("4nonsense")
            await ends(wire)


async def _in_the_middle_of_attachments(io: Server, url: str) -> None:
    for transport in ("polling", "websocket"):
        async with session(url, transport) as wire:
            await enter(wire)
            await wire.send('452-["echo",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]', b"1")
            await wire.send("1")
            await ends(wire)


async def _from_every_namespace(io: Server, url: str) -> None:
    for transport in ("polling", "websocket"):
        async with session(url, transport) as wire:
            for name in ("", "/room-1", "/room-2"):
                await enter(wire, name)
            for name in ("", "/room-1", "/room-2"):
                await wire.send(f"41{name}," if name else "41")
            await ends(wire)


async def _sent_away(io: Server, url: str) -> None:
    for transport in ("polling", "websocket"):
        for close in (True, False):
            async with session(url, transport) as wire:
                await enter(wire)
                io.disconnect_sockets(close)
                await ends(wire)


async def _while_a_call_waits(io: Server, url: str) -> None:
    for transport in ("polling", "websocket"):
        async with session(url, transport) as wire:
            await enter(wire)
            call = asyncio.create_task(io.call("question", timeout=60))
            await within(wire.receive())
            await wire.send("1")
            assert await within(call) == []
            await ends(wire)


async def _too_slow(io: Server, url: str) -> None:
    async with polling(url) as wire:
        await enter(wire)
        for _ in range(20):
            io.emit("large", "x" * 100_000)
        await ends(wire)


WAYS: list[Way] = [
    _without_a_word,
    _with_a_close_packet,
    _without_fetching_the_end,
    _before_connect,
    _by_closing_the_websocket,
    _by_cutting_the_websocket,
    _refused,
    _refused_without_fetching_it,
    _refused_with_what_has_no_json,
    _refused_in_a_second_namespace,
    _while_the_verdict_is_pending,
    _by_a_disconnect_while_the_verdict_is_pending,
    _by_the_deadline,
    _in_the_middle_of_a_poll,
    _in_the_middle_of_a_post,
    _by_two_polls_at_once,
    _in_the_middle_of_an_upgrade,
    _after_an_upgrade,
    _by_breaking_the_grammar,
    _in_the_middle_of_attachments,
    _from_every_namespace,
    _sent_away,
    _while_a_call_waits,
    _too_slow,
]
BY_THE_DEADLINE = (_by_the_deadline, _from_every_namespace, _sent_away)


@pytest.mark.usefixtures("ws")
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__.strip("_"))
async def test_a_client_that_leaves_in_whatever_way_leaves_nothing_behind(
    way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    """No connection, socket, room, namespace, task or deadline; and nothing about it is an error."""
    # Only who is to be ended by the deadline may be, lest it hides what another way leaves behind.
    io = make_server(ping_interval=0.3, ping_timeout=0.3, connect_timeout=0.3 if way in BY_THE_DEADLINE else 60)
    io.on("echo", lambda socket, *args: args)
    io.on("connect", lambda socket: socket.join("a", "b"))
    io.on("disconnect", lambda socket, reason: None)

    @io.of("/slow").use
    async def slow(socket: Socket) -> None:
        await asyncio.get_running_loop().create_future()

    @io.of("/unwritable").use
    async def unwritable(socket: Socket) -> None:
        raise Refused("no", data=object())

    io.of("/closed")
    io.of(re.compile(r"/room-\d")).on("connect", lambda socket: socket.join("a"))
    async with serve(io) as url:
        await way(io, url)
        await assert_nothing_left(io)
        if way is not _refused_with_what_has_no_json:  # That one is a mistake of the application.
            assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
        async with websocket(url) as wire:
            await enter(wire)


def _target(wire: Polling) -> dict[str, str]:
    return {**WEBSOCKET, "sid": wire.handshake["sid"]}
