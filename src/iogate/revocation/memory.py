"""A store that keeps revocations in memory, until the process ends."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator

from iogate.auth import Principal
from iogate.revocation.records import HANDLES, Revocation

FORGOTTEN_AT_ONCE = 1000
"""Maximum number of lists that one `add` cleans up, in about a millisecond.

One `add` creates at most one list, so ended revocations do not accumulate.
"""

_ANYBODY = ("", "")
"""The key of the list of revocations that have only `issued_before`, with or without `issuer`."""


class MemoryRevocations:
    """Keep revocations in memory. Use it if revocations may be lost when the process restarts.

    Each takes about 400 bytes, and is kept as long as a token that it matches can be accepted. To save memory, set
    `JWTAuth(require=["exp", "sub", "iat"], max_lifetime=...)` to the lifetime of the issuer's tokens in seconds. If
    tokens need not have `iat` and `exp`, and `max_age` is not set, their revocations are kept for ever. A repeated
    revocation is stored once.
    """

    __slots__ = ("_ends", "_lists")

    def __init__(self) -> None:
        self._lists: dict[tuple[str, str], list[Revocation]] = {}
        # A heap of the times at which lists need to be cleaned up, with one entry per list.
        self._ends: list[tuple[float, tuple[str, str]]] = []

    def __len__(self) -> int:
        return sum(map(len, self._lists.values()))

    def __iter__(self) -> Iterator[Revocation]:
        # Another thread may iterate while the event loop adds a revocation. Creating the list is atomic.
        return itertools.chain.from_iterable(list(self._lists.values()))

    def open(self) -> None:
        """Do nothing: the store needs no preparation."""

    def close(self) -> None:
        """Do nothing: the store has no resources to release."""

    def revoked(self, principal: Principal, now: float) -> bool:
        """Return True if the token of this identity is revoked at `now`, Unix time in seconds."""
        return self.find(principal, now) is not None

    def find(self, principal: Principal, now: float) -> Revocation | None:
        """Return a revocation of the token of this identity at `now`, or None if it is not revoked."""
        if not self._lists:
            return None
        handles = [(name, value) for name in HANDLES if (value := getattr(principal, name)) is not None]
        for handle in (*handles, _ANYBODY):
            for revocation in self._lists.get(handle, ()):
                if revocation.until > now and revocation.matches(principal):
                    return revocation
        return None

    def add(self, revocation: Revocation, now: float) -> None:
        """Add a revocation, and forget those that have ended at `now`, Unix time in seconds."""
        self._forget(now)
        handle = revocation.handle or _ANYBODY
        known = self._lists.get(handle)
        if known is None:
            self._lists[handle] = [revocation]
            heapq.heappush(self._ends, (revocation.until, handle))
        elif not any(other.covers(revocation) for other in known):
            # Create a new list: an HTTP guard in another thread may iterate over the old one, and would skip an item.
            # Drop ended revocations here too: `_forget` skips this list until its heap entry is due, perhaps for ever.
            left = (other for other in known if other.until > now and not revocation.covers(other))
            self._lists[handle] = [*left, revocation]

    async def save(self, revocation: Revocation) -> None:
        """Do nothing: revocations are only kept in memory."""

    def _forget(self, now: float) -> None:
        for _ in range(FORGOTTEN_AT_ONCE):
            if not self._ends or self._ends[0][0] > now:
                return
            handle = self._ends[0][1]
            left = [revocation for revocation in self._lists[handle] if revocation.until > now]
            if left:
                self._lists[handle] = left
                heapq.heapreplace(self._ends, (min(revocation.until for revocation in left), handle))
            else:
                del self._lists[handle]
                heapq.heappop(self._ends)
