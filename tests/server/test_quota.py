"""What is done in one turn of the event loop, and what waits for the next."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack
from functools import partial

import pytest

from iogate.server.session.heads import Quota
from iogate.server.session.reasons import CloseReason
from iogate.transports.uvicorn_websocket import WebSocketProtocol
from tests.attacks.bounds import FullQuota
from tests.conformance.wire import ends, session, within
from tests.gate.support import CountingAuth, connect
from tests.server.left import until
from tests.servers import SECRET, make_server, serve


async def test_a_few_pieces_a_turn() -> None:
    quota = Quota(2)
    for _ in range(3):
        assert [quota.take(1) for _ in range(4)] == [True, True, False, False]
        await asyncio.sleep(0)


async def test_large_pieces_take_more_of_a_turn() -> None:
    quota = Quota(2)
    for _ in range(3):
        assert [quota.take(size) for size in (1, 2, 1)] == [True, True, False]
        await asyncio.sleep(0)
    done: list[int] = []
    assert quota.take(2)
    for size in (1, 1, 2, 2, 1):
        quota.later(partial(done.append, size), size)
    seen = []
    for _ in range(4):
        await asyncio.sleep(0)
        seen.append(list(done))
    assert seen == [[1, 1], [1, 1, 2], [1, 1, 2, 2], [1, 1, 2, 2, 1]]


async def test_what_waits_is_done_in_order_and_before_what_comes_later() -> None:
    quota = Quota(2)
    done: list[int] = []
    assert [quota.take(1) for _ in range(3)] == [True, True, False]
    for number in range(5):
        quota.later(partial(done.append, number), 1)
    seen = []
    for _ in range(3):
        await asyncio.sleep(0)
        seen.append((len(quota), list(done), quota.take(1)))
    assert seen == [(3, [0, 1], False), (1, [0, 1, 2, 3], False), (0, [0, 1, 2, 3, 4], True)]


async def test_a_piece_that_fails_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    quota = Quota(1)
    done: list[int] = []
    assert [quota.take() for _ in range(2)] == [True, False]

    def fail() -> None:
        raise ValueError("broken")

    quota.later(fail)
    quota.later(partial(done.append, 1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert done == [1]
    assert "broken" in caplog.text


def test_the_next_event_loop_has_all_of_it() -> None:
    quota = Quota(1)

    async def use() -> bool:
        taken = quota.take()
        if taken and not quota.take():
            for _ in range(9):
                quota.later(lambda: None)
        assert len(quota) == 9
        return taken

    assert asyncio.run(use())
    assert asyncio.run(use())


async def test_websockets_take_turns_before_the_verdict() -> None:
    """Row 40: users wait for the data of one other WebSocket at most, however many send at once."""
    auth = CountingAuth(secret=SECRET, algorithms=["HS256"])
    io = make_server(auth=auth)
    async with serve(io, "uvicorn-websockets") as url, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(session(url, "websocket")) for _ in range(20)]
        for client in clients:
            await client.send(connect())
        verified = [0]
        async with asyncio.timeout(10):
            while verified[-1] < len(clients):  # Look in each turn, from the first one on.
                await asyncio.sleep(0)
                verified.append(auth.verified)
        assert max(after - before for before, after in itertools.pairwise(verified)) == 1


async def test_a_websocket_waits_for_its_turn_until_it_is_admitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing more is read from it while it waits."""
    io = make_server()
    io.on("echo", lambda socket, text: text)
    protocols: list[WebSocketProtocol] = []
    connection_made = WebSocketProtocol.connection_made

    def note(self: WebSocketProtocol, transport: asyncio.Transport) -> None:
        protocols.append(self)
        connection_made(self, transport)

    monkeypatch.setattr(WebSocketProtocol, "connection_made", note)
    async with serve(io, "uvicorn-websockets") as url, session(url, "websocket") as client:
        io._core.heads.quota = full = FullQuota(1)
        await client.send(connect())
        await until(lambda: len(full) == 1)
        assert not io.of("/").sockets
        assert not protocols[0].transport.is_reading()
        full.begin_waiting()
        assert (await within(client.receive())).startswith("40{")
        await client.send('421["echo","x"]')
        assert await within(client.receive()) == '431["x"]'


async def test_a_websocket_that_goes_while_it_waits_for_its_turn() -> None:
    auth = CountingAuth(secret=SECRET, algorithms=["HS256"])
    io = make_server(auth=auth)
    async with serve(io, "uvicorn-websockets") as url:
        async with session(url, "websocket") as client:
            io._core.heads.quota = full = FullQuota(1)
            await client.send(connect())
            await until(lambda: len(full) == 1)
            (connection,) = io._core.sessions.table.values()
            connection.close(CloseReason.SERVER_SHUTDOWN)
            await ends(client)
        full.begin_waiting()
        await until(lambda: not io._core.sessions.table)
    assert not auth.verified
