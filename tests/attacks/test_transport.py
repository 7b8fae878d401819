"""Rows 24 to 27: pages, URLs, and what is sent on a transport."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import httpx
import pytest

from iogate import AuthPayload, BearerHeader, Limits, Query, Server
from iogate.testing import FakeClock, advance
from tests import refusals
from tests.attacks.bounds import SMALL, peak_below
from tests.attacks.showing import assert_undisturbed, victim
from tests.conformance.conftest import echo_server
from tests.conformance.wire import (
    POLLING,
    WEBSOCKET,
    Polling,
    Session,
    WebSocket,
    client,
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
from tests.gate.support import compact, connect, make_auth
from tests.server.left import until
from tests.servers import make_token

MEGABYTE = 1_000_000

# Row 24.

FORBIDDEN = {"code": 4, "message": "Forbidden"}
PAGE = "https://app.example.com"

NEARLY = [
    "https://app.example.com.evil.test",
    "https://evil-app.example.com",
    "https://evil.test/https://app.example.com",
    "https://app.example.co",
    "https://example.com",
    "https://sub.app.example.com",
    "http://app.example.com",
    "https://app.example.com:8443",
    "https://app.example.com:443",
    "https://app.example.com/",
    "https://app.example.com@evil.test",
    "https://user@app.example.com",
    "https://APP.example.com",
    "HTTPS://app.example.com",
    "https://app.example.com https://evil.test",
    "https://app.example.com, https://evil.test",
    "https://app\u0435xample.com".encode().decode("latin-1"),
    "null",
    "",
    "file://",
    "*",
]

ELSEWHERE = [
    "https://{host}:{port}",
    "http://{host}",
    "http://{host}:1{port}",
    "http://{host}:{port}.evil.test",
    "http://evil.{host}:{port}",
    "http://localhost:{port}",
    "http://{host}:{port}/",
    "http://{host}:{port}@evil.test",
    "null",
    "https://evil.test",
]


@pytest.mark.usefixtures("ws")
@pytest.mark.parametrize("origin", NEARLY)
async def test_a_page_whose_origin_looks_like_an_allowed_one(origin: str) -> None:
    """Row 24."""
    io = echo_server(cors_allowed_origins=[PAGE])
    async with victim(io, "polling") as (url, alice):
        await nobody_connects(url, origin, alice)
        await assert_undisturbed(io, alice)


@pytest.mark.usefixtures("ws")
@pytest.mark.parametrize("variant", ELSEWHERE)
async def test_a_page_of_another_origin_where_none_is_allowed(variant: str) -> None:
    """Row 24."""
    io = echo_server()
    async with victim(io, "polling") as (url, alice):
        host, port = url.removeprefix("http://").split(":")
        await nobody_connects(url, variant.format(host=host, port=port), alice)
        await assert_undisturbed(io, alice)


async def nobody_connects(url: str, origin: str, alice: Session) -> None:
    """Make sure that this origin gets nowhere: neither to a session of its own nor to somebody else's."""
    header = origin.encode("latin-1")
    query = {**POLLING, "sid": alice.handshake["sid"]}
    async with client(url) as http:
        for answer in (
            await http.get("/socket.io/", params=POLLING, headers={b"Origin": header}),
            await http.get("/socket.io/", params=query, headers={b"Origin": header}),
            await http.post("/socket.io/", params=query, headers={b"Origin": header}, content="41"),
        ):
            assert (answer.status_code, answer.json()) == (403, FORBIDDEN)
            assert "access-control-allow-origin" not in answer.headers
    for parameters in (WEBSOCKET, {**query, "transport": "websocket"}):
        told = await refused(url, parameters, Origin=origin)
        assert (told.status_code, json.loads(told.body)) == (403, FORBIDDEN)


# Row 25.


async def test_a_token_in_the_url_of_a_server_that_does_not_ask_for_it(transport: str) -> None:
    """Row 25: it is not read."""
    io = echo_server()
    async with victim(io, transport) as (url, alice):
        assert await with_url(url, transport, token=make_token()) == ["44" + compact(refusals.REQUIRED)]
        await assert_undisturbed(io, alice)


async def test_no_token_of_any_url_is_in_a_log(transport: str, caplog: pytest.LogCaptureFixture) -> None:
    """Row 25: whatever becomes of the request, and however the name of the parameter is written."""
    io = echo_server(auth=make_auth(sources=(AuthPayload(), BearerHeader(), Query("token"))), limits=Limits(pending=5))
    tokens = {name: make_token(jti=name) for name in ("good", "refused", "twice", "encoded", "foreign", "old", "full")}
    tokens["bad"] = make_token(jti="bad", secret="y" * 40)
    # Not the lines of httpx, which plays the client and writes its own URLs; at DEBUG, servers may show every byte.
    caplog.set_level(logging.WARNING, logger="httpx")
    with caplog.at_level(logging.INFO), caplog.at_level(logging.DEBUG, logger="iogate"):
        async with victim(io, transport) as (url, alice):
            assert (await with_url(url, transport, token=tokens["good"], wait=False))[0].startswith('40{"sid"')
            assert await with_url(url, transport, token=tokens["bad"]) == ["44" + compact(refusals.INVALID)]
            both = f"{tokens['refused']}&token={tokens['twice']}"
            for query, headers in (
                (f"EIO=4&transport={transport}&token={both}", {"Authorization": f"Bearer {tokens['refused']}"}),
                (f"EIO=4&transport={transport}&%74oken={tokens['encoded']}&t%6Fken={tokens['encoded']}", {}),
                (f"token={tokens['foreign']}&EIO=4&transport={transport}", {"Origin": "https://evil.test"}),
                (f"EIO=3&transport={transport}&token={tokens['old']}", {}),
                (f"EIO=4&transport={transport}&sid=none&token={tokens['old']}", {}),
            ):
                await ask(url, transport, query, headers)
            async with AsyncExitStack() as stack:
                while len(io._core.sessions.pending) < 5:
                    await stack.enter_async_context(websocket(url))
                # The oldest transport that has asked for nothing makes room.
                answer = await ask(url, transport, f"EIO=4&transport={transport}&token={tokens['full']}", {})
                assert answer in {101, 200}
            await assert_undisturbed(io, alice)
    written = caplog.text + "".join(repr(record.args) for record in caplog.records)
    assert written.count("transport=") >= 7  # The access log of the ASGI server was on.
    for token in tokens.values():
        assert token not in written
        assert token.rpartition(".")[2] not in written


async def with_url(url: str, transport: str, *, token: str, wait: bool = True) -> list[str]:
    """Connect with a token in the URL; return all that is said, or the first of it."""
    if transport == "polling":
        async with client(url) as http:
            polled = Polling(http)
            answer = await http.get("/socket.io/", params={**POLLING, "token": token})
            polled.handshake = json.loads(answer.text[1:])
            return await _answers(polled, wait)
    async with raw_websocket(url, {**WEBSOCKET, "token": token}) as connection:
        over = WebSocket(connection)
        await over.open()
        return await _answers(over, wait)


async def _answers(opened: Session, wait: bool) -> list[str]:
    await opened.send("40")
    return [str(packet) for packet in (await said(opened) if wait else [await within(opened.receive())])]


async def ask(url: str, transport: str, query: str, headers: dict[str, str]) -> int:
    """Send the first request of a session, with a query string as it is; return the status."""
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    async with client(url) as http:
        if transport == "websocket":
            headers = {**headers, **upgrade, "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
        async with http.stream("GET", f"/socket.io/?{query}", headers=headers) as answer:
            return answer.status_code


# Row 26.

ATTACHED = '-["echo",{"_placeholder":true,"num":0}]'


@pytest.mark.parametrize(
    "packets",
    [
        ['42["echo"]'],
        ['421["echo"]'],
        ["451" + ATTACHED, b"\x00"],
        ["431[]"],
        ["41"],
        ['42["authenticate",{"token":"x"}]'],
        ['42/other,["echo"]'],
        [connect(), '42/other,["echo"]'],
    ],
    ids=lambda packets: str(packets).partition("eyJ")[0],  # A token differs from one collection to the next.
)
async def test_an_event_before_connect(transport: str, packets: list[str | bytes]) -> None:
    """Row 26: it ends the connection, and is handled by nobody."""
    handled: list[str] = []
    io = echo_server()
    for namespace in (io.of("/"), io.of("/other")):
        namespace.on("*", lambda socket, event, *args: handled.append(event))
    async with victim(io, transport) as (url, alice):
        async with session(url, transport) as mallory:
            await mallory.send(*packets)
            await ends(mallory)
        assert handled == []
        await assert_undisturbed(io, alice)


async def test_an_event_that_overtakes_the_verdict(transport: str) -> None:
    """Row 26."""
    handled: list[str] = []
    io = echo_server()
    io.on("*", lambda socket, event, *args: handled.append(event))
    async with victim(io, transport) as (url, alice):
        stuck = asyncio.Event()

        @io.use
        async def slow(socket: Any) -> None:
            await stuck.wait()

        async with session(url, transport) as mallory:
            await mallory.send(connect(), '42["echo","too early"]')
            assert '42["echo","too early"]' not in await within(said(mallory))
        assert handled == []
        await assert_undisturbed(io, alice)


async def silent(mallory: Session, second: int) -> None:
    """Say nothing."""


async def answers_pings(mallory: Session, second: int) -> None:
    """Answer the pings, one in two seconds."""
    if second and second % 2 == 0:
        assert await within(mallory.receive_any()) == "2"
        await mallory.send("3")


async def sends_pongs(mallory: Session, second: int) -> None:
    """Answer pings that nobody has sent."""
    await mallory.send("3")


class Trickle:
    """Send one byte at a time of a message that has no end: in fragments, or in the body of a request."""

    def __init__(self) -> None:
        self._bytes: asyncio.Queue[bytes] = asyncio.Queue()
        self._sending: asyncio.Task[Any] | None = None

    async def __call__(self, mallory: Session, second: int) -> None:
        self._bytes.put_nowait(b'40{"token":"'[second : second + 1])
        if self._sending is None:
            self._sending = asyncio.create_task(self._send(mallory))

    async def _send(self, mallory: Session) -> None:
        with suppress(httpx.HTTPError):
            if isinstance(mallory, Polling):
                await mallory.http.post("/socket.io/", params=mallory.query, content=self._drops())
            else:
                assert isinstance(mallory, WebSocket)
                async for drop in self._drops():
                    mallory.connection.transport.write(frame(0 if self._begun else 1, drop, fin=False))
                    self._begun = True

    _begun = False

    async def _drops(self) -> AsyncIterator[bytes]:
        while True:
            yield await self._bytes.get()

    async def stop(self) -> None:
        """Send no more."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait([self._sending])


Chatter = Callable[[Session, int], Awaitable[None]]


@pytest.mark.parametrize("chatter", [silent, answers_pings, sends_pongs], ids=lambda chatter: chatter.__name__)
async def test_a_session_that_never_asks_to_be_let_in(transport: str, chatter: Chatter) -> None:
    """Row 26: it ends at the deadline, whatever it says meanwhile, and not before."""
    await ends_at_the_deadline(transport, chatter)


async def test_a_connect_that_trickles_in(transport: str) -> None:
    """Row 26: a byte a second is no reason to wait."""
    trickle = Trickle()
    try:
        await ends_at_the_deadline(transport, trickle)
    finally:
        await trickle.stop()


async def ends_at_the_deadline(transport: str, chatter: Chatter) -> None:
    """Open a session that says something every second, and make sure that it has ten of them."""
    io = echo_server(clock=FakeClock(), connect_timeout=10.0, ping_interval=2.0)
    async with victim(io, transport) as (url, alice), session(url, transport) as mallory:
        for second in range(10):
            await chatter(mallory, second)
            assert len(io._core.sessions.table) == 2
            await advance(io, 1.0 if second < 9 else 0.999)
        (theirs,) = (one.transport for one in io._core.sessions.table.values() if not one.sockets)
        await advance(io, 0.001)
        assert len(io._core.sessions.table) == 1
        await ends(mallory)
        await until(lambda: getattr(theirs, "_body", None) is None)  # A POST that has not ended is read no further.
        await assert_undisturbed(io, alice)


@pytest.mark.usefixtures("ws")
async def test_an_upgrade_that_is_to_gain_time() -> None:
    """Row 26: the deadline is that of the session, whatever transport it moves to."""
    io = echo_server(clock=FakeClock(), connect_timeout=10.0)
    async with victim(io, "websocket") as (url, alice), polling(url) as before:
        await advance(io, 9.0)
        async with raw_websocket(url, {**WEBSOCKET, "sid": before.handshake["sid"]}) as connection:
            await probe(connection)
            await connection.send("5")
            await until(lambda: all(one.transport.name == "websocket" for one in io._core.sessions.table.values()))
            await advance(io, 1.0)
            assert len(io._core.sessions.table) == 1
            assert await said(WebSocket(connection)) == []
        await assert_undisturbed(io, alice)


# Row 27.


def small_server(**settings: Any) -> Server:
    """Return a server that takes little at once, so that what it allocates besides shows."""
    return echo_server(**{"max_payload": 20_000, **settings})


async def assert_cut_off(io: Server, transport: str, *packets: str | bytes) -> None:
    """Let somebody who is in send packets, and make sure that he is out, at little cost, and alone."""
    async with victim(io, transport) as (url, alice):
        async with session(url, transport) as mallory:
            await enter(mallory, sub="mallory")
            with peak_below(SMALL):
                await mallory.send(*packets)
                await ends(mallory)
        await assert_undisturbed(io, alice)


@pytest.mark.parametrize(
    "announced", ["11", "1000000000", "9" * 100, "00000000000001", "-1", "\u0661"], ids=lambda value: value[:12]
)
async def test_more_attachments_than_anybody_sends(transport: str, announced: str) -> None:
    """Row 27: they are refused when they are announced, and nothing is prepared for them."""
    await assert_cut_off(small_server(), transport, f"45{announced}{ATTACHED}")


async def test_attachments_that_never_come(transport: str) -> None:
    """Row 27: the connection ends when they are overdue, although it answers the pings."""
    io = small_server(clock=FakeClock(), ping_interval=8.0, ping_timeout=10.0)
    async with victim(io, transport) as (url, alice), session(url, transport) as mallory:
        await enter(mallory, sub="mallory")
        await mallory.send("452" + ATTACHED, b"the first")
        await until(lambda: len(io._core.sessions.attachment_timeout) == 1)
        await advance(io, 8.0)
        assert await within(mallory.receive_any()) == "2"
        await mallory.send("3")
        await advance(io, 1.999)
        assert len(io._core.sessions.table) == 2
        await advance(io, 0.001)
        assert len(io._core.sessions.table) == 1
        assert await said(mallory) == []
        await assert_undisturbed(io, alice)


BODIES = {
    "ten thousand events": "\x1e".join(['42["x"]'] * 10_000),
    "half a million packets": "\x1e".join("3" * 500_000),
    "a million separators": "\x1e" * (MEGABYTE - 1),
    "a million attachments": "\x1e".join("b" * 500_000),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_a_polling_payload_of_very_many_packets(body: str) -> None:
    """Row 27: they are counted before the first is looked at; what they cost is a few copies of the body."""
    io = echo_server()
    async with victim(io, "polling") as (url, alice), polling(url) as mallory:
        await enter(mallory, sub="mallory")
        with peak_below(6 * MEGABYTE):
            assert (await mallory.post(body)).status_code == 400
        await ends(mallory)
        await assert_undisturbed(io, alice)


async def test_a_polling_body_without_end() -> None:
    """Row 27: what comes after `max_payload` is not kept."""

    async def body() -> AsyncIterator[bytes]:
        for _ in range(5000):
            yield b"x" * 1000

    io = small_server()
    async with victim(io, "polling") as (url, alice), polling(url) as mallory:
        await enter(mallory, sub="mallory")
        with peak_below(SMALL), suppress(httpx.WriteError, httpx.ReadError):
            answer = await mallory.http.post("/socket.io/", params=mallory.query, content=body())
            assert answer.status_code == 413
        await ends(mallory)
        await assert_undisturbed(io, alice)


@pytest.mark.parametrize("digits", [17, 100, 5000])
async def test_an_ack_id_of_many_digits(transport: str, digits: int) -> None:
    """Row 27."""
    await assert_cut_off(small_server(), transport, "42" + "9" * digits + '["echo"]')


async def test_an_ack_id_of_nearly_a_megabyte(transport: str) -> None:
    """Row 27."""
    io = echo_server()
    async with victim(io, transport) as (url, alice), session(url, transport) as mallory:
        await enter(mallory, sub="mallory")
        await mallory.send("42" + "9" * 900_000 + '["echo"]')
        await ends(mallory)
        await assert_undisturbed(io, alice)


@pytest.mark.parametrize("length", [300, 19_000, 999_990])
async def test_a_long_name_of_a_namespace(transport: str, length: int) -> None:
    """Row 27: also before anybody is let in."""
    io = echo_server()
    async with victim(io, transport) as (url, alice), session(url, transport) as mallory:
        await mallory.send(f"40/{'n' * length},")
        assert await said(mallory) == []
        await assert_undisturbed(io, alice)


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, size: int | None = None) -> bytes:
    """Return a frame of a client (RFC 6455, section 5.2), masked with nothing.

    Args:
        opcode: 0 for a further fragment, 1 for text, 2 for binary.
        payload: what is in it.
        fin: whether the message ends with it.
        size: how long it says that it is.
    """
    size = len(payload) if size is None else size
    head = bytes([opcode | (0x80 if fin else 0)])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 2**16:
        head += b"\xfe" + size.to_bytes(2, "big")
    else:
        head += b"\xff" + size.to_bytes(8, "big")
    return head + bytes(4) + payload


@pytest.mark.parametrize("opcode", [1, 2], ids=["text", "binary"])
@pytest.mark.parametrize("size", [20_000_000, 2**40, 2**63 - 1])
async def test_a_frame_that_says_that_it_is_huge(ws: str, size: int, opcode: int) -> None:
    """Row 27: it is refused by what it says, and no memory is kept ready for it."""
    io = small_server()
    async with victim(io, "websocket") as (url, alice), websocket(url) as mallory:
        with peak_below(SMALL):
            mallory.connection.transport.write(frame(opcode, b"4", size=size))
            assert (await ends(mallory)).code == 1009
        await assert_undisturbed(io, alice)


@pytest.mark.usefixtures("ws")
async def test_fragments_that_are_too_large_together() -> None:
    """Row 27."""
    io = small_server()
    async with victim(io, "websocket") as (url, alice), websocket(url) as mallory:
        write = mallory.connection.transport.write
        write(frame(1, b'42["', fin=False))
        for _ in range(101):
            write(frame(0, b"x" * 200, fin=False))
        write(frame(0, b'"]'))
        assert (await ends(mallory)).code == 1009
        await assert_undisturbed(io, alice)


@pytest.mark.parametrize("drop", [b"", b"x"], ids=["empty", "of one byte"])
async def test_very_many_tiny_fragments(monkeypatch: pytest.MonkeyPatch, drop: bytes) -> None:
    """Row 27: a message has a thousand fragments at most, and they take little memory."""
    monkeypatch.setattr("tests.servers.WS", "uvicorn-picows")
    io = small_server(max_payload=100_000)
    many = frame(0, drop, fin=False) * 1000
    async with victim(io, "websocket") as (url, alice), websocket(url) as mallory:
        await enter(mallory, sub="mallory")
        with peak_below(SMALL):
            mallory.connection.transport.write(frame(1, b'42["echo","', fin=False) + 2 * many)
            assert (await ends(mallory)).code == 1009
        await assert_undisturbed(io, alice)
