"""Rows 39 and 40: clients that do not read what they are answered, and messages in very many frames."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from iogate import Limits, Server
from iogate.server.session.heads import LINGER
from iogate.testing import advance, settle
from iogate.transports.picows.http import PicowsHTTP
from iogate.transports.uvicorn_http import HTTPProtocol
from iogate.transports.uvicorn_tls import TLSProtocol
from tests import servers
from tests.attacks.bounds import SMALL, peak_below
from tests.attacks.raw import Wire, request, wire
from tests.attacks.showing import assert_undisturbed, victim
from tests.attacks.test_heads import HOST, NOT_FOUND, certificate, quiet_server, run_ws
from tests.attacks.test_transport import frame
from tests.conformance.conftest import echo_server
from tests.conformance.wire import echoes, ends, enter, websocket, within
from tests.server.left import until
from tests.servers import serve

__all__ = ["certificate", "run_ws"]


# Row 39: many frames.


@pytest.mark.parametrize("entered", [False, True], ids=["before the verdict", "after"])
async def test_a_message_of_empty_fragments(entered: bool) -> None:
    """Row 39: it ends the connection after so many of them, though it never becomes larger."""
    io = echo_server()
    async with victim(io, "websocket") as (url, alice), websocket(url) as mallory:
        if entered:
            await enter(mallory)
        with peak_below(SMALL):
            mallory.connection.transport.write(frame(1, b"4", fin=False) + frame(0, b"", fin=False) * 20_000)
            assert (await ends(mallory)).code in (1009, None)  # Or it was reset with what it still sent.
        await until(lambda: len(io._core.sessions.table) == 1)
        await assert_undisturbed(io, alice)


async def test_a_message_in_several_fragments_is_taken() -> None:
    """Row 39: nobody is refused who sends a message in pieces."""
    async with serve(echo_server()) as url, websocket(url) as alice:
        await enter(alice)
        for _ in range(3):
            write = alice.connection.transport.write
            write(frame(1, b'42["echo","still here', fin=False) + frame(0, b"", fin=False) * 900 + frame(0, b'"]'))
            assert await alice.receive() == '42["echo","still here"]'
        await echoes(alice)


async def test_many_frames_at_once_are_handled_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 39: others are served between the frames of one client, and none of its frames is lost or out of order."""
    handled: list[int] = []
    turn = 0
    handle = WebSocketsSansIOProtocol.handle_pong

    def counted(self: WebSocketsSansIOProtocol, event: object) -> None:
        handled.append(turn)
        handle(self, event)  # type: ignore[arg-type]

    monkeypatch.setattr(WebSocketsSansIOProtocol, "handle_pong", counted)
    loop = asyncio.get_running_loop()

    def count() -> None:
        nonlocal turn
        turn += 1
        ticking[0] = loop.call_soon(count)

    async with serve(echo_server()) as url, websocket(url) as mallory:
        await enter(mallory)
        ticking = [loop.call_soon(count)]
        mallory.connection.transport.write(frame(10, b"") * 20_000 + frame(1, b'42["echo","still here"]'))
        assert await mallory.receive() == '42["echo","still here"]'
        ticking[0].cancel()
    assert max((handled.count(one) for one in set(handled)), default=0) < 2000
    assert len(handled) in (0, 20_000)  # picows does not take the way that is counted here.


# Row 40: answers that are not read.

LARGE = 32_000_000
"""Bytes that no buffers of the kernel hold."""


@pytest.fixture
def transports(monkeypatch: pytest.MonkeyPatch) -> list[asyncio.Transport]:
    """The connections of the server, as they come."""
    made: list[asyncio.Transport] = []
    for kind in (PicowsHTTP, HTTPProtocol):
        connection_made = kind.connection_made

        def counted(self: Any, transport: asyncio.Transport, made_before: Any = connection_made) -> None:
            if transport not in made:
                made.append(transport)
            made_before(self, transport)

        monkeypatch.setattr(kind, "connection_made", counted)
    return made


@asynccontextmanager
async def deaf(url: str) -> AsyncIterator[Wire]:
    """Connect with little room for what is received; it is read only on demand."""
    host, port = url.rpartition("/")[2].split(":")
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    small.setblocking(False)
    await asyncio.get_running_loop().sock_connect(small, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=small, limit=4096)
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


def get(path: str, *lines: bytes) -> bytes:
    """Return a request."""
    return b"GET " + path.encode() + b" HTTP/1.1\r\n" + HOST + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


async def large(scope: Any, receive: Any, send: Any) -> None:
    """Answer with very much."""
    assert scope["type"] == "http"  # It has no lifespan.
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % LARGE)]})
    await send({"type": "http.response.body", "body": b"x" * LARGE})


async def test_an_answer_that_is_not_read(
    transports: list[asyncio.Transport], caplog: pytest.LogCaptureFixture
) -> None:
    """Row 40: the connection counts meanwhile, and is closed when the deadline of a head has passed."""
    io = quiet_server(connect_timeout=10.0)
    with caplog.at_level(logging.INFO, "iogate"):
        async with serve(io.asgi(large)) as url, deaf(url) as mallory:
            await mallory.send(get("/large"))
            await until(lambda: len(io._core.sessions.pending._silent) == 1 and io._core.heads._unread)
            await advance(io, 9.9)
            assert not transports[0].is_closing()
            await advance(io, 0.1)
            assert transports[0].is_closing()
            await until(lambda: not io._core.sessions.pending._silent)
        await io.shutdown()
    assert "it reads less than 1024 bytes of its answer per second" in caplog.text


async def test_an_answer_that_is_read_slowly(transports: list[asyncio.Transport]) -> None:
    """Row 40: who reads it, however long that takes, is given all of it, and is not counted any more then."""
    io = quiet_server(connect_timeout=10.0)
    async with serve(io.asgi(large)) as url, deaf(url) as alice:
        await alice.send(get("/large"))
        await until(lambda: io._core.heads._unread)
        for _ in range(5):
            waiting = transports[0].get_write_buffer_size()
            while transports[0].get_write_buffer_size() > waiting - 20_000:
                await within(alice._reader.read(100_000))
            await advance(io, 10.0)
            assert not transports[0].is_closing()
        assert len(await within(alice._reader.readexactly(20_000_000))) == 20_000_000
        while not alice._reader.at_eof() and io._core.heads._unread:
            await within(alice._reader.read(100_000))
        await settle()
        assert not transports[0].is_closing()
        assert not io._core.heads._unread_due
    await io.shutdown()


async def test_requests_whose_answers_are_not_read(
    transports: list[asyncio.Transport], caplog: pytest.LogCaptureFixture
) -> None:
    """Row 40: requests that are sent one behind the other do not keep a connection, and no application fails."""
    io = quiet_server(connect_timeout=10.0)
    async with serve(io.asgi(large)) as url, deaf(url) as mallory:
        await mallory.send(get("/large") * 20)
        await until(lambda: io._core.heads._unread)
        await advance(io, 10.0)
        await until(lambda: transports[0].is_closing() and not io._core.sessions.pending._silent)
        await settle()
    await io.shutdown()
    assert "Exception in ASGI application" not in caplog.text


@pytest.mark.parametrize("lines", [[], [b"Connection: close"]], ids=["kept alive", "closed"])
async def test_the_rest_of_an_answer_that_is_not_read(
    lines: list[bytes], run_ws: str, transports: list[asyncio.Transport], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 40: a connection that is closed is gone two seconds later, though little waits for its client; it counts."""
    monkeypatch.setitem(servers.PROTOCOLS[run_ws], "timeout_keep_alive", 0.01)  # type: ignore[index]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"  # It has no lifespan.
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while transports[0].get_write_buffer_size() == 0:
            await send({"type": "http.response.body", "body": b"x" * 30_000, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b""})

    io = quiet_server()
    async with serve(io.asgi(app)) as url, deaf(url) as mallory:
        await mallory.send(get("/small", *lines))
        await until(lambda: transports and transports[0].is_closing())
        await until(lambda: len(io._core.sessions.pending._silent) == len(io._core.heads._linger_due) == 1)
        assert transports[0].get_write_buffer_size() > 0
        await advance(io, LINGER)
        await until(lambda: transports[0].get_write_buffer_size() == 0 and not io._core.sessions.pending._silent)
    await io.shutdown()


async def test_pings_whose_answers_are_not_read(transports: list[asyncio.Transport]) -> None:
    """Row 40: only the last one is owed an answer, and the connection ends with its deadline at the gate."""
    io = quiet_server(connect_timeout=10.0)
    async with serve(io) as url, deaf(url) as mallory:
        await mallory.send(request("websocket"))
        await until(lambda: len(io._core.sessions.pending) == 1)
        waiting = 0
        for _ in range(60):
            await mallory.send(frame(9, b"p" * 125) * 1000)
            waiting = max(waiting, transports[0].get_write_buffer_size())
        assert waiting < 500_000
        await advance(io, 10.0)
        for _ in range(5):  # It is told why, and the WebSocket is closed, and then the connection.
            await advance(io, LINGER)
            await settle()
        await until(lambda: transports[0].is_closing() and transports[0].get_write_buffer_size() == 0)
        await until(lambda: not io._core.sessions.pending._silent and not io._core.sessions.table)


async def test_a_ping_is_answered_once_its_client_reads(transports: list[asyncio.Transport]) -> None:
    """Row 40: the last of many pings has its answer, and what comes behind them is served."""
    io = quiet_server()
    async with serve(io) as url, websocket(url) as alice:
        await enter(alice)
        alice.connection.transport.pause_reading()
        for _ in range(100):
            alice.connection.transport.write(frame(9, b"p" * 125) * 1000)
            await asyncio.sleep(0)
        alice.connection.transport.resume_reading()
        await echoes(alice)


# Row 40: TLS.


@asynccontextmanager
async def secure(io: Server, ws: str, certificate: tuple[str, str]) -> AsyncIterator[str]:
    """Serve with TLS, as `iogate run` does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    made: list[Any] = []
    await serve_tls(io, ws, context, made)
    listener = made[0]
    try:
        yield f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        await io.shutdown(timeout=1.0)


async def serve_tls(io: Server, ws: str, context: Any, made: list[asyncio.Server]) -> None:
    """Listen."""
    config = uvicorn.Config(io.asgi(), **servers.PROTOCOLS[ws], lifespan="off", log_config=None)  # type: ignore[index]
    config.load()
    io.start()
    state = uvicorn.server.ServerState()
    http = config.http_protocol_class
    loop = asyncio.get_running_loop()
    made.append(await loop.create_server(lambda: TLSProtocol(context, http, config, state, {}), "127.0.0.1", 0))


class Client:
    """TLS on a connection, by hand: it says nothing that it is not told to say."""

    def __init__(self, raw: Wire) -> None:
        self._raw = raw
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._tls = context.wrap_bio(self._in, self._out)

    async def does(self, what: Any, *arguments: Any) -> Any:
        """Shake hands, read or write."""
        while True:
            try:
                result = what(self._tls)(*arguments)
            except ssl.SSLWantReadError:
                await self._raw.send(self._out.read())
                self._in.write(await within(self._raw._reader.read(65536)))
            else:
                await self._raw.send(self._out.read())
                return result

    async def shakes_hands(self) -> None:
        """Shake hands."""
        await self.does(lambda tls: tls.do_handshake)

    async def asks(self, data: bytes) -> bytes:
        """Send a request, and return the beginning of the answer."""
        await self.does(lambda tls: tls.write, data)
        answer: bytes = await self.does(lambda tls: tls.read, 65536)
        return answer


REFUSED = {
    "closed": get("/elsewhere", b"Connection: close"),
    "WebSocket": request("websocket", first="GET /socket.io/?EIO=4&transport=websocket&sid=none HTTP/1.1"),
    "WebSocket of websockets": request("websocket", without="Sec-WebSocket-Version"),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_a_tls_client_that_does_not_close(what: str, run_ws: str, certificate: tuple[str, str]) -> None:
    """Row 40: the connection counts after the answer, and is gone two seconds later."""
    io = quiet_server()
    async with secure(io, run_ws, certificate) as url, wire(url) as raw:
        mallory = Client(raw)
        await mallory.shakes_hands()
        assert (await mallory.asks(REFUSED[what])).startswith(b"HTTP/1.1 4")
        await until(lambda: len(io._core.sessions.pending._silent) == len(io._core.heads._linger_due) == 1)
        await advance(io, LINGER)
        await raw.ends()
        await until(lambda: not io._core.sessions.pending._silent and not io._core.heads._linger_due)


async def test_the_handshake_and_the_head_have_one_deadline(run_ws: str, certificate: tuple[str, str]) -> None:
    """Row 40: a handshake late does not start the deadline anew, and after the first head nothing is left of it."""
    io = quiet_server(connect_timeout=10.0)
    async with secure(io, run_ws, certificate) as url, wire(url) as raw, wire(url) as good:
        await until(lambda: len(io._core.sessions.pending._silent) == 2)
        await advance(io, 9.0)
        await Client(raw).shakes_hands()
        alice = Client(good)
        await alice.shakes_hands()
        assert b"404" in await alice.asks(NOT_FOUND)
        await alice.does(lambda tls: tls.read, 65536)  # The body is a record of its own.
        await advance(io, 1.0)
        await raw.ends()
        assert b"404" in await alice.asks(NOT_FOUND)
        assert not io._core.heads._below


async def test_a_handshake_does_not_make_a_connection_younger(run_ws: str, certificate: tuple[str, str]) -> None:
    """Row 40: the one that has been silent for longest makes room, whether it has shaken hands or not."""
    io = quiet_server(limits=Limits(pending=2))
    async with secure(io, run_ws, certificate) as url, wire(url) as oldest, wire(url) as other:
        await until(lambda: len(io._core.sessions.pending._silent) == 2)
        await Client(oldest).shakes_hands()
        async with wire(url):
            await oldest.ends()
            assert not other.closed


async def test_tls_that_cannot_be_spoken(run_ws: str) -> None:
    """Row 40: whatever goes wrong before the handshake, the connection is closed and counts no more."""
    io = quiet_server()
    failed: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failed.append(context))
    made: list[Any] = []
    await serve_tls(io, run_ws, None, made)  # No context: asyncio refuses to start.
    async with wire(f"https://127.0.0.1:{made[0].sockets[0].getsockname()[1]}") as alice:
        await until(lambda: len(io._core.sessions.pending._silent) == 1)
        await alice.send(b"x")
        await alice.ends()
        await until(lambda: not io._core.sessions.pending._silent and not io._core.heads._due)
    made[0].close()
    await io.shutdown()
