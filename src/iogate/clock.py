"""The wall clock and the monotonic clock in one object, which can be passed as an argument; and a random source."""

from __future__ import annotations

import random
import time

_MONOTONIC = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock:
    """The system clocks. Tests pass an object with the same two methods."""

    __slots__ = ()

    def wall(self) -> float:
        """Return the Unix time in seconds. The claims `exp`, `nbf` and `iat` are compared with it."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never run backwards. All deadlines of connections are measured with it.

        If the system has a clock that also counts the time while it was suspended, this uses it: suspending the machine
        does not extend the life of a token.
        """
        return time.clock_gettime(_MONOTONIC)


SYSTEM = Clock()
"""The system clocks: the default for every `clock` argument."""

chance = random.SystemRandom().random
"""Return a random number from 0 to 1. It does not use the global state of `random`, which the application may seed."""
