"""Limits for unauthenticated requests: open requests at a time, and bad requests per address."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from iogate.clock import Clock
from iogate.server.session.addresses import source_of


class Displaced(Exception):
    """The request was ended in favour of a newer one, because too many are open."""


class OpenRequests:
    """The requests that are being read or verified. Each has a deadline, and there is one limit for all.

    If the limit is reached, the oldest request of the source with the most requests is ended. So a request that is sent
    in one piece is processed, even if other clients hold many requests open.

    Args:
        limit: the maximum number of open requests.
    """

    __slots__ = ("_by_source", "_count", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._by_source: dict[str | None, dict[asyncio.Timeout, None]] = {}

    def __len__(self) -> int:
        return self._count

    @asynccontextmanager
    async def open(self, address: str | None, seconds: float) -> AsyncIterator[asyncio.Timeout]:
        """Count a request until the end of the block, and yield its deadline, which can be rescheduled.

        Args:
            address: the address of the client.
            seconds: how long the block may take.

        Raises:
            TimeoutError: the block took longer.
            Displaced: the request was ended in favour of a newer one.
        """
        if self._count >= self._limit:
            self._displace()
        source, deadline = source_of(address), asyncio.timeout(seconds)
        requests = self._by_source.setdefault(source, {})
        requests[deadline] = None
        self._count += 1
        try:
            async with deadline:
                yield deadline
        except TimeoutError:
            if deadline not in requests:
                raise Displaced from None
            raise
        finally:
            if deadline in requests:
                self._remove(source, deadline)

    def _displace(self) -> None:
        source = max(self._by_source, key=lambda source: len(self._by_source[source]))
        oldest = next(iter(self._by_source[source]))
        self._remove(source, oldest)
        oldest.reschedule(0)

    def _remove(self, source: str | None, deadline: asyncio.Timeout) -> None:
        requests = self._by_source[source]
        del requests[deadline]
        self._count -= 1
        if not requests:
            del self._by_source[source]


class BadRequests:
    """Count bad requests by source. The count decreases with time.

    Args:
        allowed: how many a source may send at once.
        refill: how many it may send per second after that.
        clock: measures the time.
        sources: how many sources are remembered. The source that has been quiet for longest is forgotten first.
    """

    __slots__ = ("_allowed", "_clock", "_records", "_refill", "_sources")

    def __init__(self, allowed: int, refill: float, clock: Clock, sources: int = 10_000) -> None:
        self._allowed = allowed
        self._refill = refill
        self._clock = clock
        self._sources = sources
        self._records: OrderedDict[str | None, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def add(self, address: str | None) -> bool:
        """Count a bad request, and return True if its source has sent too many."""
        source, now = source_of(address), self._clock.monotonic()
        count, seen = self._records.pop(source, (0.0, now))
        count = max(0.0, count - (now - seen) * self._refill)
        too_many = count >= self._allowed
        self._records[source] = (count if too_many else count + 1, now)
        if len(self._records) > self._sources:
            self._records.popitem(last=False)
        return too_many
