"""A clock that runs, and can be moved ahead besides: a soak need not wait an hour until its last token has expired."""

from __future__ import annotations

import time

from iogate.testing import FakeClock


class RunningClock(FakeClock):
    """The clock of the machine, and the seconds that it was moved ahead.

    Args:
        ahead: seconds to begin with.
    """

    __slots__ = ("ahead",)

    def __init__(self, ahead: float = 0.0) -> None:
        super().__init__()
        self.ahead = ahead

    def wall(self) -> float:
        """Return the Unix time in seconds."""
        return time.time() + self.ahead

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return time.monotonic() + self.ahead

    def advance_to(self, monotonic: float) -> None:
        """Move ahead to this time, if it has not come by itself."""
        self.ahead += max(0.0, monotonic - self.monotonic())
