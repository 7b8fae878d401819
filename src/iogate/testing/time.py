"""A clock that tests control."""

from __future__ import annotations

import asyncio

from iogate.clock import Clock
from iogate.errors import ConfigurationError
from iogate.server.server import Server, core_of

SETTLE = 30
"""Iterations of the event loop that `settle` waits. An event through all layers and back takes about ten."""


class FakeClock(Clock):
    """A clock that moves only when a test moves it. Pass the same one to `Server`, `JWTAuth` and `TokenFactory`.

    Args:
        wall: the initial Unix time in seconds.
        monotonic: the initial value of the monotonic clock in seconds.
    """

    __slots__ = ("_monotonic", "_wall")

    def __init__(self, wall: float = 1_800_000_000.0, monotonic: float = 1000.0) -> None:
        self._wall = wall
        self._monotonic = monotonic

    def wall(self) -> float:
        """Return the Unix time in seconds."""
        return self._wall

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move both clocks forward. This runs no timers of a server: use `iogate.testing.advance` for that.

        Raises:
            ValueError: `seconds` is negative. `set_wall` sets only the wall clock, and can set it back.
        """
        if seconds < 0:
            raise ValueError("time does not run backwards: set_wall sets the wall clock back, and that alone")
        self.advance_to(self._monotonic + seconds)

    def advance_to(self, monotonic: float) -> None:
        """Move the monotonic clock to exactly this value, and the wall clock by the same amount."""
        self._wall += monotonic - self._monotonic
        self._monotonic = monotonic

    def set_wall(self, wall: float) -> None:
        """Set the wall clock, as an operator or NTP does. The monotonic clock does not change."""
        self._wall = wall

    def __repr__(self) -> str:
        return f"FakeClock(wall={self._wall}, monotonic={self._monotonic})"


async def settle() -> None:
    """Let the server and the clients do everything that they can do immediately: handlers, answers, disconnects.

    This does not wait for threads, the network or real time. To wait for a result from there, use
    `InMemoryClient.receive` or `call`.
    """
    for _ in range(SETTLE):
        await asyncio.sleep(0)


async def advance(io: Server, seconds: float) -> None:
    """Advance the time of a server whose clock is a `FakeClock`, and run each timer on the way at its exact time.

    The events happen in the order in which they are due, each with its immediate consequences: the server sends a ping
    and the client answers it, the server sends `token_expiring` (which a handler of the client can answer), a token
    expires.

    Args:
        io: the server.
        seconds: how many seconds to advance.

    Raises:
        ConfigurationError: the clock of the server is not a `FakeClock`.
        ValueError: `seconds` is negative.
    """
    deadlines = core_of(io).sessions.deadlines
    clock = deadlines.clock
    if not isinstance(clock, FakeClock):
        raise ConfigurationError("this server has a real clock: make it with Server(..., clock=FakeClock())")
    if seconds < 0:
        raise ValueError("time does not run backwards")
    end = clock.monotonic() + seconds
    await settle()
    while (due := deadlines.next()) is not None and due <= end:
        clock.advance_to(max(due, clock.monotonic()))
        deadlines.run(clock.monotonic())
        await settle()
    clock.advance_to(end)
