"""The two clocks of iogate, behind one object, so that time can be an argument everywhere else; and chance."""

from __future__ import annotations

import random
import time

_MONOTONIC = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock:
    """Tells the time. A test passes its own with the same two methods."""

    __slots__ = ()

    def wall(self) -> float:
        """Return the Unix time in seconds: what the `exp`, `nbf` and `iat` of a token are compared with."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never run backwards: what every deadline of a connection is measured with.

        Where the system has a clock that also counts the time it slept, it is that one: a token does not live longer
        because the machine was suspended.
        """
        return time.clock_gettime(_MONOTONIC)


SYSTEM = Clock()
"""The clocks of the machine: the default wherever a clock can be passed."""

chance = random.SystemRandom().random
"""Returns a number from 0 to 1. Not from the state of `random`, which belongs to the application: it may be seeded."""
