"""What a client that is not let in may cost a server of python-socketio behind the gate, and one that goes again."""

from __future__ import annotations

import asyncio
import threading
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from iogate import Limits
from iogate.integrations.threaded import ThreadedGlue
from iogate.server.session.session import UNVERIFIED_FRAMES
from iogate.server.settings import UNVERIFIED_TOKENS
from tests.attacks.bounds import peak_below
from tests.conformance.wire import (
    POLLING,
    WEBSOCKET,
    ends,
    enter,
    polling,
    probe,
    raw_websocket,
    said,
    session,
    websocket,
    within,
)
from tests.gate.support import connect, make_auth
from tests.integrations.both import Behind
from tests.integrations.test_frames import complaints
from tests.server.left import until

KEY = "MDEyMzQ1Njc4OWFiY2RlZg=="
LARGE = UNVERIFIED_FRAMES * UNVERIFIED_TOKENS * 8192
"""Bytes that somebody who is not let in may send at a time."""


def running() -> int:
    """Return how many threads and tasks there are."""
    return threading.active_count() + len(asyncio.all_tasks())


# Frames and payloads.


@pytest.mark.parametrize("authenticate_within", [None, 10])
async def test_before_the_verdict_a_message_is_small(kind: str, way: str, authenticate_within: float | None) -> None:
    """Row 38: a CONNECT of more bytes than a few tokens ends the session; nothing of it is decoded."""
    behind = Behind(kind, auth=make_auth(authenticate_within=authenticate_within))
    async with behind.serve() as url:
        async with session(url, way) as client:
            await client.send(connect()[:-1] + ',"more":"' + "x" * LARGE + '"}')  # The token is good.
            assert await said(client) == []
        async with session(url, way) as client:
            if authenticate_within is not None:
                await client.send("40")
                await within(client.receive())
            await client.send(b"x" * (LARGE + 1))
            await ends(client)
            assert not behind.glue.sockets
        await until(lambda: not behind.sio.eio.sockets)


async def test_after_the_verdict_a_message_is_as_large_as_the_server_takes(kind: str, way: str) -> None:
    """Row 38: who is let in may send `max_http_buffer_size`, also on a WebSocket that it moves to later."""
    behind, sizes = Behind(kind, max_http_buffer_size=300_000), []
    behind.on("keep", lambda text: sizes.append(len(text)))
    async with behind.serve() as url, session(url, way) as client:
        await enter(client)
        await client.send('42["keep","' + "x" * 200_000 + '"]')
        await until(lambda: sizes == [200_000])
        await client.send('42["keep","' + "x" * 300_000 + '"]')
        await ends(client)
    assert sizes == [200_000]


async def test_who_has_moved_to_a_websocket_may_send_large_messages_there(kind: str) -> None:
    behind, sizes = Behind(kind), []
    behind.on("keep", lambda text: sizes.append(len(text)))
    async with behind.serve() as url, polling(url) as client:
        await enter(client)
        async with raw_websocket(url, {**WEBSOCKET, "sid": client.handshake["sid"]}) as upgrade:
            await probe(upgrade)
            await upgrade.send("5")
            await upgrade.send('42["keep","' + "x" * 200_000 + '"]')
            await until(lambda: sizes == [200_000])


@pytest.mark.parametrize("kind", ["Server", "Flask-SocketIO"])
async def test_a_message_without_end_is_not_kept(kind: str) -> None:
    """Row 38: simple-websocket keeps fragments of a message, and python-engineio looks at the whole of it alone."""
    behind = Behind(kind)

    async def without_end() -> AsyncIterator[str]:
        while True:
            yield "x" * 10_000

    async with behind.serve() as url, websocket(url) as client:
        (session_,) = behind.glue._sessions.values()
        sending = asyncio.create_task(client.connection.send(without_end()))
        await ends(client)
        await asyncio.wait([sending])
        sending.exception()
        await until(lambda: not session_.open)


@pytest.mark.parametrize("kind", ["Server", "Flask-SocketIO"])
async def test_compression_is_refused_on_threads(kind: str) -> None:
    """Row 39: a few bytes of a message of zeros would become a thousand times as many."""
    behind = Behind(kind)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = (deflate.compress(b"4" * 10_000_000) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
    async with behind.serve() as url, wire(url) as (reader, writer):
        writer.write(
            f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n"
            f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n".encode()
        )
        head = await within(reader.readuntil(b"\r\n\r\n"))
        assert head.startswith(b"HTTP/1.1 101")
        assert b"sec-websocket-extensions" not in head.lower()
        (session_,) = behind.glue._sessions.values()
        with peak_below(1_000_000):
            writer.write(frame(bomb, first=0xC1))  # A text with RSV1: compressed, which was not agreed on.
            await until(lambda: not session_.open)


async def test_one_post_at_a_time(kind: str) -> None:
    """Row 38: each would hold a body, and on threads a thread."""
    behind = Behind(kind)
    async with behind.serve() as url, polling(url) as client, half_a_post(url, client.handshake["sid"]) as reader:
        (session_,) = behind.glue._sessions.values()
        await until(lambda: session_.transport._body is not None)
        assert (await client.post("3")).status_code == 400
        await until(lambda: not behind.sio.eio.sockets)
        await within(reader.read(1))  # It is answered, or cut off.


@pytest.mark.usefixtures("impatient")
async def test_a_body_that_does_not_come_is_waited_for_as_long_as_its_session(kind: str) -> None:
    """Row 40: a session that is over has nobody who reads for it."""
    behind = Behind(kind, auth=make_auth(authenticate_within=0.3))
    async with behind.serve() as url, polling(url) as client, half_a_post(url, client.handshake["sid"]) as reader:
        await within(reader.read(1))  # It is answered, or cut off.
        await until(lambda: not behind.sio.eio.sockets)


async def test_a_body_for_nobody_is_waited_for_no_longer_than_a_verdict(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 40: python-engineio waits for the first part of a body before it looks at whose it is."""
    behind = Behind("AsyncServer")
    monkeypatch.setattr(type(behind.io._core.settings), "connect_timeout", 0.2, raising=False)
    async with behind.serve() as url:
        async with half_a_post(url, "nobody", sent=b"") as reader:
            assert (await within(reader.read())).startswith(b"HTTP/1.1 408")
        async with half_a_post(url, "nobody", sent=b""):
            pass
    assert complaints(caplog) == []


HANDSHAKES = [
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Connection: Upgrade\r\nUpgrade: websocket",
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x",
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 99\r\nSec-WebSocket-Key: " + KEY,
]


@pytest.mark.parametrize("fields", HANDSHAKES)
@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_half_a_handshake_opens_nothing(
    kind: str, fields: str, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 40: python-engineio polls on it, and simple-websocket raises; both leave the session as it is."""
    behind = Behind(kind)
    polls = transport == "polling" and not ("Connection" in fields and "websocket" in fields)
    async with behind.serve() as url, wire(url) as (reader, writer):
        query = f"GET /socket.io/?EIO=4&transport={transport} HTTP/1.1"
        writer.write(f"{query}\r\nHost: {urlsplit(url).netloc}\r\n{fields}\r\n\r\n".encode())
        answer = await within(reader.readuntil(b"\r\n"))
        assert (answer.split()[1] == b"200") if polls else (answer.split()[1] in (b"400", b"401"))
        assert len(behind.sio.eio.sockets) == polls
    assert complaints(caplog) == []


# Sessions that come and go.


async def test_a_session_that_has_gone_leaves_no_thread_and_no_task_behind(kind: str) -> None:
    """Row 41: python-engineio has each wait for the next ping, 25 s, whatever becomes of its session."""
    behind = Behind(kind, ping_interval=60)
    async with behind.serve() as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        before = 0
        for _ in range(31):
            answer = await http.get("/socket.io/", params=POLLING)
            sid = answer.text.partition('"sid":"')[2].partition('"')[0]
            await http.post("/socket.io/", params={**POLLING, "sid": sid}, content="1")
            await until(lambda: not behind.sio.eio.sockets)
            before = before or running()
        await until(lambda: running() < before + 10)


async def test_a_client_is_asked_whether_it_is_there_and_ended_if_it_is_not(kind: str, way: str) -> None:
    """The gate sends the pings, at the server's interval, and waits for the pongs as long as the server would."""
    behind, gone = Behind(kind, ping_interval=0.05, ping_timeout=0.3), []
    behind.on("disconnect", lambda: gone.append(1))
    async with behind.serve() as url, session(url, way) as client:
        await enter(client)
        for _ in range(3):
            assert await within(client.receive_any()) == "2"
            await client.send("3")
        assert await within(client.receive_any()) == "2"
        await until(lambda: gone)
        await until(lambda: not behind.sio.eio.sockets)


@pytest.mark.usefixtures("impatient")
async def test_silent_sessions_of_an_address_are_counted_and_end(kind: str) -> None:
    """Row 37: the oldest makes room for a new one, and none is left at the deadline."""
    behind = Behind(kind, auth=make_auth(authenticate_within=0.5), limits=Limits(pending_per_address=3))
    async with behind.serve() as url, polling(url) as client, polling(url), websocket(url):
        assert (await client.http.get("/socket.io/", params=POLLING)).status_code == 200
        assert len(behind.glue._sessions) == 3
        await until(lambda: not behind.glue._sessions)
        assert (await client.http.get("/socket.io/", params=POLLING)).status_code == 200


# Handlers.


class Door:
    """A connect handler that waits, and counts who waits in it and how often it was called."""

    def __init__(self, *, threaded: bool) -> None:
        self.threaded = threaded
        self.calls = self.inside = self.most = 0
        self.opened = threading.Event()
        self.lock = threading.Lock()

    def __call__(self) -> Any:
        self._come()
        if self.threaded:
            self.opened.wait(10)
            self._go()
            return None
        return self._wait()

    async def _wait(self) -> None:
        try:
            while not self.opened.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        finally:
            self._go()

    def _come(self) -> None:
        with self.lock:
            self.calls += 1
            self.inside += 1
            self.most = max(self.most, self.inside)

    def _go(self) -> None:
        with self.lock:
            self.inside -= 1


async def test_a_client_has_one_connect_handler_at_a_time(kind: str, way: str) -> None:
    """Row 41: CONNECT to many namespaces, and once more, runs one handler after another."""
    behind = Behind(kind)
    door = Door(threaded=behind.threaded)
    for name in ("/", "/a", "/b"):
        behind.on("connect", door, name)
    async with behind.serve() as url, session(url, way) as client:
        for _ in range(2):  # Twice, no more: an attempt that is given up counts.
            await client.send(connect())
        await client.send(connect(namespace="/a"), connect(namespace="/b"))
        await until(lambda: door.calls)
        door.opened.set()
        names: set[str] = set()
        while names != {"40{", "40/a,{", "40/b,{"}:
            packet = str(await within(client.receive()))
            names.add(packet[: packet.index("{") + 1])
        assert door.most == 1
        assert sorted(behind.sio.manager.rooms) == ["/", "/a", "/b"]
        assert all(len(rooms[None]) == 1 for rooms in behind.sio.manager.rooms.values())
    await until(lambda: not door.inside)


@pytest.mark.parametrize("kind", ["Server", "Flask-SocketIO"])
async def test_clients_that_have_gone_have_no_call_in_the_queue_of_the_threads(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 41: a handler is called for nobody who left while all threads were busy."""
    monkeypatch.setattr("iogate.integrations.threaded.MAX_THREADS", 2)
    behind = Behind(kind)
    door = Door(threaded=True)
    behind.on("connect", door)
    async with behind.serve() as url:
        async with websocket(url) as one, websocket(url) as two:
            await one.send(connect())
            await two.send(connect())
            await until(lambda: door.calls == 2)
            for _ in range(5):
                async with websocket(url) as client:
                    await client.send(connect())
                    await until(lambda: sum(len(each.attempts) for each in behind.glue._sessions.values()) == 3)
                await until(lambda: len(behind.glue._sessions) == 2)
            assert isinstance(behind.glue, ThreadedGlue)
            assert behind.glue._threads._work_queue.qsize() == 0
            await until(lambda: len(behind.sio.eio.sockets) == 2)
            door.opened.set()
            assert str(await within(one.receive())).startswith("40{")
            assert str(await within(two.receive())).startswith("40{")
        await until(lambda: not behind.glue._sessions and not behind.glue.sockets)
    assert door.calls == 2


async def test_who_was_revoked_while_he_waited_for_a_handler_is_not_handled(kind: str, way: str) -> None:
    """Row 43: the connect handler of a second namespace waits for that of the first, and then asks again."""
    behind = Behind(kind)
    door, ran = Door(threaded=behind.threaded), []
    behind.on("connect", door)
    behind.on("connect", lambda: ran.append(1), "/a")
    async with behind.serve() as url, session(url, way) as client:
        await client.send(connect(), connect(namespace="/a"))
        await until(lambda: door.calls and len(next(iter(behind.glue._sessions.values())).attempts) == 2)
        await behind.revoke(subject="ann")
        door.opened.set()
        await ends(client)
        await until(lambda: not behind.glue._sessions and not behind.glue.sockets)
    assert ran == []


# What is not theirs.


def frame(payload: bytes, *, first: int = 0x81) -> bytes:
    """Return a frame of a client, masked with zeros."""
    length = len(payload)
    size = bytes([0x80 | length]) if length < 126 else bytes([0xFE]) + length.to_bytes(2, "big")
    return bytes([first]) + size + bytes(4) + payload


@asynccontextmanager
async def wire(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a TCP connection."""
    at = urlsplit(url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    try:
        yield reader, writer
    finally:
        writer.close()


@asynccontextmanager
async def half_a_post(url: str, sid: str, sent: bytes = b"4") -> AsyncIterator[asyncio.StreamReader]:
    """Begin a POST whose body never comes."""
    async with wire(url) as (reader, writer):
        writer.write(
            f"POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n"
            "Content-Length: 10\r\n\r\n".encode()
            + sent
        )
        await writer.drain()
        yield reader
