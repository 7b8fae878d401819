"""Deadlines that lie wherever they are put, as the ends of tokens do."""

from __future__ import annotations

import asyncio
import logging
import random

import pytest

from iogate.clock import Clock
from iogate.server.session.deadlines import Appointments, Deadlines


class Fake(Clock):
    """A clock that stands still until it is set."""

    __slots__ = ("now",)

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Fake:
    return Fake()


@pytest.fixture
async def deadlines(clock: Fake) -> Deadlines:
    return Deadlines(clock)


async def test_nothing_is_due_before_its_time_and_everything_from_then_on(deadlines: Deadlines) -> None:
    expired: list[str] = []
    appointments = deadlines.appointments(expired.append)
    appointments.start("a", 1005.0)
    deadlines.run(1004.999)
    assert expired == []
    assert len(appointments) == 1
    deadlines.run(1005.0)
    deadlines.run(2000.0)
    assert expired == ["a"]
    assert len(appointments) == 0
    assert appointments.next() is None


async def test_what_is_due_first_comes_first_whatever_the_order_of_starting(deadlines: Deadlines) -> None:
    expired: list[str] = []
    appointments = deadlines.appointments(expired.append)
    for name, due in (("c", 1030.0), ("a", 1010.0), ("d", 1040.0), ("b", 1020.0)):
        appointments.start(name, due)
    assert appointments.next() == 1010.0
    deadlines.run(1030.0)
    assert expired == ["a", "b", "c"]
    assert appointments.next() == 1040.0


async def test_of_two_at_the_same_time_the_one_that_was_started_first_comes_first(deadlines: Deadlines) -> None:
    """Things that cannot be compared with each other do no harm."""
    expired: list[object] = []
    appointments = deadlines.appointments(expired.append)
    things = [object() for _ in range(10)]
    for thing in things:
        appointments.start(thing, 1010.0)
    deadlines.run(1010.0)
    assert expired == things


@pytest.mark.parametrize("second", [1005.0, 1020.0])
async def test_starting_again_moves_the_appointment_earlier_or_later(deadlines: Deadlines, second: float) -> None:
    expired: list[str] = []
    appointments = deadlines.appointments(expired.append)
    appointments.start("a", 1010.0)
    appointments.start("a", second)
    assert len(appointments) == 1
    assert appointments.next() == second
    deadlines.run(second - 0.001)
    assert expired == []
    deadlines.run(2000.0)
    assert expired == ["a"]


async def test_a_stopped_appointment_is_not_kept(deadlines: Deadlines) -> None:
    expired: list[str] = []
    appointments = deadlines.appointments(expired.append)
    appointments.start("a", 1010.0)
    appointments.start("b", 1020.0)
    appointments.stop("a")
    appointments.stop("a")
    appointments.stop("never started")
    assert appointments.next() == 1020.0
    deadlines.run(1020.0)
    assert expired == ["b"]


async def test_one_that_was_stopped_can_be_started_again_at_the_same_time(deadlines: Deadlines) -> None:
    """The entry that was left behind does not count for the new one."""
    expired: list[str] = []
    appointments = deadlines.appointments(expired.append)
    appointments.start("a", 1010.0)
    appointments.stop("a")
    appointments.start("a", 1010.0)
    deadlines.run(1010.0)
    assert expired == ["a"]


async def test_an_appointment_may_make_the_next_one(clock: Fake, deadlines: Deadlines) -> None:
    """As the call to refresh makes the end."""
    expired: list[float] = []

    def expire(item: str) -> None:
        expired.append(clock.now)
        if len(expired) < 3:
            appointments.start(item, clock.now + 5.0)

    appointments = deadlines.appointments(expire)
    appointments.start("a", 1005.0)
    for clock.now in (1005.0, 1010.0, 1015.0, 1020.0):
        deadlines.run(clock.now)
    assert expired == [1005.0, 1010.0, 1015.0]


async def test_an_appointment_may_stop_another_that_is_due_at_the_same_time(deadlines: Deadlines) -> None:
    expired: list[str] = []

    def expire(item: str) -> None:
        expired.append(item)
        appointments.stop("b")

    appointments = deadlines.appointments(expire)
    for name in "abc":
        appointments.start(name, 1010.0)
    deadlines.run(1010.0)
    assert expired == ["a", "c"]


async def test_one_that_fails_is_logged_and_the_others_are_kept(
    deadlines: Deadlines, caplog: pytest.LogCaptureFixture
) -> None:
    expired: list[str] = []

    def expire(item: str) -> None:
        if item == "bad":
            raise ValueError("the inside")
        expired.append(item)

    appointments = deadlines.appointments(expire)
    for name in ("before", "bad", "after"):
        appointments.start(name, 1010.0)
    with caplog.at_level(logging.ERROR, "iogate"):
        deadlines.run(1010.0)
    assert expired == ["before", "after"]
    assert "a deadline could not be kept" in caplog.text


async def test_what_was_moved_or_stopped_does_not_pile_up(deadlines: Deadlines) -> None:
    """A client that refreshes every minute under a token of a year would otherwise leave an entry each time."""
    appointments: Appointments[int] = deadlines.appointments(lambda item: None)
    for number in range(10_000):
        appointments.start(number % 10, 1_000_000.0 + number)
    assert len(appointments) == 10
    assert len(appointments._heap) <= 2 * 10 + 64
    for number in range(10):
        appointments.stop(number)
    assert len(appointments) == 0
    assert len(appointments._heap) <= 64


async def test_they_agree_with_a_list_that_is_searched(clock: Fake, deadlines: Deadlines) -> None:
    """Whatever is started, moved and stopped in whatever order is kept at its own time, once."""
    for seed in range(50):
        chance = random.Random(seed)  # noqa: S311
        expired: list[int] = []
        appointments = deadlines.appointments(expired.append)
        expected: dict[int, float] = {}
        for _ in range(300):
            item = chance.randrange(20)
            if chance.random() < 0.6:
                expected[item] = clock.now + chance.uniform(0, 50)
                appointments.start(item, expected[item])
            elif chance.random() < 0.5:
                expected.pop(item, None)
                appointments.stop(item)
            else:
                clock.now += chance.uniform(0, 20)
                due = sorted((when, item) for item, when in expected.items() if when <= clock.now)
                appointments.run(clock.now)
                assert expired == [item for _, item in due]
                expired.clear()
                for _, item in due:
                    del expected[item]
            assert len(appointments) == len(expected)
            assert appointments.next() == min(expected.values(), default=None)


async def test_the_one_timer_is_set_for_the_earliest(clock: Fake, deadlines: Deadlines) -> None:
    appointments: Appointments[str] = deadlines.appointments(lambda item: None)

    def ahead() -> float:
        assert deadlines._timer is not None
        return deadlines._timer.when() - asyncio.get_running_loop().time()

    appointments.start("late", 1100.0)
    assert ahead() == pytest.approx(100.0, abs=1.0)
    appointments.start("early", 1010.0)
    assert ahead() == pytest.approx(10.0, abs=1.0)
    appointments.start("later", 1200.0)
    assert ahead() == pytest.approx(10.0, abs=1.0)
    clock.now = 1010.0
    deadlines._fire()
    assert ahead() == pytest.approx(90.0, abs=1.0)
    deadlines.stop()


async def test_with_the_clock_of_the_machine_an_appointment_is_kept_on_time() -> None:
    """End to end: the event loop's own timer calls what is due."""
    expired = asyncio.Event()
    clock = Clock()
    appointments: Appointments[str] = Deadlines(clock).appointments(lambda item: expired.set())
    due = clock.monotonic() + 0.02
    appointments.start("a", due)
    async with asyncio.timeout(5):
        await expired.wait()
    assert clock.monotonic() >= due
