"""Revocations that last as long as the process."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator

from iogate.auth import Principal
from iogate.revocation.records import HANDLES, Revocation

FORGOTTEN_AT_ONCE = 1000
"""Lists that one `add` clears out at most: about a millisecond. It fills one, so that they cannot pile up."""

_ANYBODY = ("", "")
"""The list of the revocations that only name a time."""


class MemoryRevocations:
    """Remember revocations in memory: enough where tokens live shorter than the process, or restarts may forget.

    One takes about 400 bytes, and is kept as long as a token that it means can be accepted. To keep this small, set
    `JWTAuth(require=["exp", "sub", "iat"], max_lifetime=...)` with a time that fits the issuer's tokens. If tokens need
    not have `iat` and `exp`, their revocations are kept for ever. A repeated revocation is stored once.
    """

    __slots__ = ("_ends", "_lists")

    def __init__(self) -> None:
        self._lists: dict[tuple[str, str], list[Revocation]] = {}
        # A heap of when to look through which list, one entry a list.
        self._ends: list[tuple[float, tuple[str, str]]] = []

    def __len__(self) -> int:
        return sum(map(len, self._lists.values()))

    def __iter__(self) -> Iterator[Revocation]:
        # `list` is atomic: another thread may read while the event loop adds one.
        return itertools.chain.from_iterable(list(self._lists.values()))

    def open(self) -> None:
        """Do nothing: it is ready."""

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    def revoked(self, principal: Principal, now: float) -> bool:
        """Say whether the token of this identity is revoked at `now`, Unix time in seconds."""
        return self.find(principal, now) is not None

    def find(self, principal: Principal, now: float) -> Revocation | None:
        """Return a revocation that means the token of this identity at `now`, or None if it is not revoked."""
        if not self._lists:
            return None
        handles = [(name, value) for name in HANDLES if (value := getattr(principal, name)) is not None]
        for handle in (*handles, _ANYBODY):
            for revocation in self._lists.get(handle, ()):
                if revocation.until > now and revocation.matches(principal):
                    return revocation
        return None

    def add(self, revocation: Revocation, now: float) -> None:
        """Remember a revocation, and forget those that have outlived what they mean."""
        self._forget(now)
        handle = revocation.handle or _ANYBODY
        known = self._lists.get(handle)
        if known is None:
            self._lists[handle] = [revocation]
            heapq.heappush(self._ends, (revocation.until, handle))
        elif not any(other.covers(revocation) for other in known):
            # A new list: in the old one somebody may be looking, a guard on another thread, and would skip one.
            # Drop ended ones here too: `_forget` skips this list while its first one lasts, which may be for ever.
            left = (other for other in known if other.until > now and not revocation.covers(other))
            self._lists[handle] = [*left, revocation]

    async def save(self, revocation: Revocation) -> None:
        """Do nothing: memory is all there is."""

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
