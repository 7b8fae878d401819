"""When a key set is read again, and for how long the one that was read may serve. Pure: time is an argument."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

AHEAD = 0.8
"""The part of its life after which a key set is read again: what fails has the rest of it to succeed."""
SPREAD = 0.1
"""The part of that by which it is moved ahead by chance: servers that started together do not ask together."""
FIRST_RETRY = 1.0
"""Seconds after which a failed reading is tried again; then twice as many, up to `LAST_RETRY`."""
LAST_RETRY = 60.0
SHOWN = 1000
"""Tokens with unknown keys that are remembered, at about 200 bytes each."""


class Schedule:
    """Remember what became of the readings, and say what is to be done next.

    All times are seconds of one clock that never runs backwards.

    Args:
        every: seconds after which a key set is no longer fresh.
        keep_for: seconds since the last good reading for which its keys serve, if no later one is good.
        cooldown: seconds between two readings that were made because a key was not known.
        now: the time.
        chance: returns a number from 0 to 1.
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
        """When the next reading is to begin."""

    @property
    def failing(self) -> bool:
        """Whether the last reading failed."""
        return self._failures > 0

    def begun(self) -> None:
        """Note that a reading begins."""
        self._begun += 1

    def first_shown(self, token: bytes) -> int:
        """Return how many readings had begun when a token with an unknown key was first shown.

        Above `SHOWN` tokens the oldest is forgotten: if it is shown again, that counts as the first time.

        Args:
            token: a digest of the whole token. Its `kid` is not enough: an attacker could guess the next one, and show
                it before the issuer publishes it.
        """
        number = self._first_shown.setdefault(token, self._begun)
        if len(self._first_shown) > SHOWN:
            self._first_shown.popitem(last=False)
        return number

    def read_since(self, number: int) -> bool:
        """Return True if the last good reading began after the reading with this number."""
        return self._good > number

    def succeeded(self, now: float, fresh_for: float | None = None) -> None:
        """Note a good reading.

        Args:
            now: when.
            fresh_for: seconds for which its answer says that it is fresh. It is asked more often than that if `every`
                is less, and no more than twice as often as `every` says.
        """
        life = self._every if fresh_for is None else min(max(fresh_for, self._every / 2), self._every)
        self._failures = 0
        self._good = self._begun  # There is one reading at a time, so the good one is the last that began.
        self._read_at = now
        self.due = now + life * AHEAD * (1 - SPREAD * self._chance())

    def failed(self, now: float) -> None:
        """Note a reading that failed."""
        wait = min(FIRST_RETRY * 2 ** min(self._failures, 10), LAST_RETRY, self._every)
        self._failures += 1
        self.due = now + wait * (1 - SPREAD * self._chance())

    def usable(self, now: float) -> bool:
        """Say whether the keys of the last good reading may serve."""
        return self._read_at is not None and now - self._read_at <= self._keep_for

    def look(self, now: float) -> bool:
        """Say whether to read now as somebody asks for a key that is not known; if so, that is noted."""
        if self._looked_at is not None and now - self._looked_at < self._cooldown:
            return False
        self._looked_at = now
        return True
