"""Time passes when the test says so, and what is due happens at its own moment."""

from __future__ import annotations

import pytest

from iogate import ConfigurationError, Server, Socket
from iogate.testing import FakeClock, InMemoryClient, TokenFactory, advance


def test_a_fake_clock_stands_still_and_advances_on_both_halves() -> None:
    clock = FakeClock(wall=100.0, monotonic=5.0)
    assert (clock.wall(), clock.monotonic()) == (100.0, 5.0)
    clock.advance(2.5)
    assert (clock.wall(), clock.monotonic()) == (102.5, 7.5)


def test_the_wall_clock_can_be_set_without_the_monotonic_one() -> None:
    clock = FakeClock(wall=100.0, monotonic=5.0)
    clock.set_wall(40.0)
    assert (clock.wall(), clock.monotonic()) == (40.0, 5.0)


def test_time_does_not_run_backwards() -> None:
    with pytest.raises(ValueError, match="backwards"):
        FakeClock().advance(-1)


async def test_a_server_with_a_real_clock_is_not_advanced() -> None:
    with pytest.raises(ConfigurationError, match="FakeClock"):
        await advance(Server(auth=None), 1)


async def test_a_server_is_not_advanced_backwards() -> None:
    with pytest.raises(ValueError, match="backwards"):
        await advance(Server(auth=None, clock=FakeClock()), -1)


async def test_pings_on_the_way_are_answered_so_a_client_outlives_an_hour() -> None:
    clock = FakeClock()
    io = Server(auth=None, clock=clock)
    start = clock.monotonic()
    async with InMemoryClient(io) as client:
        await client.connect()
        await advance(io, 3600)
        assert client.connected()
    assert clock.monotonic() == start + 3600


async def test_the_connect_deadline_is_kept_at_its_moment() -> None:
    clock = FakeClock()
    tokens = TokenFactory(clock=clock)
    io = Server(auth=tokens.auth(), clock=clock, connect_timeout=10)
    async with InMemoryClient(io) as client:
        await advance(io, 9.9)
        assert client.open
        await advance(io, 0.2)
        assert not client.open


async def test_what_is_due_happens_in_order_and_each_at_its_own_time() -> None:
    clock = FakeClock()
    io = Server(auth=None, clock=clock, ping_interval=25, ping_timeout=20, connect_timeout=30)
    begin = clock.monotonic()
    ends: list[float] = []

    @io.on("disconnect")
    async def gone(socket: Socket, reason: str) -> None:
        ends.append(clock.monotonic() - begin)

    async with InMemoryClient(io) as client:
        await client.connect()
        await advance(io, 20)
        async with InMemoryClient(io) as silent:
            await advance(io, 100)
            assert not silent.open
            assert client.open
    assert ends == [120]
