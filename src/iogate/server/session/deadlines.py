"""Deadlines of all connections under one timer.

Nearly every deadline of a connection has a constant interval (the next ping, the pong, the verdict of the gate), so
a queue an interval is ordered by itself: the newest entry is the last due. Starting and stopping one costs the same
with ten connections as with ten thousand. The ends of tokens lie where they lie: they are in a heap. The event loop
knows a single timer for all.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
from collections import OrderedDict
from collections.abc import Callable
from itertools import count
from typing import Any, Generic, TypeVar

from iogate.clock import Clock

logger = logging.getLogger("iogate")

T = TypeVar("T")

AT_ONCE = 100
"""Deadlines of a kind that are kept in one turn of the event loop: who has none is served in between."""


class Queue(Generic[T]):
    """Deadlines that all lie the same time ahead when they are started."""

    __slots__ = ("_deadlines", "_items", "expired", "interval")

    def __init__(self, deadlines: Deadlines, interval: float, expired: Callable[[T], None]) -> None:
        self._deadlines = deadlines
        self._items: OrderedDict[T, float] = OrderedDict()
        self.interval = interval
        self.expired = expired

    def __len__(self) -> int:
        return len(self._items)

    def start(self, item: T) -> None:
        """Let `expired(item)` be called one interval from now, and not at the time said before if there was one."""
        due = self._deadlines.clock.monotonic() + self.interval
        self._items.pop(item, None)
        self._items[item] = due
        self._deadlines.arm(due)

    def stop(self, item: T) -> bool:
        """Forget the deadline of this item; say whether it had one."""
        return self._items.pop(item, None) is not None

    def next(self) -> float | None:
        """Return when the first deadline is due, or None."""
        for due in self._items.values():
            return due
        return None

    def run(self, now: float, most: float = math.inf) -> None:
        """Call `expired` for what is due, `most` of them."""
        while most > 0 and (due := self.next()) is not None and due <= now:
            most -= 1
            item, _ = self._items.popitem(last=False)
            _call(self.expired, item)


class Appointments(Generic[T]):
    """Deadlines at any time, one for an item at most."""

    __slots__ = ("_deadlines", "_due", "_heap", "_numbers", "expired")

    def __init__(self, deadlines: Deadlines, expired: Callable[[T], None]) -> None:
        self._deadlines = deadlines
        self._heap: list[tuple[float, int, T]] = []
        self._due: dict[T, int] = {}  # The number of the entry in the heap that counts.
        self._numbers = count()
        self.expired = expired

    def __len__(self) -> int:
        return len(self._due)

    def start(self, item: T, due: float) -> None:
        """Let `expired(item)` be called at `due`, seconds of the monotonic clock, and not at the time said before."""
        number = self._due[item] = next(self._numbers)
        heapq.heappush(self._heap, (due, number, item))
        self._tidy()
        self._deadlines.arm(due)

    def stop(self, item: T) -> None:
        """Forget the deadline of this item, if it has one."""
        self._due.pop(item, None)
        self._tidy()

    def next(self) -> float | None:
        """Return when the first deadline is due, or None."""
        while self._heap and not self._counts(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def run(self, now: float, most: float = math.inf) -> None:
        """Call `expired` for what is due, `most` of them."""
        while most > 0 and (due := self.next()) is not None and due <= now:
            most -= 1
            _, _, item = heapq.heappop(self._heap)
            del self._due[item]
            _call(self.expired, item)

    def _counts(self, entry: tuple[float, int, T]) -> bool:
        return self._due.get(entry[2]) == entry[1]

    def _tidy(self) -> None:
        # Entries that no longer count leave when they come to the top, which may be long from now.
        if len(self._heap) > 2 * len(self._due) + 64:
            self._heap = [entry for entry in self._heap if self._counts(entry)]
            heapq.heapify(self._heap)


class Deadlines:
    """The queues, and the one timer of the event loop that stands for the earliest of them all.

    Args:
        clock: only its `monotonic` is used: no step of the wall clock moves a deadline.
    """

    __slots__ = ("_armed", "_loop", "_queues", "_timer", "clock")

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._queues: list[Queue[Any] | Appointments[Any]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._armed = float("inf")

    def queue(self, interval: float, expired: Callable[[T], None]) -> Queue[T]:
        """Return a new queue of deadlines that lie `interval` seconds ahead."""
        queue: Queue[T] = Queue(self, interval, expired)
        self._queues.append(queue)
        return queue

    def appointments(self, expired: Callable[[T], None]) -> Appointments[T]:
        """Return new deadlines that lie wherever they are put."""
        appointments: Appointments[T] = Appointments(self, expired)
        self._queues.append(appointments)
        return appointments

    def next(self) -> float | None:
        """Return when the first deadline of all is due, or None."""
        return min((due for queue in self._queues if (due := queue.next()) is not None), default=None)

    def run(self, now: float, most: float = math.inf) -> None:
        """Call what is due at `now`, in seconds of the monotonic clock; at most so many of each kind."""
        for queue in self._queues:
            queue.run(now, most)

    def arm(self, due: float) -> None:
        """See to it that the timer fires no later than `due`."""
        if due >= self._armed:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._armed = due
        self._loop = self._loop or asyncio.get_running_loop()
        self._timer = self._loop.call_later(due - self.clock.monotonic(), self._fire)

    def prepare(self, loop: asyncio.AbstractEventLoop) -> None:
        """Use this event loop from now on. The one before has ended, and its timer with it."""
        self._loop, self._timer, self._armed = loop, None, float("inf")

    def stop(self) -> None:
        """Take the timer back. The deadlines stay; the next one that is started arms it again."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._armed = None, float("inf")

    def _fire(self) -> None:
        self._timer, self._armed = None, float("inf")
        try:
            self.run(self.clock.monotonic(), AT_ONCE)
        finally:
            due = self.next()
            if due is not None:
                self.arm(due)


def _call(expired: Callable[[T], None], item: T) -> None:
    try:
        expired(item)
    except Exception:
        logger.exception("a deadline could not be kept")
