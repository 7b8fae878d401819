"""Time that passes when a test says so."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from iogate.clock import Clock
from iogate.errors import ConfigurationError

if TYPE_CHECKING:
    from iogate.server.server import Server

SETTLE = 30
"""Turns of the event loop that `settle` waits: an event through all layers and back takes about ten."""


class FakeClock(Clock):
    """A clock that stands still until it is told to move. Give the same one to `Server`, `JWTAuth`, `TokenFactory`.

    Args:
        wall: the Unix time in seconds at which it begins.
        monotonic: what the monotonic half begins with, in seconds.
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
        """Let time pass, on both halves. What is due is done by `iogate.testing.advance`, not by this.

        Raises:
            ValueError: time does not run backwards. `set_wall` moves the wall clock alone.
        """
        if seconds < 0:
            raise ValueError("time does not run backwards: set_wall sets the wall clock back, and that alone")
        self.advance_to(self._monotonic + seconds)

    def advance_to(self, monotonic: float) -> None:
        """Let time pass until the monotonic half shows this, exactly; the wall clock goes along."""
        self._wall += monotonic - self._monotonic
        self._monotonic = monotonic

    def set_wall(self, wall: float) -> None:
        """Set the wall clock, as an operator or NTP does: the monotonic half does not notice."""
        self._wall = wall

    def __repr__(self) -> str:
        return f"FakeClock(wall={self._wall}, monotonic={self._monotonic})"


async def settle() -> None:
    """Let everything happen that happens at once: handlers, answers, disconnects.

    It waits for no thread, network or real time: what a handler gets from there, wait for with
    `InMemoryClient.receive` or `call`.
    """
    for _ in range(SETTLE):
        await asyncio.sleep(0)


async def advance(io: Server, seconds: float) -> None:
    """Let time pass for a server whose clock is a `FakeClock`: every deadline on the way is kept at its own moment.

    A ping is sent and answered, a `token_expiring` goes out (and can be answered by a handler of the client), a token
    ends: in the order in which they are due, each with the consequences that it has at once.

    Args:
        io: the server.
        seconds: how far.

    Raises:
        ConfigurationError: the clock of the server is not a `FakeClock`.
        ValueError: the seconds are negative.
    """
    deadlines = io._deadlines
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
