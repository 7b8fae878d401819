"""Limits on everything that a peer can send: it is refused clearly, and somebody else does not even notice."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from iogate import Server, Socket
from tests.conformance.conftest import echo_server
from tests.conformance.wire import Session, echoes, ends, enter, polling, session, websocket, within
from tests.servers import make_token, serve

MEGABYTE = 1_000_000


@asynccontextmanager
async def bystander(url: str) -> AsyncIterator[None]:
    """Have somebody else connected, who must be served all the same."""
    async with websocket(url) as other:
        await enter(other)
        yield
        await echoes(other)


def padded(size: int) -> str:
    """Return an event that nobody handles, of exactly this size in bytes."""
    empty = '42["x",""]'
    return f'42["x","{"x" * (size - len(empty))}"]'


async def test_a_body_of_a_megabyte_is_taken_and_one_byte_more_is_refused(url: str) -> None:
    async with bystander(url), polling(url) as opened:
        await enter(opened)
        answer = await opened.post(padded(MEGABYTE))
        assert (answer.status_code, answer.text) == (200, "ok")
        await echoes(opened)
        assert (await opened.post(padded(MEGABYTE + 1))).status_code == 413
        await ends(opened)


@pytest.mark.usefixtures("ws")
async def test_a_frame_of_a_megabyte_is_taken_and_one_byte_more_is_refused(url: str) -> None:
    async with bystander(url), websocket(url) as opened:
        await enter(opened)
        await opened.send(padded(MEGABYTE))
        await echoes(opened)
        await opened.send(padded(MEGABYTE + 1))
        assert (await ends(opened)).code == 1009


@pytest.mark.usefixtures("ws")
async def test_a_binary_frame_is_limited_too(url: str) -> None:
    async with bystander(url), websocket(url) as opened:
        await enter(opened)
        await opened.send('451-["x",{"_placeholder":true,"num":0}]', b"x" * (MEGABYTE + 1))
        assert (await ends(opened)).code == 1009


async def test_max_payload_holds_on_both_transports(transport: str) -> None:
    async with serve(echo_server(max_payload=2000)) as url, session(url, transport) as opened:
        await enter(opened)
        await opened.send(padded(2000))
        await echoes(opened)
        await opened.send(padded(2001))
        await ends(opened)


async def test_as_many_attachments_as_allowed_are_taken(transport: str) -> None:
    async with serve(echo_server(max_attachments=3)) as url, session(url, transport) as opened:
        await enter(opened)
        places = ",".join(f'{{"_placeholder":true,"num":{number}}}' for number in range(3))
        await opened.send(f'453-["echo",{places}]', b"0", b"1", b"2")
        assert await within(opened.receive()) == f'453-["echo",{places}]'
        assert [await within(opened.receive()) for _ in range(3)] == [b"0", b"1", b"2"]
        await opened.send(f'454-["echo",{places}]')
        await ends(opened)


async def test_many_namespaces_are_refused(io: Server, url: str, transport: str) -> None:
    io.of(re.compile(r"/n\d+"))
    async with bystander(url), session(url, transport) as opened:
        await enter(opened)
        await opened.send(*(f"40/n{number}," for number in range(200)))
        await ends(opened)
        assert len(await io.of("/n1").fetch_sockets()) == 0


@pytest.mark.parametrize("brackets", ["[", '{"a":'], ids=["lists", "objects"])
@pytest.mark.parametrize("depth", [101, 10_000, 150_000])
async def test_deep_nesting_is_refused(url: str, transport: str, brackets: str, depth: int) -> None:
    closing = "]" if brackets == "[" else "}"
    async with bystander(url), session(url, transport) as opened:
        await enter(opened)
        await opened.send('42["echo",' + brackets * depth + "1" + closing * depth + "]")
        await ends(opened)


async def test_nesting_within_reason_is_taken(url: str, transport: str) -> None:
    nested = '42["echo",' + "[" * 50 + "]" * 50 + "]"
    async with session(url, transport) as opened:
        await enter(opened)
        await opened.send(nested)
        assert await within(opened.receive()) == nested


async def test_a_payload_of_connect_that_is_deep_is_refused(url: str, transport: str) -> None:
    async with bystander(url), session(url, transport) as opened:
        await opened.send('40{"token":' + "[" * 100_000 + "]" * 100_000 + "}")
        await ends(opened)


async def test_who_does_not_fetch_what_is_written_to_him_is_closed() -> None:
    io = echo_server(max_buffered=100_000)
    reasons: asyncio.Queue[str] = asyncio.Queue()
    io.on("disconnect", lambda socket, reason: reasons.put_nowait(reason))
    async with serve(io) as url, bystander(url), polling(url) as opened:
        sid = await enter(opened)
        for _ in range(100):
            io.to(sid).emit("news", "x" * 1500)
        assert await within(reasons.get()) == "slow consumer"
        await ends(opened)


@pytest.mark.usefixtures("ws")
async def test_who_does_not_read_what_is_written_to_him_is_closed() -> None:
    io = echo_server()
    reasons: asyncio.Queue[str] = asyncio.Queue()
    io.on("disconnect", lambda socket, reason: reasons.put_nowait(reason))
    async with serve(io) as url, bystander(url), websocket(url) as opened:
        sid = await enter(opened)
        opened.connection.transport.pause_reading()
        for _ in range(1000):  # More than the buffers of the kernel hold.
            io.to(sid).emit("news", "x" * 100_000)
            await asyncio.sleep(0)
            if not reasons.empty():
                break
        assert await within(reasons.get()) == "slow consumer"


async def test_the_handlers_of_one_client_do_not_keep_another_waiting(io: Server, url: str, transport: str) -> None:
    stuck = asyncio.Event()

    @io.on("stuck")
    async def wait(socket: Socket) -> None:
        await stuck.wait()

    async with session(url, transport) as busy, session(url, transport) as other:
        await enter(busy)
        await enter(other)
        for _ in range(3):
            await flood(busy)
        await echoes(other)
        stuck.set()


async def flood(opened: Session) -> None:
    """Send events whose handlers do not come to an end."""
    sending = asyncio.create_task(opened.send(*(['42["stuck"]'] * 400)))
    await asyncio.wait([sending], timeout=0.2)


async def test_a_token_at_the_limit_of_its_size_is_judged_and_not_only_measured(url: str, transport: str) -> None:
    token = make_token(pad="x" * 5000)
    assert len(token) < 8192
    async with session(url, transport) as opened:
        await opened.send("40" + json.dumps({"token": token}))
        assert str(await within(opened.receive())).startswith('40{"sid":"')
