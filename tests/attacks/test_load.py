"""Rows 36 and 37: floods of bad tokens, and of clients that say nothing.

What they do to others is looked at here, with small limits and on a clock that stands still. What they cost in time
and memory is measured by `python -m benchmarks.compare`: what users wait for under 1000 bad tokens a second, and what
each of 10 000 connections takes.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sized
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from iogate import Limits, Server
from iogate.server.gate.gate import REJECTION_ACK_TIMEOUT
from iogate.server.session.sessions import DRAIN_TIMEOUT
from iogate.testing import FakeClock, advance, settle
from tests import refusals
from tests.attacks.showing import assert_undisturbed, victim
from tests.conformance.conftest import echo_server
from tests.conformance.wire import (
    POLLING,
    WEBSOCKET,
    Session,
    client,
    echoes,
    ends,
    enter,
    polling,
    refused,
    said,
    websocket,
    within,
)
from tests.gate.support import CountingAuth, authenticate, compact, connect, hear
from tests.server.left import leftovers, until
from tests.servers import SECRET, make_token

HOUR = 3600.0
MANY = 200
BAD = make_token(secret="x" * 40)
ELSEWHERE = "192.0.2.77"


class Crowded:
    """A server with small limits, and its verifier, which counts.

    Args:
        limits: the limits.
        auth: settings of `JWTAuth`.
    """

    def __init__(self, *, limits: Limits, **auth: Any) -> None:
        self.clock = FakeClock(wall=time.time())
        self.auth = CountingAuth(secret=SECRET, algorithms=["HS256"], clock=self.clock, refresh_before=0, **auth)
        self.io: Server = echo_server(
            auth=self.auth, clock=self.clock, limits=limits, ping_interval=HOUR, ping_timeout=HOUR
        )


@asynccontextmanager
async def opened(url: str, transport: str, address: str = "127.0.0.1") -> AsyncIterator[Session]:
    """Open a session from an address: uvicorn believes what comes from loopback where it is from."""
    headers = {"x-forwarded-for": address}
    async with polling(url, **headers) if transport == "polling" else websocket(url, **headers) as session:
        yield session


async def show(url: str, transport: str, token: str, address: str = "127.0.0.1") -> Any:
    """Show a token on a connection of its own, and go; return the refusal, or None if there is none."""
    async with opened(url, transport, address) as session:
        await session.send(connect(token))
        answer = str(await within(session.receive()))
        await session.send("1")
        await ends(session)
        return None if answer.startswith("40") else json.loads(answer.removeprefix("44"))


async def status(url: str, transport: str, address: str = "127.0.0.1") -> int:
    """Ask for a session, and return the status of the answer that refuses it."""
    headers = {"x-forwarded-for": address}
    if transport == "websocket":
        return (await refused(url, WEBSOCKET, **headers)).status_code
    async with client(url) as http:
        return (await http.get("/socket.io/", params=POLLING, headers=headers)).status_code


# Row 36: bad tokens.


async def test_a_flood_of_bad_tokens(transport: str) -> None:
    """Row 36: after a few each is answered so; users who are in, at the same address, do not notice."""
    place = Crowded(limits=Limits(failures_per_address=20))
    async with victim(place.io, transport) as (url, alice):
        answers = []
        for _ in range(8):
            shown = [show(url, transport, BAD) for _ in range(25)]
            *told, _ = await asyncio.gather(*shown, echoes(alice))
            answers += told
        assert answers.count(refusals.INVALID) == 21
        assert answers.count(refusals.ATTEMPTS) == len(answers) - 21
        assert len(place.io._core.gate.failures) == 1
        await alice.send(authenticate(sub="alice", jti="new"))
        assert (await hear(alice))[0] == "authenticated"
        assert await show(url, transport, BAD, ELSEWHERE) == refusals.INVALID
        assert await show(url, transport, make_token()) is None
        await assert_undisturbed(place.io, alice)


async def test_a_flood_of_bad_tokens_on_a_few_transports(transport: str) -> None:
    """Row 36: a transport has three attempts, however many it makes at once."""
    place = Crowded(limits=Limits())
    async with victim(place.io, transport) as (url, alice):
        for _ in range(10):
            async with opened(url, transport) as mallory:
                await mallory.send(*[connect(BAD)] * 50)
                assert await said(mallory) == ["44" + compact(refusals.INVALID)] * 3
            await echoes(alice)
        assert place.auth.verified == 1 + 10 * 3
        await assert_undisturbed(place.io, alice)


ADDRESSES = {
    "of IPv4": ([f"198.51.100.{number}" for number in range(150)], 50),
    "in networks of IPv6": ([f"2001:db8:0:{number:x}::1" for number in range(150)], 50),
    "in one network of IPv6": ([f"2001:db8::{number:x}" for number in range(150)], 1),
}


@pytest.mark.parametrize(("addresses", "remembered"), ADDRESSES.values(), ids=ADDRESSES)
async def test_a_flood_of_bad_tokens_from_everywhere(
    transport: str, addresses: list[str], remembered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 36: no more addresses are remembered than there is room for, and a network of IPv6 is one of them."""
    monkeypatch.setattr("iogate.server.gate.limits.MAX_ADDRESSES", 50)
    place = Crowded(limits=Limits(failures_per_address=1))
    async with victim(place.io, transport) as (url, alice):
        answers = []
        for start in range(0, 150, 30):
            told = await asyncio.gather(*(show(url, transport, BAD, one) for one in addresses[start : start + 30]))
            answers += told
            await echoes(alice)
        assert len(place.io._core.gate.failures) == remembered
        assert answers.count(refusals.INVALID) == (150 if remembered == 50 else 2)
        assert await show(url, transport, make_token()) is None
        await assert_undisturbed(place.io, alice)


async def test_a_flood_of_tokens_whose_verdict_does_not_come(transport: str) -> None:
    """Row 36: who hangs at the gate hangs there alone, no more of them than allowed, and until the deadline."""
    place = Crowded(limits=Limits(pending_per_address=50))
    io = place.io
    async with victim(io, transport) as (url, alice), AsyncExitStack() as stack:
        before = leftovers(io)
        stuck = asyncio.Event()
        io.use(lambda socket: stuck.wait() if socket.principal.subject == "mallory" else None)
        crowd = [await stack.enter_async_context(opened(url, transport)) for _ in range(50)]
        for one in crowd:
            await one.send(connect(sub="mallory"))
        await until(lambda: len(io._core.gate.decision_timeout) == 50)
        assert await status(url, transport) == 429
        assert await show(url, transport, make_token(), ELSEWHERE) is None
        await echoes(alice)
        await advance(io, 10.0)
        for one in crowd:
            assert await said(one) == ["44" + compact(refusals.UNAVAILABLE)]
        await until(lambda: leftovers(io) == before)
        await assert_undisturbed(io, alice)


# Row 37: clients that say nothing.


async def is_silent(crowd: list[Session]) -> None:
    """Say nothing."""


async def waits_outside(crowd: list[Session]) -> None:
    """Ask to be let in, without a token, and say nothing then."""
    for one in crowd:
        await one.send("40")
        assert str(await within(one.receive())).startswith('40{"sid":')


async def sends_pongs(crowd: list[Session]) -> None:
    """Answer pings that nobody has sent."""
    for one in crowd:
        await one.send("3")


@pytest.mark.parametrize("does", [is_silent, waits_outside, sends_pongs], ids=lambda does: does.__name__)
async def test_a_crowd_that_never_shows_a_token(
    transport: str, does: Callable[[list[Session]], Awaitable[None]]
) -> None:
    """Row 37: there are no more of an address than allowed, all are gone at the deadline, and nothing of them stays."""
    settings: dict[str, Any] = {"authenticate_within": 10.0} if does is waits_outside else {}
    place = Crowded(limits=Limits(pending_per_address=MANY), **settings)
    io = place.io
    async with victim(io, transport) as (url, alice), AsyncExitStack() as stack:
        before = leftovers(io)
        crowd: list[Session] = []
        while len(crowd) < MANY:
            more = (stack.enter_async_context(opened(url, transport)) for _ in range(20))
            crowd += await asyncio.gather(*more)
        await does(crowd)
        if does is waits_outside:
            for other in ("polling", "websocket"):
                assert await status(url, other) == 429
        else:  # Who has asked for nothing makes room.
            assert await show(url, transport, make_token()) is None
        assert all(len(table) <= MANY + 1 for table in leftovers(io).values() if isinstance(table, Sized))
        async with opened(url, transport, ELSEWHERE) as friend:
            await enter(friend)
            await advance(io, 9.875)
            assert len(io._core.sessions.table) == MANY + 2 - (does is not waits_outside)
            await echoes(alice)
            await advance(io, 0.125)
            if does is waits_outside:  # They are told, and given a moment to read it.
                await advance(io, REJECTION_ACK_TIMEOUT)
            assert len(io._core.sessions.table) == 2
            await echoes(friend)
            await friend.send("1")
        for one in crowd:
            await ends(one)
        await settle()
        await advance(io, DRAIN_TIMEOUT)
        await until(lambda: leftovers(io) == before)
        assert await show(url, transport, make_token()) is None
        await assert_undisturbed(io, alice)


async def test_a_crowd_of_many_addresses(transport: str) -> None:
    """Row 37: there is a limit for all of them together, too; who is in, and who has a session, goes on."""
    place = Crowded(limits=Limits(pending=100, pending_per_address=10), authenticate_within=10.0)
    io = place.io
    async with victim(io, transport) as (url, alice), AsyncExitStack() as stack:
        late = await stack.enter_async_context(opened(url, transport))
        crowd = [
            await stack.enter_async_context(opened(url, transport, f"198.51.100.{number}")) for number in range(99)
        ]
        await waits_outside([late, *crowd])
        for address in ("198.51.100.200", "127.0.0.1"):
            assert await status(url, transport, address) == 429
        await echoes(alice)
        await enter(late, sub="late")
        await echoes(late)
        assert await show(url, transport, make_token()) is None
        await advance(io, 10.0)
        await advance(io, REJECTION_ACK_TIMEOUT)
        assert len(io._core.sessions.table) == 2
        await assert_undisturbed(io, alice)
