"""The schedule for reading a key set again, and for how long its keys may be used. Pure: time is an argument."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

AHEAD = 0.8
"""The fraction of its lifetime after which a key set is read again. The rest is time to retry a read that fails."""
SPREAD = 0.1
"""The maximum fraction by which a read is randomly early, so that servers that start together do not read together."""
FIRST_RETRY = 1.0
"""Seconds until a failed read is retried. The delay doubles with each failure, up to `LAST_RETRY`."""
LAST_RETRY = 60.0
SHOWN = 1000
"""Maximum number of tokens with unknown keys that are remembered, at about 200 bytes each."""


class Schedule:
    """The results of reads of a key set, and the time of the next read.

    All times are seconds of a monotonic clock.

    Args:
        every: seconds after which a key set is no longer fresh.
        keep_for: seconds since the last successful read for which its keys may be used.
        cooldown: seconds between two reads that are caused by unknown keys.
        now: the current time.
        chance: returns a random number from 0 to 1.
    """

    __slots__ = (
        "_begun",
        "_chance",
        "_cooldown",
        "_every",
        "_failures",
        "_first_shown",
        "_good",
        "_keep_for",
        "_looked_at",
        "_read_at",
        "due",
    )

    def __init__(self, every: float, keep_for: float, cooldown: float, now: float, chance: Callable[[], float]) -> None:
        self._every = every
        self._keep_for = keep_for
        self._cooldown = cooldown
        self._chance = chance
        self._failures = 0
        self._begun = 0
        self._good = 0
        self._first_shown: OrderedDict[bytes, int] = OrderedDict()  # Several threads use it; each step is atomic.
        self._looked_at: float | None = None
        self._read_at: float | None = None
        self.due = now
        """The time at which the next read is due."""

    @property
    def failing(self) -> bool:
        """True if the last read failed."""
        return self._failures > 0

    def begun(self) -> None:
        """Record the start of a read."""
        self._begun += 1

    def first_shown(self, token: bytes) -> int:
        """Return how many reads had started when a token with an unknown key was first received.

        If there are more than `SHOWN` tokens, the oldest is forgotten. If it is received again, that counts as the
        first time.

        Args:
            token: a digest of the whole token. The `kid` is not enough: an attacker could guess the next one, and send
                it before the issuer publishes it.
        """
        number = self._first_shown.setdefault(token, self._begun)
        if len(self._first_shown) > SHOWN:
            self._first_shown.popitem(last=False)
        return number

    def read_since(self, number: int) -> bool:
        """Return True if the last successful read started after the first `number` reads."""
        return self._good > number

    def succeeded(self, now: float, fresh_for: float | None = None) -> None:
        """Record a successful read, and schedule the next one.

        Args:
            now: the current time.
            fresh_for: seconds for which the key set is fresh according to the response. The lifetime is at most `every`
                and at least half of `every`. None: it is `every`.
        """
        life = self._every if fresh_for is None else min(max(fresh_for, self._every / 2), self._every)
        self._failures = 0
        self._good = self._begun  # There is one read at a time, so the successful one is the last that started.
        self._read_at = now
        self.due = now + life * AHEAD * (1 - SPREAD * self._chance())

    def failed(self, now: float) -> None:
        """Record a failed read, and schedule the retry."""
        wait = min(FIRST_RETRY * 2 ** min(self._failures, 10), LAST_RETRY, self._every)
        self._failures += 1
        self.due = now + wait * (1 - SPREAD * self._chance())

    def usable(self, now: float) -> bool:
        """Return True if the keys of the last successful read may still be used."""
        return self._read_at is not None and now - self._read_at <= self._keep_for

    def look(self, now: float) -> bool:
        """Return True if an unknown key may cause a read now, and then start the cooldown."""
        if self._looked_at is not None and now - self._looked_at < self._cooldown:
            return False
        self._looked_at = now
        return True
