"""The end of a client: whenever `disconnect` is called, it ends without an error and leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import socketio

from iogate import Refused, Server, Socket
from iogate.client import AsyncClient, Client, engines
from iogate.server.session.reasons import CloseReason
from iogate.testing import TokenFactory
from tests.client.peers import FOREVER, WITHIN, Kind, Source, client, world
from tests.client.silent import Stage, silent
from tests.client.test_clients import lose

STAGES: list[Stage] = [
    "no answer",
    "half an answer",
    "no answer after OPEN",
    "no answer to the upgrade",
    "half an answer to the first POST",
]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that do not answer are not waited for long."""
    monkeypatch.setattr(engines, "FLUSH_TIMEOUT", 0.1)
    monkeypatch.setattr(engines, "CLOSE_TIMEOUT", 0.1)


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Fail if tasks go on, or if aiohttp, asyncio or a socket complains, now or when it is freed."""
    loop = asyncio.get_running_loop()
    complaints: list[Any] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
        gc.collect()
        for _ in range(3):
            await asyncio.sleep(0)
    assert not complaints
    assert not [str(warning.message) for warning in caught]
    assert not [task for task in asyncio.all_tasks() if _is_of_the_client(task)]


def _is_of_the_client(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return any(
        f"/{package}/" in getattr(code, "co_filename", "") for package in ("iogate/client", "engineio", "socketio")
    )


@pytest.mark.parametrize("stage", STAGES)
async def test_disconnect_in_the_middle_of_a_connect_to_a_server_that_is_silent(stage: Stage) -> None:
    """`disconnect` raises nothing; `connect` says that the client was disconnected."""
    source = Source(TokenFactory())
    async with silent(stage) as place, nothing_left():
        async with client("asyncio", source) as peer:
            connecting = asyncio.create_task(peer.do("connect", place.url))
            async with asyncio.timeout(WITHIN):
                await place.reached.wait()
            await peer.do("disconnect")
            with pytest.raises(socketio.exceptions.ConnectionError, match="Disconnected"):
                await connecting
            assert peer.client.eio.state == "disconnected"
            assert peer.client.eio.http is None or peer.client.eio.http.closed
        del peer


@pytest.mark.parametrize("stage", STAGES)
async def test_a_connect_that_is_cancelled_leaves_nothing_behind(stage: Stage) -> None:
    """As by `asyncio.timeout`: the caller is cancelled when the attempt has ended."""
    source = Source(TokenFactory())
    async with silent(stage) as place, nothing_left():
        async with client("asyncio", source) as peer:
            connecting = asyncio.create_task(peer.do("connect", place.url))
            async with asyncio.timeout(WITHIN):
                await place.reached.wait()
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            assert peer.client.eio.state == "disconnected"
        del peer


@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_disconnect_while_the_server_decides(kind: Kind, transport: str) -> None:
    """The attempt ends, and the server sees the client leave."""
    async with world() as place, nothing_left():
        reached, never = asyncio.Event(), asyncio.Event()

        @place.io.use
        async def wait(socket: Socket) -> None:
            reached.set()
            await never.wait()

        async with client(kind, Source(place.tokens)) as peer:
            arguments: dict[str, Any] = {"transports": [transport], "wait_timeout": FOREVER}
            connecting = asyncio.create_task(peer.do("connect", place.url, **arguments))
            async with asyncio.timeout(WITHIN):
                await reached.wait()
            await peer.do("disconnect")
            with pytest.raises(socketio.exceptions.ConnectionError, match="Disconnected"):
                await connecting
            async with asyncio.timeout(WITHIN):
                while place.io._core.sessions.table:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert peer.count("connect") == 0


async def test_disconnect_in_the_middle_of_an_upgrade_tells_the_server(kind: Kind) -> None:
    """The polling session is closed; the client is not left in it until the server misses its pong."""
    async with world() as place, client(kind, Source(place.tokens)) as peer:
        engine: Any = peer.client.eio
        upgrade = engine._connect_websocket
        reached = asyncio.Event()
        loop = asyncio.get_running_loop()
        go_on = threading.Event()

        async def upgrade_never(*args: Any) -> bool:
            reached.set()
            await asyncio.Event().wait()
            return bool(await upgrade(*args))

        def upgrade_late(*args: Any) -> bool:
            loop.call_soon_threadsafe(reached.set)
            go_on.wait(WITHIN)
            return bool(upgrade(*args))

        engine._connect_websocket = upgrade_never if isinstance(peer.client, AsyncClient) else upgrade_late
        connecting = asyncio.create_task(peer.do("connect", place.url))
        async with asyncio.timeout(WITHIN):
            await reached.wait()
        disconnecting = asyncio.create_task(peer.do("disconnect"))
        if isinstance(peer.client, Client):
            while not peer.client._run.stopped:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        go_on.set()
        await disconnecting
        with pytest.raises(socketio.exceptions.ConnectionError, match="Disconnected"):
            await connecting
        async with asyncio.timeout(WITHIN):
            while place.io._core.sessions.table:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


def make(kind: Kind, source: Source) -> Any:
    """Return a client that nothing else refers to."""
    made: type[AsyncClient | Client] = AsyncClient if kind == "asyncio" else Client
    return made(get_token=source, handle_sigint=False)


async def do(subject: Any, method: str, *args: Any) -> None:
    """Call a method of a client."""
    call = getattr(subject, method)
    await (call(*args) if isinstance(subject, AsyncClient) else asyncio.to_thread(call, *args))


async def is_freed(ref: weakref.ref[Any]) -> None:
    """Return when the object is gone; threads of python-engineio may hold it for a moment longer."""
    async with asyncio.timeout(WITHIN):
        while gc.collect() >= 0 and ref() is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_a_client_that_was_used_is_freed(kind: Kind, transport: str) -> None:
    """After `disconnect` nothing refers to it: no task, no timer, no list of python-engineio."""
    async with world() as place, nothing_left():
        source = Source(place.tokens)
        subject = make(kind, source)
        for _ in range(2):
            await do(subject, "connect", place.url, {}, {}, [transport])
            await do(subject, "emit", "message", "hello")
            await do(subject, "disconnect")
        ref = weakref.ref(subject)
        del subject
        await is_freed(ref)


async def test_a_client_that_never_got_in_is_freed(kind: Kind) -> None:
    """Refused, or without a server: it need not be disconnected."""
    async with world() as place, nothing_left():
        source = Source(place.tokens)

        @place.io.use
        def closed(socket: Socket) -> None:
            raise Refused("closed", data={"retry": "never"})

        for url in (place.url, "http://127.0.0.1:9"):
            subject = make(kind, source)
            with pytest.raises(socketio.exceptions.ConnectionError):
                await do(subject, "connect", url)
            ref = weakref.ref(subject)
            del subject
            await is_freed(ref)


@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_a_disconnect_handler_may_disconnect(kind: Kind, transport: str) -> None:
    """The end of the connection does not wait for itself, and the client can be used again."""
    async with world() as place, nothing_left(), client(kind, Source(place.tokens)) as peer:
        left = asyncio.Event()
        loop = asyncio.get_running_loop()

        async def leave(reason: str) -> None:
            await peer.do("disconnect")
            left.set()

        def leave_on_thread(reason: str) -> None:
            peer.client.disconnect()
            loop.call_soon_threadsafe(left.set)

        peer.client.on("disconnect", leave if isinstance(peer.client, AsyncClient) else leave_on_thread)
        for end in (lose, end_by_server, Server.disconnect_sockets):
            left.clear()
            await peer.do("connect", place.url, transports=[transport])
            end(place.io)
            async with asyncio.timeout(WITHIN):
                await left.wait()
            await peer.rests()
        await peer.do("connect", place.url, transports=[transport])
        await peer.do("disconnect")
        assert not peer.client.connected


def end_by_server(io: Server) -> None:
    """End the connections as a server does that shuts down."""
    for connection in list(io._core.sessions.table.values()):
        connection.close(CloseReason.SERVER_SHUTDOWN)


async def test_disconnect_twice_at_once(kind: Kind) -> None:
    """Both return when the client is disconnected."""
    async with world() as place, nothing_left(), client(kind, Source(place.tokens)) as peer:
        for transport in ("polling", "websocket"):
            await peer.do("connect", place.url, transports=[transport])
            await asyncio.gather(peer.do("disconnect"), peer.do("disconnect"))
            await peer.rests()
            assert not peer.client.connected


async def test_disconnect_while_it_waits_to_reconnect_leaves_nothing_behind(kind: Kind) -> None:
    """No timer goes on."""
    async with world() as place, nothing_left():
        options = {"reconnection_delay": FOREVER, "reconnection_delay_max": FOREVER}
        async with client(kind, Source(place.tokens), **options) as peer:
            await peer.do("connect", place.url)
            lose(place.io)
            await peer.hear("disconnect")
            await peer.do("disconnect")
            await peer.rests()
        del peer


async def test_a_server_that_says_nonsense_does_not_end_the_reconnecting(kind: Kind) -> None:
    """Also where python-engineio raises something else than its own errors."""
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        engine: Any = peer.client.eio
        await peer.do("connect", place.url)
        await peer.hear("connect")
        connect, failures = engine.connect, iter(range(3))

        def fail(*args: Any, **options: Any) -> Any:
            for _ in failures:
                raise KeyError("sid")
            return connect(*args, **options)

        engine.connect = fail
        lose(place.io)
        await peer.hear("connect")
        assert source.reasons == ["connect", *["reconnect"] * 4]
