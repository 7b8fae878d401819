"""A coroutine that is begun at once cannot tell it from a task of its own, and nobody else can either."""

from __future__ import annotations

import asyncio
import gc
import logging
import warnings
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from typing import Any

import pytest

from iogate import Server
from iogate.server.session.eager import Eager, Rest
from iogate.server.session.handshake import Handshake
from tests.conformance.wire import within

VALUE: ContextVar[Any] = ContextVar("VALUE", default="nothing")


class Counted(Eager):
    """It and the tasks that have been made since it was ready."""

    __slots__ = ("made",)

    def __init__(self) -> None:
        super().__init__()
        self.made = 0

    def count(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **settings: Any) -> asyncio.Task[Any]:
        self.made += 1
        return asyncio.Task(coroutine, loop=loop, **settings)

    async def do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Return the result of a coroutine, or raise what it raises, whether it has to wait or not."""
        begun = self.begin(coroutine, self.context)
        if not isinstance(begun, Rest):
            return begun
        results: list[Any] = []
        await within(self.go_on(begun, _keep(begun, results)))
        return results[0]


async def _keep(rest: Rest, results: list[Any]) -> None:
    results.append(await rest)


async def ready() -> Counted:
    """Return one with a spare task. It is no fixture: those may have a context of their own."""
    made = Counted()
    made.prepare(asyncio.get_running_loop())
    await asyncio.sleep(0)
    asyncio.get_running_loop().set_task_factory(made.count)
    return made


async def same(value: Any = None) -> Any:
    return value


def _future(result: Any = None) -> asyncio.Future[Any]:
    future = asyncio.get_running_loop().create_future()
    if result is not None:
        future.set_result(result)
    return future


# Tasks.


async def test_what_does_not_wait_makes_no_task_and_returns_its_result() -> None:
    eager = await ready()
    before = asyncio.all_tasks()
    for number in range(100):
        assert eager.begin(same(number), eager.context) == number
    assert eager.made == 0
    assert asyncio.all_tasks() == before


async def test_it_has_a_task_from_its_first_step_on() -> None:
    eager = await ready()

    async def whose() -> Any:
        return asyncio.current_task()

    task = eager.begin(whose(), eager.context)
    assert task not in (None, asyncio.current_task())
    assert eager.begin(whose(), eager.context) is task


async def _turn() -> None:
    await asyncio.sleep(0)


async def _what_comes_later() -> None:
    future = _future()

    def come() -> None:
        if not future.done():
            future.set_result("come")

    asyncio.get_running_loop().call_soon(come)
    assert await future == "come"


async def _what_fails() -> None:
    future = _future()
    asyncio.get_running_loop().call_soon(future.set_exception, ValueError("failed"))
    with pytest.raises(ValueError, match="failed"):
        await future


async def _another_task() -> None:
    assert await asyncio.create_task(same(7)) == 7


async def _several() -> None:
    assert list(await asyncio.gather(same(1), same(2))) == [1, 2]


WAITS = [_turn, _what_comes_later, _what_fails, _another_task, _several]


@pytest.mark.parametrize("wait", WAITS)
async def test_what_waits_goes_on_in_the_task_that_it_began_in(wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
    eager = await ready()

    async def waiting() -> list[Any]:
        seen = [asyncio.current_task()]
        for _ in range(3):
            await wait()
            seen.append(asyncio.current_task())
        return seen

    begun = eager.begin(waiting(), eager.context)
    assert isinstance(begun, Rest)
    results: list[Any] = []
    task = eager.go_on(begun, _keep(begun, results))
    await within(task)
    assert results == [[task] * 4]


async def test_the_next_one_that_waits_has_another_task() -> None:
    """Any number of them wait at a time, each in a task of its own."""
    eager = await ready()
    opened = asyncio.Event()

    async def waiting() -> Any:
        await opened.wait()
        return asyncio.current_task()

    doing = []
    for _ in range(5):
        doing.append(asyncio.create_task(eager.do(waiting())))
        await _turn()
        await _turn()
    opened.set()
    assert len(set(await within(asyncio.gather(*doing)))) == 5


async def test_two_that_wait_in_the_same_turn_are_both_done() -> None:
    """For the second there is no spare task yet: it begins as an ordinary one does."""
    eager = await ready()
    first, second = eager.do(_several()), eager.do(_several())
    assert await within(asyncio.gather(first, second)) == [None, None]


async def test_without_a_spare_task_it_begins_later() -> None:
    eager = await ready()
    begun: list[str] = []

    async def noting() -> str:
        begun.append("begun")
        return "done"

    for unready in (Eager(), eager):
        if unready is eager:
            eager._spare = None
        rest = unready.begin(noting(), unready.context)
        assert isinstance(rest, Rest)
        assert begun == []
        assert await within(unready.go_on(rest)) == "done"
        begun.clear()


async def test_what_is_done_with_the_result_is_done_in_the_same_task() -> None:
    eager = await ready()
    seen: list[Any] = []

    async def waiting() -> str:
        seen.append(asyncio.current_task())
        await _turn()
        return "result"

    async def work(rest: Rest) -> None:
        seen.extend((await rest, asyncio.current_task()))

    rest = eager.begin(waiting(), eager.context)
    task = eager.go_on(rest, work(rest))
    await within(task)
    assert seen == [task, "result", task]


async def _for_ever() -> None:
    await asyncio.Event().wait()


# What asks for its task: timeouts and groups.


@pytest.mark.parametrize("seconds", [-1, 0, 0.001])
async def test_a_timeout_around_its_first_wait_fires(seconds: float) -> None:
    eager = await ready()

    async def waiting() -> str:
        try:
            async with asyncio.timeout(seconds):
                await asyncio.Event().wait()
        except TimeoutError:
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            await _turn()
            return "timed out"
        return "waited for ever"

    assert await eager.do(waiting()) == "timed out"


async def test_a_timeout_that_does_not_fire_is_left_as_it_was_entered() -> None:
    eager = await ready()

    async def waiting() -> str:
        async with asyncio.timeout(60):
            await _turn()
        await _turn()
        return "in time"

    assert await eager.do(waiting()) == "in time"


async def test_a_timeout_without_a_wait_in_it_does_nothing_to_the_next_one() -> None:
    eager = await ready()

    async def hasty() -> str:
        async with asyncio.timeout(0):  # noqa: ASYNC100
            return "at once"

    assert eager.begin(hasty(), eager.context) == "at once"
    await _turn()
    assert await eager.do(_several()) is None


async def test_a_task_group_around_its_first_wait_collects_its_tasks() -> None:
    eager = await ready()

    async def waiting() -> list[int]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(same(number)) for number in range(3)]
        return [task.result() for task in tasks]

    assert await eager.do(waiting()) == [0, 1, 2]


async def test_a_task_group_is_ended_by_one_that_fails() -> None:
    eager = await ready()

    seen: list[str] = []

    async def failing() -> None:
        raise ValueError("one of them")

    async def waiting() -> str:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(failing())
                await _for_ever()
        except* ValueError as raised:
            seen.extend(map(str, raised.exceptions))
        await _turn()
        return "collected"

    assert await eager.do(waiting()) == "collected"
    assert seen == ["one of them"]


# Cancellation.


def _cancel_own_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


FIRST_WAITS = [_turn, _what_comes_later, _for_ever]


@pytest.mark.parametrize("wait", FIRST_WAITS, ids=["a turn", "what comes at once", "for ever"])
@pytest.mark.parametrize("when", ["in the first step", "before it goes on", "later"])
async def test_a_cancelled_task_ends_where_it_waits(wait: Callable[[], Coroutine[Any, Any, None]], when: str) -> None:
    """Once, and at the wait that it is at."""
    eager = await ready()
    seen: list[str] = []

    async def waiting() -> None:
        if when == "in the first step":
            _cancel_own_task()
        try:
            await wait()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            await _turn()
            seen.append("tidied up")
            raise

    rest = eager.begin(waiting(), eager.context)
    task = eager.go_on(rest)
    if when == "later":
        for _ in range(5):
            await _turn()
    if when != "in the first step":
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within(task)
    assert task.cancelled()
    assert seen == ["cancelled", "tidied up"]


@pytest.mark.parametrize("wait", FIRST_WAITS, ids=["a turn", "what comes at once", "for ever"])
@pytest.mark.parametrize("itself", [True, False])
async def test_one_that_does_not_heed_its_cancellation_goes_on(
    wait: Callable[[], Coroutine[Any, Any, None]], itself: bool
) -> None:
    eager = await ready()

    async def stubborn() -> str:
        if itself:
            _cancel_own_task()
        with pytest.raises(asyncio.CancelledError):
            await wait()
        await _turn()
        assert await _future("come") == "come"
        return "done"

    rest = eager.begin(stubborn(), eager.context)
    results: list[Any] = []
    task = eager.go_on(rest, _keep(rest, results))
    if not itself:
        task.cancel()
    await within(task)
    assert results == ["done"]
    assert task.cancelling() == 1


async def test_one_that_ends_without_waiting_though_cancelled_does_no_harm_to_the_next() -> None:
    eager = await ready()

    async def cancelled() -> str:
        _cancel_own_task()
        return "done"

    assert eager.begin(cancelled(), eager.context) == "done"
    await _turn()
    assert eager.begin(same(1), eager.context) == 1
    for _ in range(3):
        assert await eager.do(_several()) is None


async def test_whoever_has_begun_sees_that_it_is_cancelled() -> None:
    """Also one that begins in the turn in which there is no spare task yet: if it begins, in a task that has begun."""
    eager = await ready()
    seen: list[str] = []

    async def waiting() -> None:
        seen.append("begun")
        try:
            await _for_ever()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    tasks = []
    for _ in range(2):
        tasks.append(eager.go_on(eager.begin(waiting(), eager.context)))
        tasks[-1].cancel()
    await within(asyncio.wait(tasks))
    assert seen.count("begun") == seen.count("cancelled") >= 1


async def test_what_it_waits_for_is_cancelled_with_it() -> None:
    eager = await ready()
    inner: list[asyncio.Task[Any]] = []

    async def waiting() -> None:
        inner.append(asyncio.create_task(asyncio.Event().wait()))
        await inner[0]

    task = eager.go_on(eager.begin(waiting(), eager.context))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within(task)
    assert inner[0].cancelled()


# Exceptions.


@pytest.mark.parametrize("error", [ValueError("inside"), asyncio.CancelledError("inside"), KeyboardInterrupt("inside")])
async def test_what_the_first_step_raises_comes_out_at_once(error: BaseException) -> None:
    eager = await ready()

    async def failing() -> None:
        raise error

    with pytest.raises(type(error), match="inside"):
        eager.begin(failing(), eager.context)
    assert eager.begin(same(1), eager.context) == 1
    assert eager.made == 0


async def test_what_is_raised_later_comes_out_of_the_rest() -> None:
    eager = await ready()

    async def failing() -> None:
        await _turn()
        raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        await eager.do(failing())


# Context variables.


async def test_what_it_sets_is_seen_by_nobody_else() -> None:
    """Neither by who begins it nor by the next one; by itself for as long as it goes on."""
    eager = await ready()

    async def setting(value: str) -> tuple[str, str]:
        before = VALUE.get()
        VALUE.set(value)
        return before, VALUE.get()

    async def setting_and_waiting(value: str) -> tuple[str, str]:
        before = VALUE.get()
        VALUE.set(value)
        await _turn()
        return before, VALUE.get()

    for coroutine in (setting, setting, setting_and_waiting, setting_and_waiting, setting):
        assert await eager.do(coroutine(coroutine.__name__)) == ("nothing", coroutine.__name__)
        assert VALUE.get() == "nothing"


async def test_one_that_fails_leaves_no_variable_behind_either() -> None:
    eager = await ready()

    async def failing() -> None:
        VALUE.set("left behind")
        raise ValueError

    async def looking() -> Any:
        return VALUE.get()

    with suppress(ValueError):
        eager.begin(failing(), eager.context)
    assert await eager.do(looking()) == "nothing"


async def test_a_variable_that_is_set_back_costs_no_task() -> None:
    eager = await ready()

    async def tidy() -> None:
        VALUE.reset(VALUE.set("something"))

    for _ in range(10):
        assert eager.begin(tidy(), eager.context) is None
    assert eager.made == 0


async def test_it_sees_the_variables_of_the_context_it_is_given() -> None:
    """The spare task has others: it cannot begin at once. What it sets stays out of that context."""
    eager = await ready()
    looked: list[Any] = []

    async def looking() -> Any:
        looked.append(VALUE.get())
        return looked[-1]

    VALUE.set("the caller's")
    rest = eager.begin(looking(), eager.context_of_caller())
    assert isinstance(rest, Rest)
    assert looked == []
    assert await within(eager.go_on(rest)) == "the caller's"


async def test_it_sees_nothing_of_who_causes_it() -> None:
    """One client's code may cause another's to run, for example by what it emits."""
    eager = await ready()

    async def looking() -> Any:
        return VALUE.get()

    VALUE.set("somebody else's")
    assert eager.begin(looking(), eager.context) == "nothing"
    eager._spare = None
    assert await within(eager.go_on(eager.begin(looking(), eager.context))) == "nothing"


async def test_callers_with_the_same_variables_share_a_context() -> None:
    eager = await ready()
    assert eager.context_of_caller() is eager.context
    VALUE.set("other")
    assert eager.context_of_caller() is not eager.context
    assert eager.context_of_caller()[VALUE] == "other"


async def test_a_variable_with_an_equal_value_is_not_the_same() -> None:
    """Two callers have an empty list each; what is put into the one must not be found in the other."""
    eager = await ready()
    first, second = Context(), Context()
    lists: tuple[list[str], list[str]] = [], []
    first.run(VALUE.set, lists[0])
    second.run(VALUE.set, lists[1])
    eager._spare = None
    first.run(eager.prepare, asyncio.get_running_loop())
    await _turn()

    async def adding() -> None:
        VALUE.get().append("added")

    rest = eager.begin(adding(), second.run(eager.context_of_caller))
    assert isinstance(rest, Rest)
    await within(eager.go_on(rest))
    assert lists == ([], ["added"])
    lists[1].clear()
    assert eager.begin(adding(), first.run(eager.context_of_caller)) is None
    assert lists == (["added"], [])


async def test_a_variable_that_is_set_to_an_equal_value_does_not_stay() -> None:
    eager = await ready()
    mine: list[str] = []
    VALUE.set(mine)
    eager._spare = None
    eager.prepare(asyncio.get_running_loop())
    await _turn()

    async def setting() -> None:
        VALUE.set([])

    async def adding() -> None:
        VALUE.get().append("added")

    assert eager.begin(setting(), eager.context) is None
    await eager.do(adding())
    assert mine == ["added"]


class Incomparable:
    """As arrays of numbers are."""

    def __eq__(self, other: object) -> bool:
        raise TypeError("the truth value is ambiguous")

    __hash__ = None  # type: ignore[assignment]


async def test_values_of_variables_need_no_equality() -> None:
    eager = await ready()
    VALUE.set(Incomparable())
    eager._spare = None
    eager.prepare(asyncio.get_running_loop())
    await _turn()
    VALUE.set(Incomparable())
    assert await eager.do(same(1)) == 1


# Within and beside other tasks.


async def test_who_begins_it_is_the_current_task_again() -> None:
    eager = await ready()

    async def failing() -> None:
        raise ValueError

    me = asyncio.current_task()
    eager.begin(same(), eager.context)
    assert asyncio.current_task() is me
    with suppress(ValueError):
        eager.begin(failing(), eager.context)
    assert asyncio.current_task() is me
    rest = eager.begin(_turn(), eager.context)
    assert asyncio.current_task() is me
    await within(eager.go_on(rest))
    assert asyncio.current_task() is me


async def test_it_can_be_begun_where_there_is_no_task() -> None:
    """From a callback, as the transports do."""
    eager = await ready()
    seen = _future()

    def callback() -> None:
        result = eager.begin(same("result"), eager.context)
        seen.set_result((result, asyncio.current_task()))

    asyncio.get_running_loop().call_soon(callback)
    assert await within(seen) == ("result", None)


@pytest.mark.parametrize("wait", [same, _turn])
async def test_one_that_causes_another_is_not_taken_for_it(wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """The other one begins when there is a task for it."""
    eager = await ready()
    tasks: dict[str, Any] = {}
    inner_rests: list[Rest] = []

    async def inner() -> None:
        tasks["inner"] = asyncio.current_task()
        await wait()

    async def outer() -> None:
        tasks["outer"] = asyncio.current_task()
        inner_rests.append(eager.begin(inner(), eager.context))
        assert "inner" not in tasks
        assert asyncio.current_task() is tasks["outer"]
        await wait()
        assert asyncio.current_task() is tasks["outer"]

    await eager.do(outer())
    await within(eager.go_on(inner_rests[0]))
    assert tasks["inner"] is not tasks["outer"]


# Whoever ends all tasks, other loops, and the end.


async def _end_all_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()


@pytest.mark.parametrize("turns", [0, 1, 3])
async def test_somebody_may_end_all_tasks_of_the_loop(turns: int) -> None:
    """What comes after that has a task that lives, which a timeout can end."""
    eager = await ready()

    async def waiting() -> str:
        task = asyncio.current_task()
        assert task is not None
        assert not task.done()
        try:
            async with asyncio.timeout(0):
                await _for_ever()
        except TimeoutError:
            assert asyncio.current_task() is task
            return "timed out"
        return "waited for ever"

    await _end_all_others()
    for _ in range(turns):
        await _turn()
    assert await eager.do(waiting()) == "timed out"
    await _turn()
    made = eager.made
    assert eager.begin(same(1), eager.context) == 1
    assert eager.made == made


async def test_a_task_that_is_ended_by_a_former_user_ends_nobody_else() -> None:
    """A coroutine that does not wait may leave a timer behind that cancels the task it had."""
    eager = await ready()

    async def leaving_a_timer() -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel)

    assert eager.begin(leaving_a_timer(), eager.context) is None
    await _turn()
    assert await eager.do(_several()) is None


async def test_one_whose_task_is_ended_before_it_goes_on_is_not_lost() -> None:
    eager = await ready()
    rest = eager.begin(_turn(), eager.context)
    assert rest.spare is not None
    rest.spare.task.cancel()
    await _turn()
    results: list[Any] = []
    await within(eager.go_on(rest, _keep(rest, results)))
    assert results == [None]


async def test_a_task_that_is_of_no_use_any_more_is_ended() -> None:
    """One in which a coroutine has left a variable behind, say."""
    eager = await ready()
    before = asyncio.all_tasks()

    async def setting() -> Any:
        VALUE.set("left behind")
        return asyncio.current_task()

    spoiled = [eager.begin(setting(), eager.context)]
    for _ in range(3):
        await _turn()
        spoiled.append(eager.begin(setting(), eager.context))
    await _turn()
    await _turn()
    assert len(set(spoiled)) == 4
    assert all(task.cancelled() for task in spoiled)
    assert len(asyncio.all_tasks()) == len(before)


@pytest.mark.parametrize("in_order", [False, True])
def test_it_serves_a_second_event_loop(in_order: bool) -> None:
    """Whether the first one has ended all its tasks or was just left."""
    eager = Eager()
    made: list[Any] = []

    async def serve() -> None:
        eager.prepare(asyncio.get_running_loop())
        await _turn()
        made.append(eager.begin(same("at once"), eager.context))
        await within(eager.go_on(eager.begin(_several(), eager.context)))

    for _ in range(2):
        if in_order:
            asyncio.run(serve())
        else:
            _abandon(asyncio.new_event_loop(), serve)
    assert made == ["at once"] * 2


async def test_a_server_has_one_for_all_its_connections() -> None:
    io = Server(auth=None)
    io._core.open(Handshake(address="192.0.2.1"))
    await _turn()
    before = asyncio.all_tasks()
    for _ in range(3):
        io._core.open(Handshake(address="192.0.2.1"))
    assert asyncio.all_tasks() == before
    assert io._core.sessions.eager.begin(same(1), io._core.sessions.eager.context) == 1
    io._core.sessions.deadlines.stop()


def _abandon(loop: asyncio.AbstractEventLoop, steps: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run something on a loop, and drop the loop with whatever tasks it has."""
    try:
        loop.run_until_complete(steps())
    finally:
        loop.close()
    gc.collect()


def test_a_server_that_is_dropped_leaves_no_message(caplog: pytest.LogCaptureFixture) -> None:
    async def steps() -> None:
        io = Server(auth=None)
        io._core.open(Handshake(address="192.0.2.1"))
        await _turn()
        assert io._core.sessions.eager.begin(same(1), io._core.sessions.eager.context) == 1
        io._core.sessions.deadlines.stop()

    _abandon(asyncio.new_event_loop(), steps)
    assert caplog.messages == []


@pytest.mark.loop_errors
def test_one_that_goes_on_and_is_dropped_is_a_task_that_was_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    async def steps() -> None:
        eager = Eager()
        eager.prepare(asyncio.get_running_loop())
        await _turn()
        eager.go_on(eager.begin(asyncio.Event().wait(), eager.context))
        await _turn()

    with caplog.at_level(logging.ERROR, "asyncio"):
        _abandon(asyncio.new_event_loop(), steps)
    assert [message.splitlines()[0] for message in caplog.messages] == ["Task was destroyed but it is pending!"]


async def test_a_rest_can_be_closed_after_its_coroutine() -> None:
    """The garbage collector closes the coroutines of a reference cycle in any order."""
    eager = await ready()
    coroutine = asyncio.Event().wait()
    rest = eager.begin(coroutine, eager.context)
    awaiting = rest.__await__()
    next(awaiting)
    coroutine.close()
    awaiting.close()


@pytest.mark.parametrize("with_work", [False, True])
@pytest.mark.parametrize("spare", [False, True])
async def test_one_that_is_cancelled_before_it_has_begun_is_no_warning(with_work: bool, spare: bool) -> None:
    eager = await ready()
    if not spare:
        eager._spare = None
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        rest = eager.begin(_turn(), eager.context)
        task = eager.go_on(rest, _keep(rest, []) if with_work else None)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await within(task)
        del rest, task
        await _turn()
        gc.collect()
    assert [str(warning.message) for warning in warned] == []


async def test_the_context_of_the_test_is_left_alone() -> None:
    eager = await ready()
    before = copy_context()

    async def setting() -> None:
        VALUE.set("mine")
        await _turn()

    await eager.do(setting())
    assert copy_context() == before
