"""Deadlines: each is kept once, in order, and one timer stands for all of them."""

from __future__ import annotations

import asyncio
import logging

import pytest

from iogate.clock import Clock
from iogate.server.session.deadlines import Deadlines, Queue


class Fake(Clock):
    """A clock that stands still until it is set."""

    __slots__ = ("now",)

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Timer:
    """What the deadlines ask of the event loop: when their one timer is to fire."""

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines

    @property
    def ahead(self) -> float | None:
        """Seconds from now at which it fires; None if it is not set."""
        timer = self._deadlines._timer
        if timer is None or timer.cancelled():
            return None
        return timer.when() - asyncio.get_running_loop().time()


@pytest.fixture
def clock() -> Fake:
    return Fake()


@pytest.fixture
async def deadlines(clock: Fake) -> Deadlines:
    return Deadlines(clock)


async def test_nothing_is_due_before_its_time_and_everything_from_then_on(clock: Fake, deadlines: Deadlines) -> None:
    expired: list[str] = []
    queue = deadlines.queue(5.0, expired.append)
    queue.start("a")
    deadlines.run(1004.999)
    assert expired == []
    deadlines.run(1005.0)
    assert expired == ["a"]
    deadlines.run(2000.0)
    assert expired == ["a"]
    assert len(queue) == 0


async def test_items_expire_in_the_order_in_which_they_were_started(clock: Fake, deadlines: Deadlines) -> None:
    expired: list[int] = []
    queue = deadlines.queue(5.0, expired.append)
    for number in (3, 1, 2):
        queue.start(number)
        clock.now += 1.0
    deadlines.run(1006.5)
    assert expired == [3, 1]
    deadlines.run(1007.0)
    assert expired == [3, 1, 2]


async def test_starting_again_moves_the_deadline_and_does_not_add_one(clock: Fake, deadlines: Deadlines) -> None:
    expired: list[str] = []
    queue = deadlines.queue(5.0, expired.append)
    queue.start("a")
    clock.now += 1.0
    queue.start("b")
    clock.now += 1.0
    queue.start("a")
    assert len(queue) == 2
    assert queue.next() == 1006.0
    deadlines.run(1006.0)
    assert expired == ["b"]
    deadlines.run(1007.0)
    assert expired == ["b", "a"]


async def test_a_stopped_deadline_is_not_kept_and_stop_says_whether_there_was_one(deadlines: Deadlines) -> None:
    expired: list[str] = []
    queue = deadlines.queue(5.0, expired.append)
    queue.start("a")
    assert queue.stop("a")
    assert not queue.stop("a")
    assert not queue.stop("never started")
    deadlines.run(2000.0)
    assert expired == []
    assert queue.next() is None


async def test_an_item_may_be_in_several_queues(deadlines: Deadlines) -> None:
    expired: list[tuple[str, str]] = []
    short: Queue[str] = deadlines.queue(1.0, lambda item: expired.append(("short", item)))
    long: Queue[str] = deadlines.queue(9.0, lambda item: expired.append(("long", item)))
    long.start("a")
    short.start("a")
    deadlines.run(1001.0)
    assert expired == [("short", "a")]
    assert long.stop("a")


async def test_an_item_may_start_itself_again_from_its_own_deadline(clock: Fake, deadlines: Deadlines) -> None:
    """So a heartbeat can be written; one run keeps each deadline once, and does not go round for ever."""
    expired: list[float] = []
    queue: Queue[str]

    def again(item: str) -> None:
        expired.append(clock.now)
        queue.start(item)

    queue = deadlines.queue(5.0, again)
    queue.start("a")
    for _ in range(3):
        clock.now += 5.0
        deadlines.run(clock.now)
    assert expired == [1005.0, 1010.0, 1015.0]
    assert queue.next() == 1020.0


async def test_a_deadline_may_stop_another_that_is_due_at_the_same_time(deadlines: Deadlines) -> None:
    expired: list[str] = []
    queue: Queue[str]

    def expire(item: str) -> None:
        expired.append(item)
        queue.stop("b")

    queue = deadlines.queue(5.0, expire)
    for item in "abc":
        queue.start(item)
    deadlines.run(1005.0)
    assert expired == ["a", "c"]


async def test_a_deadline_that_fails_is_logged_and_the_others_are_kept(
    deadlines: Deadlines, caplog: pytest.LogCaptureFixture
) -> None:
    expired: list[str] = []

    def expire(item: str) -> None:
        if item == "bad":
            raise ValueError("the inside")
        expired.append(item)

    queue, other = deadlines.queue(5.0, expire), deadlines.queue(5.0, expired.append)
    for item in ("before", "bad", "after"):
        queue.start(item)
    other.start("other")
    with caplog.at_level(logging.ERROR, "iogate"):
        deadlines.run(1005.0)
    assert expired == ["before", "after", "other"]
    assert [record.message for record in caplog.records] == ["a deadline could not be kept"]
    assert "the inside" in caplog.text


async def test_the_timer_is_set_for_the_earliest_of_all_queues(clock: Fake, deadlines: Deadlines) -> None:
    expired: list[str] = []
    timer = Timer(deadlines)
    long = deadlines.queue(100.0, expired.append)
    short = deadlines.queue(10.0, expired.append)
    assert timer.ahead is None
    long.start("a")
    assert timer.ahead == pytest.approx(100.0, abs=1.0)
    short.start("a")
    assert timer.ahead == pytest.approx(10.0, abs=1.0)
    clock.now += 5.0
    long.start("b")
    short.start("b")
    assert timer.ahead == pytest.approx(10.0, abs=1.0)


async def test_the_timer_keeps_what_is_due_and_is_set_for_what_comes_next(clock: Fake, deadlines: Deadlines) -> None:
    expired: list[str] = []
    timer = Timer(deadlines)
    queue = deadlines.queue(10.0, expired.append)
    queue.start("a")
    clock.now += 4.0
    queue.start("b")
    clock.now += 6.0
    deadlines._fire()
    assert expired == ["a"]
    assert timer.ahead == pytest.approx(4.0, abs=1.0)
    clock.now += 4.0
    deadlines._fire()
    assert expired == ["a", "b"]
    assert timer.ahead is None


async def test_the_timer_that_fires_for_a_stopped_deadline_does_no_harm(clock: Fake, deadlines: Deadlines) -> None:
    expired: list[str] = []
    timer = Timer(deadlines)
    queue = deadlines.queue(10.0, expired.append)
    queue.start("a")
    clock.now += 4.0
    queue.start("b")
    queue.stop("a")
    clock.now += 6.0
    deadlines._fire()
    assert expired == []
    assert timer.ahead == pytest.approx(4.0, abs=1.0)


async def test_a_timer_that_was_taken_back_is_set_again_by_the_next_start(clock: Fake, deadlines: Deadlines) -> None:
    expired: list[str] = []
    timer = Timer(deadlines)
    queue = deadlines.queue(10.0, expired.append)
    queue.start("a")
    deadlines.stop()
    deadlines.stop()
    assert timer.ahead is None
    clock.now += 20.0
    queue.start("b")
    assert timer.ahead == pytest.approx(10.0, abs=1.0)
    clock.now += 10.0
    deadlines._fire()
    assert expired == ["a", "b"]


async def test_the_timer_is_set_again_whatever_a_deadline_raises(clock: Fake, deadlines: Deadlines) -> None:
    """What is no `Exception` leaves the timer's callback, but the deadlines of the others do not end with it."""

    def expire(item: str) -> None:
        raise asyncio.CancelledError

    timer = Timer(deadlines)
    deadlines.queue(10.0, expire).start("a")
    deadlines.queue(15.0, print).start("b")
    clock.now += 10.0
    with pytest.raises(asyncio.CancelledError):
        deadlines._fire()
    assert timer.ahead == pytest.approx(5.0, abs=1.0)


async def test_the_wall_clock_plays_no_part() -> None:
    class NoWall(Fake):
        __slots__ = ()

        def wall(self) -> float:
            raise AssertionError("the wall clock was asked")

    deadlines = Deadlines(NoWall())
    queue: Queue[str] = deadlines.queue(10.0, print)
    queue.start("a")
    queue.stop("a")
    deadlines.run(2000.0)


async def test_with_the_clock_of_the_machine_a_deadline_is_kept_on_time() -> None:
    """End to end: the event loop's own timer calls what is due."""
    expired = asyncio.Event()
    deadlines = Deadlines(Clock())
    queue: Queue[str] = deadlines.queue(0.02, lambda item: expired.set())
    queue.start("a")
    began = Clock().monotonic()
    async with asyncio.timeout(5):
        await expired.wait()
    assert Clock().monotonic() - began >= 0.02


def test_deadlines_are_kept_on_a_second_event_loop_too() -> None:
    """A server that is a global of its module outlives many an event loop in a test suite."""
    deadlines = Deadlines(Clock())
    queue: Queue[asyncio.Event] = deadlines.queue(0.02, lambda event: event.set())

    async def begin() -> None:
        deadlines.prepare(asyncio.get_running_loop())
        queue.start(asyncio.Event())

    async def wait() -> None:
        deadlines.prepare(asyncio.get_running_loop())
        expired = asyncio.Event()
        queue.start(expired)
        async with asyncio.timeout(5):
            await expired.wait()

    asyncio.run(begin())
    asyncio.run(wait())
