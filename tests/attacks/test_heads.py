"""Rows 39 and 40: what comes before a verdict can be asked for: request heads, silence, and compressed messages."""

from __future__ import annotations

import asyncio
import itertools
import logging
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from websockets.asyncio.client import connect as open_websocket

from iogate import Limits, Server
from iogate.asgi_types import MESSAGE_LIMIT
from iogate.server.session.heads import LINGER, LOG_LINES, MAX_FIELDS, MAX_HEAD
from iogate.testing import FakeClock, advance, settle
from iogate.transports.uvicorn_http import MAX_PIPELINED
from tests import servers
from tests.attacks.bounds import SMALL, FullQuota, peak_below
from tests.attacks.raw import TARGET, Wire, request, wire
from tests.attacks.showing import assert_undisturbed, victim
from tests.attacks.test_transport import frame
from tests.cli.running import SERVER, serving
from tests.cli.test_websockets import certificate
from tests.conformance.conftest import echo_server
from tests.conformance.wire import (
    WEBSOCKET,
    WebSocket,
    echoes,
    ends,
    enter,
    polling,
    probe,
    raw_websocket,
    session,
    websocket,
    within,
)
from tests.gate.support import make_auth
from tests.server.left import assert_nothing_left, until
from tests.servers import serve

__all__ = ["certificate"]

HOST = b"Host: chat.example\r\n"
GET = b"GET " + TARGET.encode() + b"polling HTTP/1.1\r\n" + HOST
NOT_FOUND = b"GET /elsewhere HTTP/1.1\r\n" + HOST + b"\r\n"
CHUNKED = b"POST " + TARGET.encode() + b"polling&sid=none HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(params=["uvicorn-picows", "uvicorn-websockets"], ids=["picows", "websockets"], autouse=True)
def run_ws(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each WebSocket implementation as `iogate run` serves it."""
    monkeypatch.setattr(servers, "WS", request.param)
    # Else uvicorn believes what is on loopback to be a proxy.
    monkeypatch.setitem(servers.PROTOCOLS[request.param], "proxy_headers", False)
    return str(request.param)


def quiet_server(**settings: Any) -> Server:
    """Return a server whose time stands still."""
    return echo_server(clock=FakeClock(), ping_interval=3600.0, ping_timeout=3600.0, **settings)


# Row 40: too large.

ENDLESS = {
    "header value": (GET + b"A: ", b"a" * 4096),
    "header name": (GET, b"a" * 4096),
    "header fields": (GET, b"abc: def\r\n" * 400),
    "target": (b"GET /", b"a" * 4096),
    "query": (b"GET " + TARGET.encode() + b"polling&", b"a" * 4096),
    "lines before the request": (b"", b"\r\n" * 2048),
    "trailer fields": (CHUNKED + b"0\r\n", b"abc: def\r\n" * 400),
    "trailer value": (CHUNKED + b"0\r\nA: ", b"a" * 4096),
    "chunk extension": (CHUNKED + b"1;", b"a" * 4096),
}


@pytest.mark.parametrize("behind", [b"", NOT_FOUND], ids=["first request", "later request"])
@pytest.mark.parametrize("what", ENDLESS)
async def test_a_head_without_end(what: str, behind: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Row 40: it is answered 431 once it has more than 32 KiB, the log says who and why, and no more of it is kept."""
    start, endless = ENDLESS[what]
    io = echo_server()
    with caplog.at_level(logging.INFO, "iogate"):
        async with victim(io, "websocket") as (url, alice), wire(url) as mallory:
            if behind:
                await mallory.send(behind)
                assert await mallory.status() == 404
            with peak_below(SMALL):
                await mallory.send(start)
                if start.startswith(CHUNKED):
                    assert await mallory.status() == 400  # There is no such session.
                for _ in range(500):
                    await mallory.send(endless)
                    await asyncio.sleep(0)
            assert await mallory.status() == 431
            await assert_undisturbed(io, alice)
    assert "refused a request from 127.0.0.1 with 431" in caplog.text


@pytest.mark.parametrize("transport", ["polling", "websocket"])
@pytest.mark.parametrize("size", [MAX_HEAD + 1, 200_000])
async def test_a_head_that_is_too_large_and_comes_at_once(transport: str, size: int) -> None:
    """Row 40."""
    async with serve(echo_server()) as url, wire(url) as mallory:
        head = request(transport)
        await mallory.send(request(transport, "A: " + "a" * (size - len(head) - 5)))
        assert await mallory.status() == 431


@pytest.mark.parametrize("pieces", [1, 2, 20])
@pytest.mark.parametrize("whole", [False, True])
async def test_a_head_that_is_too_large_behind_another_request(pieces: int, whole: bool) -> None:
    """Row 40: a head has the same limit when it begins in the middle of what is read, and wherever that ends."""
    io = echo_server()
    async with serve(io) as url, wire(url) as mallory:
        large = request("polling", *[f"A-{number}: {'a' * 1500}" for number in range(70)])
        data = NOT_FOUND + (large if whole else large[:-2])
        for start in range(0, len(data), len(data) // pieces + 1):
            await mallory.send(data[start : start + len(data) // pieces + 1])
            await settle()
        assert b" 200 " not in await mallory.ends()
        assert not io._core.sessions.table


async def test_a_head_just_above_the_limit_behind_another_request() -> None:
    """Row 40: it is not taken because the end of it is all that is counted."""
    io = echo_server()
    async with serve(io) as url, wire(url) as mallory:
        head = request("polling", "A: " + "a" * MAX_HEAD)
        await mallory.send(NOT_FOUND + head[:-10_000])
        assert await mallory.status() == 404
        await mallory.send(head[-10_000:])
        assert await mallory.status() == 431
        assert not io._core.sessions.table


async def test_heads_below_the_limit_behind_one_another() -> None:
    """Row 40: what is read at once may be larger than a head may be, and none of them is refused for that."""
    async with serve(echo_server()) as url, wire(url) as alice:
        data = NOT_FOUND[:-2] + b"A: " + b"a" * 25_000 + b"\r\n\r\n"
        await alice.send(data * 5)
        assert [await alice.status() for _ in range(5)] == [404] * 5


@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_a_head_of_too_many_fields(transport: str) -> None:
    """Row 40."""
    async with serve(echo_server()) as url, wire(url) as mallory:
        await mallory.send(request(transport, *["A: b"] * MAX_FIELDS))
        assert await mallory.status() == 431


@pytest.mark.parametrize("pieces", [1, 100])
@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_a_head_with_a_long_token_fits(transport: str, pieces: int) -> None:
    """Row 40: a token of 8 KiB in a header, cookies of 8 KiB and what proxies add are no reason to refuse anybody."""
    head = request(
        transport,
        "Authorization: Bearer " + "t" * 8192,
        "Cookie: session=" + "c" * 8192,
        *(f"X-Forwarded-{number}: {'p' * 100}" for number in range(50)),
    )
    async with serve(echo_server()) as url, wire(url) as alice:
        for start in range(0, len(head), len(head) // pieces + 1):
            await alice.send(head[start : start + len(head) // pieces + 1])
            await asyncio.sleep(0)
        assert await alice.status() == {"polling": 200, "websocket": 101}[transport]


@pytest.mark.parametrize("line", ["Content-Length: 5", "Content-Length: 0", "Transfer-Encoding: chunked"])
async def test_a_request_for_a_websocket_that_has_a_body(line: str) -> None:
    """Row 40: it is refused by its head; nobody waits for the body."""
    io = echo_server()
    async with serve(io) as url, wire(url) as mallory:
        await mallory.send(request("websocket", line))
        assert await mallory.status() == 400
        assert not io._core.sessions.table


async def test_requests_that_do_not_wait_for_answers() -> None:
    """Row 40: so many of them are kept, and the connection is closed."""
    io = echo_server()
    async with victim(io, "websocket") as (url, alice):
        async with wire(url) as mallory:
            with peak_below(SMALL):
                await mallory.send(NOT_FOUND * (MAX_PIPELINED + 2))
                await mallory.ends()
        async with wire(url) as bob:
            await bob.send(NOT_FOUND * MAX_PIPELINED)
            assert [await bob.status() for _ in range(MAX_PIPELINED)] == [404] * MAX_PIPELINED
        await assert_undisturbed(io, alice)


async def test_trailer_fields_are_not_header_fields() -> None:
    """Row 40: a proxy that takes a header away does not look for it behind the body."""
    io = echo_server(trusted_proxies=["127.0.0.0/8"])
    async with serve(io) as url, wire(url) as mallory:
        head = request("polling", "Transfer-Encoding: chunked", first=f"GET {TARGET}polling HTTP/1.1")
        await mallory.send(head + b"0\r\nX-Forwarded-For: 192.0.2.66\r\nAuthorization: Bearer x\r\n\r\n")
        assert await mallory.status() == 200
        (connection,) = io._core.sessions.table.values()
        assert connection.handshake.address == "127.0.0.1"
        assert "authorization" not in connection.handshake.headers


async def test_refusals_do_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Row 40: after the first lines of a minute they are counted, and the count is logged."""
    io = quiet_server()
    with caplog.at_level(logging.INFO, "iogate"):
        async with serve(io) as url:
            for number in range(LOG_LINES + 6):
                if number == LOG_LINES + 5:
                    await advance(io, 60.0)
                async with wire(url) as mallory:
                    await mallory.send(b"this is not HTTP\r\n\r\n")
                    assert await mallory.status() == 400
    lines = [record.getMessage() for record in caplog.records if record.name == "iogate"]
    assert sum("with 400" in line for line in lines) == LOG_LINES + 1
    assert "5 more lines like the next one were left out" in lines


# Row 40: too slow.

HALF = {
    "nothing": [b""],
    "half a head": [GET],
    "half a handshake": [request("websocket")[:-2]],
    "one byte a second": [bytes([byte]) for byte in GET[:9]],
    "empty lines": [b"\r\n"] * 9,
}


@pytest.mark.parametrize("what", HALF)
async def test_a_head_that_does_not_come(what: str, caplog: pytest.LogCaptureFixture) -> None:
    """Row 40: the connection is closed at `connect_timeout` after it was accepted, whatever has come, not before."""
    io = quiet_server(connect_timeout=10.0)
    with caplog.at_level(logging.INFO, "iogate"):
        async with serve(io) as url, wire(url) as mallory:
            await until(lambda: len(io._core.sessions.pending._silent) == 1)
            await trickle(io, mallory, HALF[what], seconds=9.9)
            assert not mallory.closed
            await advance(io, 0.1)
            assert await mallory.ends() == b""
            await assert_nothing_left(io)
    assert "closed a connection from 127.0.0.1: no complete request head within 10 s" in caplog.text


async def trickle(io: Server, mallory: Wire, parts: list[bytes], seconds: float) -> None:
    """Send parts of something, a second apart, in so many seconds."""
    for part in parts:
        await mallory.send(part)
        await settle()
        if len(parts) > 1:
            await advance(io, 1.0)
            seconds -= 1.0
    await advance(io, seconds)


LATER = {
    "half a head": (NOT_FOUND, 404, GET + b"A: b", b"c"),
    "a body that goes on after the answer": (CHUNKED, 400, b"1\r\na\r\n", b"1\r\na\r\n"),
    "a body of which the rest does not come": (CHUNKED, 400, b"1", b"0"),
}


@pytest.mark.parametrize("what", LATER)
async def test_a_later_head_that_does_not_come(what: str) -> None:
    """Row 40: on a connection that is kept alive a later request has the same deadline, from its first byte."""
    first, status, part, more = LATER[what]
    io = quiet_server(connect_timeout=10.0)
    async with serve(io) as url, wire(url) as mallory:
        await mallory.send(first)
        assert await mallory.status() == status
        await mallory.send(part)
        await until(lambda: len(io._core.heads._due) == 1)
        await advance(io, 9.0)
        await mallory.send(more)
        await settle()
        assert not mallory.closed
        await advance(io, 1.0)
        assert await mallory.ends() == b""


async def test_an_answer_that_is_not_looked_at() -> None:
    """Row 40: a refused client that goes on sending is cut off."""
    io = quiet_server()
    async with serve(io) as url, wire(url) as mallory:
        await mallory.send(b"this is not HTTP\r\n\r\n")
        assert await mallory.status() == 400
        await mallory.send(b"more")
        await advance(io, LINGER)
        await mallory.ends()
        await until(lambda: not io._core.sessions.pending._silent)


# Row 40: too many.


@asynccontextmanager
async def silent(url: str, number: int, said: bytes = b"") -> AsyncIterator[list[Wire]]:
    """Open connections one after the other that send nothing, or no whole head."""
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(number):
            opened.append(await stack.enter_async_context(wire(url)))
            await opened[-1].send(said)
        yield opened


@pytest.mark.parametrize("said", [b"", GET], ids=["nothing", "half a head"])
@pytest.mark.parametrize("limits", [Limits(pending_per_address=5), Limits(pending=5)], ids=["address", "total"])
async def test_silence_locks_nobody_out(limits: Limits, said: bytes) -> None:
    """Row 40: silent connections count from the first byte; the oldest is closed for the next one, whoever it is."""
    io = quiet_server(limits=limits)
    async with serve(io) as url, silent(url, 20, said) as mallory:
        await until(lambda: sum(one.closed for one in mallory) == 15)
        assert [one.closed for one in mallory] == [True] * 15 + [False] * 5
        for transport in ("polling", "websocket"):
            async with session(url, transport) as alice:
                await enter(alice, sub=transport)


async def test_a_full_server_still_refuses_transports_without_a_verdict() -> None:
    """Row 40: what has asked to be let in is not closed for somebody new, who is answered 429."""
    io = quiet_server(limits=Limits(pending_per_address=3), auth=make_auth(authenticate_within=10))
    async with serve(io) as url, AsyncExitStack() as stack:
        waiting = [await stack.enter_async_context(raw_websocket(url, WEBSOCKET)) for _ in range(3)]
        for one in waiting:
            await one.send("40")
        await until(lambda: sum(len(each.waiting) for each in io._core.sessions.table.values()) == 3)
        for transport in ("polling", "websocket"):
            async with wire(url) as bob:
                await until(lambda: len(io._core.sessions.pending._silent) == 1)
                io._core.sessions.pending._silent[asyncio.Transport()] = None  # Another one, which is there as well.
                await bob.send(request(transport))
                assert await bob.status() == 429
                io._core.sessions.pending._silent.clear()
        assert len(io._core.sessions.pending) == len(waiting) == 3


async def test_a_client_behind_a_proxy_takes_the_place_of_a_silent_one() -> None:
    """Row 40: the address counts that the head names, on whatever connection it comes."""
    io = quiet_server(limits=Limits(pending_per_address=1), trusted_proxies=["127.0.0.0/8"])
    evicted: list[Any] = []
    async with serve(io) as url, wire(url) as alice:
        idle = asyncio.Transport()
        io._core.sessions.pending.add_silent(idle, "192.0.2.1")
        io._core.sessions.pending.evict = evicted.append
        await alice.send(request("websocket", "X-Forwarded-For: 192.0.2.1"))
        assert await alice.status() == 101
        assert evicted == [idle]


async def test_the_connections_of_a_proxy_count_in_total_only() -> None:
    """Row 40: until the head names the client; then it is the client that is counted."""
    limits = Limits(pending=20, pending_per_address=2)
    io = quiet_server(limits=limits, trusted_proxies=["127.0.0.0/8"])
    async with serve(io) as url, silent(url, 10) as idle:
        await until(lambda: len(io._core.sessions.pending._silent) == 10)
        statuses = []
        async with AsyncExitStack() as stack:
            for _ in range(3):
                client = await stack.enter_async_context(wire(url))
                await client.send(request("websocket", "X-Forwarded-For: 192.0.2.1"))
                statuses.append(await client.status())
            assert statuses == [101, 101, 101]  # The third takes the place of the first, which has asked for nothing.
            assert len(io._core.sessions.pending) == 2
        assert not any(one.closed for one in idle)


async def test_a_connection_that_is_kept_alive_makes_room_too() -> None:
    """Row 40: one request does not keep a place."""
    io = quiet_server(limits=Limits(pending_per_address=2))
    async with serve(io) as url, silent(url, 1, NOT_FOUND) as (kept,):
        assert await kept.status() == 404
        await until(lambda: len(io._core.sessions.pending._silent) == 1)
        async with silent(url, 2):
            await kept.ends()


async def test_an_application_that_is_not_iogate_alone() -> None:
    """Row 40: heads have the same size and a deadline where the server is a part of another application."""
    app = Starlette(routes=[Mount("/chat", echo_server().asgi())])
    async with serve(app) as url, wire(url) as mallory:
        await mallory.send(GET + b"A: " + b"a" * MAX_HEAD)
        assert await mallory.status() == 431


# Row 40: TLS.


async def test_half_a_tls_handshake(tmp_path: Path, run_ws: str, certificate: tuple[str, str]) -> None:
    """Row 40: it has the deadline of a head, and counts as one from the first byte of the connection."""
    chain, key = certificate
    ws = {"uvicorn-picows": "picows", "uvicorn-websockets": "websockets"}[run_ws]
    source = SERVER.replace("sources=sources)", "sources=sources), connect_timeout=1.0") + "\napp = io.asgi()"
    async with serving(tmp_path, source, "--ws", ws, "--ssl-certfile", chain, "--ssl-keyfile", key) as run:
        async with wire(run.url) as nothing, wire(run.url) as half, wire(run.url) as plain:
            await half.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
            await plain.send(NOT_FOUND)
            for mallory in (nothing, half, plain):
                await mallory.ends()
        await run.says("no complete request head within 1 s")
        await run.says("no TLS handshake")


# Row 39.

BOMB = b"\x00" * 15_000_000


def compressed(payload: bytes) -> bytes:
    """Return a text frame with RSV1 set, which says that it is compressed (RFC 7692, section 6)."""
    deflate = zlib.compressobj(wbits=-15)
    data = deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH)
    made = bytearray(frame(1, data[:-4]))
    made[0] |= 0x40
    return bytes(made)


async def test_no_compression_is_negotiated(run_ws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 39: a client that offers it gets none, also if uvicorn's setting is forgotten."""
    monkeypatch.setitem(servers.PROTOCOLS[run_ws], "ws_per_message_deflate", True)  # type: ignore[index]
    async with serve(echo_server()) as url:
        address = url.replace("http", "ws", 1) + "/socket.io/?EIO=4&transport=websocket"
        async with open_websocket(address, proxy=None) as connection:
            assert connection.protocol.extensions == []


async def test_a_compressed_message_that_was_not_negotiated() -> None:
    """Row 39: it is refused by its first byte, and nothing is inflated."""
    io = echo_server()
    bomb = compressed(BOMB)
    assert len(bomb) < 20_000
    async with victim(io, "websocket") as (url, alice), websocket(url) as mallory:
        with peak_below(SMALL):
            mallory.connection.transport.write(bomb)
            assert (await ends(mallory)).code == 1002
        await assert_undisturbed(io, alice)


@pytest.mark.parametrize("mounted", [False, True])
async def test_a_message_that_is_larger_than_max_payload(mounted: bool) -> None:
    """Row 39: it is refused by the length that it announces, also in a server that is a part of another application."""
    io = echo_server(max_payload=20_000)
    app = Starlette(routes=[Mount("/", io.asgi())]) if mounted else io.asgi()
    async with serve(app) as url, websocket(url) as mallory:
        mallory.connection.transport.write(frame(1, b"4", size=20_001))
        assert (await ends(mallory)).code == 1009
    await io.shutdown()


@pytest.mark.parametrize("mounted", [False, True])
async def test_a_message_that_is_larger_than_may_come_before_the_verdict(mounted: bool) -> None:
    """Row 39: it is refused before it is there, although it is smaller than `max_payload`."""
    io = echo_server(max_payload=1_000_000)
    app = Starlette(routes=[Mount("/", io.asgi())]) if mounted else io.asgi()
    async with serve(app) as url, websocket(url) as mallory:
        mallory.connection.transport.write(frame(1, b"4" + b"x" * 4 * io._core.settings.max_unverified, size=999_000))
        assert (await ends(mallory)).code == 1009
    await io.shutdown()


@pytest.mark.parametrize("upgraded", [False, True])
async def test_a_large_message_as_soon_as_the_client_is_let_in(upgraded: bool) -> None:
    """Row 39: from then on `max_payload` is the limit, also for the first thing that comes."""
    async with serve(echo_server(max_payload=1_000_000)) as url:
        if not upgraded:
            async with websocket(url) as alice:
                await enter(alice)
                await echoes(alice, "x" * 500_000)
            return
        async with polling(url) as bob:
            await enter(bob)
            async with raw_websocket(url, {**WEBSOCKET, "sid": bob.handshake["sid"]}) as connection:
                await probe(connection)
                await connection.send("5")
                await echoes(WebSocket(connection), "x" * 500_000)


@pytest.mark.parametrize("mounted", [False, True])
@pytest.mark.parametrize("kind", ["uvicorn", "uvicorn-wsproto", "hypercorn"])
async def test_a_server_that_decompresses_is_warned_of(
    kind: servers.Kind, mounted: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 39: once, with the setting that turns it off; no connection adds a line."""
    if kind != "hypercorn":
        monkeypatch.setitem(servers.PROTOCOLS[kind], "ws_per_message_deflate", True)
    io = echo_server()
    app = Starlette(routes=[Mount("/", io.asgi())]) if mounted else io.asgi()
    with caplog.at_level(logging.WARNING, "iogate"):
        async with serve(app, kind) as url:
            for _ in range(3):
                async with websocket(url) as alice:
                    await enter(alice)
        await io.shutdown()
    (line,) = [record.getMessage() for record in caplog.records if record.name == "iogate"]
    assert ("Sec-WebSocket-Extensions" if kind == "hypercorn" else "--ws-per-message-deflate false") in line


async def test_a_server_that_does_not_decompress_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """Row 39: nobody is warned of what does not happen."""
    with caplog.at_level(logging.WARNING, "iogate"):
        async with serve(echo_server()) as url, websocket(url) as alice:
            await enter(alice)
    assert [record for record in caplog.records if record.name == "iogate"] == []


async def test_nothing_is_read_before_the_application_has_said_how_large_it_may_be() -> None:
    """Row 39: a frame that is sent with the request has the limit of the application, however late that is told."""
    asked, go, got = asyncio.Event(), asyncio.Event(), asyncio.Queue[Any]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            return
        asked.set()
        await go.wait()
        scope["extensions"][MESSAGE_LIMIT](lambda: (10, True))
        await receive()
        await send({"type": "websocket.accept"})
        got.put_nowait(await receive())

    async with serve(app) as url, wire(url) as mallory:
        await mallory.send(request("websocket"))
        await within(asked.wait())
        await mallory.send(frame(1, b"x" * 20))
        for _ in range(3):
            await settle()
        go.set()
        assert (await within(got.get())).get("code") == 1009


# What the grammar of WebSocket forbids.


@pytest.mark.parametrize("opcode", [0, 1, 2, 8, 9, 10])
@pytest.mark.parametrize("bit", [0x40, 0x20, 0x10], ids=["RSV1", "RSV2", "RSV3"])
@pytest.mark.parametrize("entered", [False, True], ids=["before the verdict", "after"])
async def test_a_reserved_bit_closes_with_1002(opcode: int, bit: int, entered: bool) -> None:
    """Row 39: no extension has been negotiated that gives it a meaning (RFC 6455, section 5.2)."""
    io = echo_server()
    async with serve(io) as url, websocket(url) as mallory:
        if entered:
            await enter(mallory)
        if opcode == 0:
            mallory.connection.transport.write(frame(1, b"4", fin=False))
        made = bytearray(frame(opcode, b'2["echo"]' if opcode < 8 else b""))
        made[0] |= bit
        mallory.connection.transport.write(bytes(made))
        assert (await ends(mallory)).code == 1002


# Row 40: at once.


@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_few_requests_begin_in_one_turn(transport: str, run_ws: str) -> None:
    """Row 40: users wait for a few requests of others at most, however many come at once."""
    io = quiet_server()
    async with serve(io) as url, AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(wire(url)) for _ in range(20)]
        opened = [0]
        sending = asyncio.gather(*(peer.send(request(transport)) for peer in peers))
        async with asyncio.timeout(10):
            while opened[-1] < len(peers):  # Look in each turn, from the first one on.
                await asyncio.sleep(0)
                opened.append(len(io._core.sessions.table))
        await sending
        most = 2 if run_ws == "uvicorn-picows" else 1
        assert max(after - before for before, after in itertools.pairwise(opened)) == most


@pytest.mark.parametrize("transport", ["polling", "websocket"])
@pytest.mark.parametrize("kept_alive", [False, True])
async def test_a_connection_that_is_closed_while_its_request_waits(transport: str, kept_alive: bool) -> None:
    """Row 40: when its turn comes, nothing is begun."""
    io = quiet_server(limits=Limits(pending_per_address=1))
    async with serve(io) as url, wire(url) as mallory:
        if kept_alive:
            await mallory.send(NOT_FOUND)
            assert await mallory.status() == 404
        io._core.heads.quota = full = FullQuota(1)
        await mallory.send(request(transport))
        await until(lambda: len(full) == 1)
        async with wire(url):  # It takes the place of the other one.
            await mallory.ends()
        full.begin_waiting()
        await settle()
        assert not io._core.sessions.table


async def test_a_request_whose_turn_comes() -> None:
    """Row 40: the connection is read again."""
    io = quiet_server()
    async with serve(io) as url, wire(url) as mallory:
        io._core.heads.quota = full = FullQuota(1)
        for _ in range(3):  # The first on a connection and a later one are not the same.
            await mallory.send(NOT_FOUND)
            await until(lambda: len(full) == 1)
            full.begin_waiting()
            assert await mallory.status() == 404


async def test_a_good_client_is_served_meanwhile() -> None:
    """Row 40: half-sent heads of one address do not touch another client."""
    io = quiet_server(limits=Limits(pending=50))
    async with victim(io, "websocket") as (url, alice), silent(url, 60, GET):
        await assert_undisturbed(io, alice)
        async with session(url, "polling") as bob:
            await enter(bob, sub="bob")
