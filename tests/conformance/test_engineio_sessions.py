"""Engine.IO v4: heartbeats, polling payloads, and the ways in which a session ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx
import pytest

from iogate import Server
from iogate.server.gate.connection import Connection
from tests.conformance.conftest import echo_server
from tests.conformance.wire import (
    Closed,
    Session,
    echoes,
    ends,
    enter,
    polling,
    session,
    websocket,
    within,
)
from tests.servers import serve


def gone(answer: httpx.Response) -> bool:
    """Say whether this is the answer to a request for a session that does not exist."""
    return answer.status_code == 400 and answer.json() == {"code": 1, "message": "Session ID unknown"}


async def talk(opened: Session) -> None:
    """Say something and hear the echo, again and again, until the server has had enough."""
    with suppress(Closed):
        while True:
            await opened.send('42["echo"]')
            await opened.receive_any()


async def test_the_server_pings_and_a_client_that_answers_stays(transport: str) -> None:
    async with serve(echo_server(ping_interval=0.2, ping_timeout=0.2)) as url, session(url, transport) as opened:
        await enter(opened)
        for _ in range(4):  # Longer than a client that does not answer is suffered.
            assert await within(opened.receive_any()) == "2"
            await opened.send("3")
        await echoes(opened)


@pytest.mark.usefixtures("ws")
async def test_a_ping_of_the_websocket_itself_is_answered(url: str) -> None:
    """RFC 6455, section 5.5.2: before it has said who it is, and after."""
    async with websocket(url) as session:
        await within(await session.connection.ping(b"one"))
        await enter(session)
        await within(await session.connection.ping())
        await echoes(session)


async def test_a_client_that_misses_a_ping_is_closed(transport: str) -> None:
    io = echo_server(ping_interval=0.2, ping_timeout=0.2)
    reasons: asyncio.Queue[str] = asyncio.Queue()
    io.on("disconnect", lambda socket, reason: reasons.put_nowait(reason))
    async with serve(io) as url, session(url, transport) as opened:
        await enter(opened)
        await ends(opened)
        assert await within(reasons.get()) == "ping timeout"
        assert await io.fetch_sockets() == []


async def test_traffic_is_no_substitute_for_a_pong(transport: str) -> None:
    async with serve(echo_server(ping_interval=0.2, ping_timeout=0.2)) as url, session(url, transport) as opened:
        await enter(opened)

        await within(talk(opened))


async def test_a_polling_client_that_never_polls_is_closed() -> None:
    io = echo_server(ping_interval=0.2, ping_timeout=0.2)
    reasons: asyncio.Queue[str] = asyncio.Queue()
    io.on("disconnect", lambda socket, reason: reasons.put_nowait(reason))
    async with serve(io) as url, polling(url) as opened:
        await enter(opened)
        assert await within(reasons.get()) == "ping timeout"
        assert gone(await opened.get())


async def test_a_payload_carries_several_packets_both_ways(url: str) -> None:
    async with polling(url) as opened:
        await enter(opened)
        answer = await opened.post('42["echo",1]\x1e42["echo","\u00fc\u6f22"]\x1e421["echo"]')
        assert (answer.status_code, answer.text) == (200, "ok")
        received: list[str | bytes] = []
        while len(received) < 4:
            received.append(await within(opened.receive()))
        assert received == ['42["echo",1]', '42["echo","\u00fc\u6f22"]', '42["echo"]', "431[]"]


async def test_what_waits_is_sent_in_one_payload(url: str) -> None:
    async with polling(url) as opened:
        await enter(opened)
        await opened.post('42["echo",1]\x1e42["echo",2]')
        answer = await within(opened.get())
        assert answer.headers["content-type"].lower().replace(" ", "") == "text/plain;charset=utf-8"
        assert answer.text == '42["echo",1]\x1e42["echo",2]'


async def test_binary_travels_as_base64_on_polling(url: str) -> None:
    async with polling(url) as opened:
        await enter(opened)
        answer = await opened.post('451-["echo",{"_placeholder":true,"num":0}]\x1ebAAECAwQ=')
        assert (answer.status_code, answer.text) == (200, "ok")
        answer = await within(opened.get())
        assert answer.text == '451-["echo",{"_placeholder":true,"num":0}]\x1ebAAECAwQ='


@pytest.mark.usefixtures("ws")
async def test_binary_travels_as_a_binary_frame_on_websocket(url: str) -> None:
    async with websocket(url) as opened:
        await enter(opened)
        await opened.send('451-["echo",{"_placeholder":true,"num":0}]', b"\x00\x01\x02\x03\x04")
        assert await within(opened.receive()) == '451-["echo",{"_placeholder":true,"num":0}]'
        assert await within(opened.receive()) == b"\x00\x01\x02\x03\x04"


async def test_a_second_poll_closes_the_session(url: str) -> None:
    async with polling(url) as opened:
        await enter(opened)
        # Whichever of the two the server sees second is the one too many.
        answers = await within(asyncio.gather(opened.get(), opened.get()))
        first, second = sorted(answers, key=lambda answer: answer.status_code)
        assert (first.status_code, first.text) == (200, "1")
        assert second.status_code == 400
        assert gone(await within(opened.get()))


async def test_overlapping_posts_close_the_session(url: str) -> None:
    async with polling(url) as opened:
        await enter(opened)
        release = asyncio.Event()

        async def slow_body() -> AsyncIterator[bytes]:
            yield b'42["echo"'
            await release.wait()
            yield b"]"

        first = asyncio.create_task(opened.http.post("/socket.io/", params=opened.query, content=slow_body()))
        try:
            # Until the first one has arrived the second is an ordinary one.
            while (answer := await within(opened.post('42["x"]'))).status_code == 200:
                pass
            assert answer.status_code == 400
            assert gone(await within(opened.get()))
        finally:
            release.set()
            assert (await within(first)).status_code == 400


async def test_a_close_packet_ends_the_session_and_releases_the_poll(url: str) -> None:
    async with polling(url) as opened:
        await enter(opened)
        poll = asyncio.create_task(opened.get())
        answer = await opened.post("1")
        assert (answer.status_code, answer.text) == (200, "ok")
        released = await within(poll)
        assert (released.status_code, released.text) in {(200, "6"), (200, "1")} or gone(released)
        assert gone(await within(opened.get()))


@pytest.mark.usefixtures("ws")
async def test_a_close_packet_ends_the_session_on_websocket(io: Server, url: str) -> None:
    reasons: asyncio.Queue[str] = asyncio.Queue()
    io.on("disconnect", lambda socket, reason: reasons.put_nowait(reason))
    async with websocket(url) as opened:
        await enter(opened)
        await opened.send("1")
        await ends(opened)
        assert await within(reasons.get()) == "transport close"


@pytest.mark.usefixtures("ws")
@pytest.mark.parametrize(
    "frame",
    ["", "abc", "7", "9", "0{}", "2", "2probe", "5", "6", "1x", "3x", "-1", "\u0664", '42["a"]\x1e42["b"]'],
    ids=repr,
)
async def test_a_frame_that_is_no_packet_for_a_server_closes_a_websocket(url: str, frame: str) -> None:
    async with websocket(url) as bad, websocket(url) as other:
        await enter(bad)
        await enter(other)
        await bad.send(frame)
        await ends(bad)
        await echoes(other)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"abc",
        b"7",
        b"0{}",
        b"2",
        b"\x1e",
        b'42["echo"]\x1e',
        b'\x1e42["echo"]',
        b"bnot base64!",
        b"bAAE",
        b"4\xff\xfe",
        b'42["\xff"]',
        b'10:42["echo"]',
    ],
    ids=repr,
)
async def test_a_body_that_is_no_payload_closes_a_polling_session(url: str, body: bytes) -> None:
    async with polling(url) as bad, polling(url) as other:
        await enter(bad)
        await enter(other)
        assert (await bad.post(body)).status_code == 400
        assert gone(await within(bad.get()))
        await echoes(other)


@pytest.mark.usefixtures("ws")
async def test_a_text_frame_that_is_not_utf8_closes_a_websocket(url: str) -> None:
    async with websocket(url) as bad:
        await enter(bad)
        await bad.connection.send(b'42["\xff"]', text=True)
        await ends(bad)


@pytest.mark.usefixtures("ws")
async def test_a_client_that_vanishes_is_forgotten(io: Server, url: str) -> None:
    reasons: asyncio.Queue[str] = asyncio.Queue()
    io.on("disconnect", lambda socket, reason: reasons.put_nowait(reason))
    async with websocket(url) as opened:
        await enter(opened)
        opened.connection.transport.abort()
        assert await within(reasons.get()) in {"transport close", "transport error"}
        assert await io.fetch_sockets() == []


async def test_a_poll_that_is_cancelled_by_the_client_closes_the_session(io: Server, url: str) -> None:
    reasons: asyncio.Queue[str] = asyncio.Queue()
    io.on("disconnect", lambda socket, reason: reasons.put_nowait(reason))
    async with polling(url) as opened:
        await enter(opened)
        _, writer = await asyncio.open_connection(opened.http.base_url.host, opened.http.base_url.port)
        target = httpx.URL("/socket.io/", params=opened.query).raw_path.decode()
        writer.write(f"GET {target} HTTP/1.1\r\nHost: {opened.http.base_url.netloc.decode()}\r\n\r\n".encode())
        writer.close()
        await writer.wait_closed()
        assert await within(reasons.get()) in {"transport close", "transport error"}
        assert gone(await within(opened.get()))


@pytest.mark.usefixtures("ws")
async def test_an_error_of_the_server_itself_ends_one_session_and_is_in_the_log(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(connection: Connection, frame: bytes) -> None:
        raise LookupError("something that nobody has foreseen")

    monkeypatch.setattr(Connection, "_control", broken)
    async with websocket(url) as bad, websocket(url) as good:
        await enter(good)
        await bad.send("3")
        await ends(bad)
        await echoes(good)
    assert "something that nobody has foreseen" in caplog.text
    assert "Traceback" in caplog.text
