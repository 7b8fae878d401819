"""Beginning a coroutine at once, in the middle of what runs now, and giving it a task only if it has to wait.

Most handlers never wait, and a task for each would be a good part of what an event costs. But a coroutine must find a
task of its own from its first step on: `asyncio.timeout`, `asyncio.TaskGroup` and many libraries ask for it. So there
is one that exists already, a spare task, which waits for nothing but to be needed. The first step is run in its name
and in its context. If the coroutine ends with that, the spare task is there for the next one; if it waits, the spare
task goes on with it, and another one takes its place.

Python has eager tasks from 3.12 on, which run the first step in the same way; this serves 3.11 as well, and makes no
task for what does not wait.
"""

from __future__ import annotations

import asyncio
from asyncio import current_task
from asyncio.tasks import _enter_task, _leave_task  # What asyncio has for other makers of tasks.
from collections.abc import Awaitable, Coroutine, Generator
from contextvars import Context, copy_context
from typing import Any, Final

_NO_VALUE: Final = object()


class Rest:
    """The rest of a coroutine: all of it, or what follows its first step. It can be awaited once.

    Args:
        coroutine: the coroutine.
        context: the context; the coroutine runs in a copy of it.
        spare: the task that ran the first step; None if it has not begun.
        waits_for: what the first step waits for.
    """

    __slots__ = ("_cancelled", "_waits_for", "context", "coroutine", "spare")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Any],
        context: Context,
        spare: _Spare | None = None,
        waits_for: Any = None,
    ) -> None:
        self.coroutine = coroutine
        self.context = context
        self._waits_for = waits_for
        self._cancelled = False
        self.spare = spare

    def __await__(self) -> Generator[Any, Any, Any]:
        if self.spare is None:
            return (yield from self.coroutine.__await__())
        try:
            if self._cancelled:
                raise asyncio.CancelledError
            yield self._waits_for
        except GeneratorExit:
            # Where the garbage collector drops both, it may have closed the coroutine already: `throw` would fail.
            self.coroutine.close()
            raise
        except BaseException as error:
            self._waits_for = None  # Its exception may be `error`, which refers to `self`: a reference cycle.
            try:
                self._waits_for = self.coroutine.throw(error)
            except StopIteration as end:
                return end.value
            self._cancelled = False
            return (yield from self.__await__())
        return (yield from self.coroutine.__await__())

    def cancel(self) -> None:
        """Cancel what it waits for, or, where there is no such thing, it itself."""
        self._cancelled = self._waits_for is None or not self._waits_for.cancel()


class _Spare:
    """A task that waits to be needed."""

    __slots__ = ("_cue", "_rest", "_work", "context", "parked", "pristine", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop, pristine: Context) -> None:
        self.context = pristine.copy()
        self.pristine = pristine
        self.parked = False
        self._rest: Rest | None = None
        self._work: Awaitable[None] | None = None
        self._cue: asyncio.Future[None] = loop.create_future()
        self.task = loop.create_task(self._run(), context=self.context)
        # Who drops a server drops its spare task with it; that is no task which was forgotten.
        self.task._log_destroy_pending = False  # type: ignore[attr-defined]

    @property
    def ended(self) -> bool:
        """Whether somebody has cancelled it: who ends all tasks of the loop, or a timer that an earlier user left."""
        return self._cue.done()

    @property
    def untouched(self) -> bool:
        """Whether what ran in its name has left nothing behind: no cancellation, no context variable."""
        return not self._cue.done() and _same(self.context, self.pristine)

    def take(self, rest: Rest, work: Awaitable[None]) -> None:
        """Go on with a coroutine."""
        self._rest, self._work = rest, work
        self.task._log_destroy_pending = True  # type: ignore[attr-defined]
        if not self._cue.done():
            self._cue.set_result(None)

    async def _run(self) -> None:
        self.parked = True
        try:
            await self._cue
        except asyncio.CancelledError:
            if self._rest is None:
                raise
            self._rest.cancel()  # It was the coroutine's first step, or somebody since, that has cancelled its task.
        work = self._work
        assert work is not None  # noqa: S101
        # The work and the task refer to `self`: do not keep reference cycles.
        self._rest = self._work = None
        del self.task
        await work


class Eager:
    """Begins the coroutines of one event loop.

    `context` has the context variables of the server itself. Coroutines run only in copies of it, so one client's code
    does not see what another's sets.
    """

    __slots__ = ("_loop", "_spare", "context")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._spare: _Spare | None = None
        self.context = Context()

    def prepare(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have a spare task on this event loop. It can be used from the loop's next turn on."""
        self._loop, self.context = loop, copy_context()
        self._spare = _Spare(loop, self.context)

    def context_of_caller(self) -> Context:
        """Return a copy of the caller's context, or `context` itself if all values are the same there."""
        context = copy_context()
        return self.context if _same(context, self.context) else context

    def begin(self, coroutine: Coroutine[Any, Any, Any], context: Context) -> Any:
        """Run a coroutine up to where it first waits.

        Args:
            coroutine: the coroutine.
            context: the context; the coroutine runs in a copy of it.

        Returns:
            Its result if it ended; otherwise a `Rest`, which `go_on` must be given. It has not begun then if there is
            no spare task: in the first step of another coroutine, or for another context than `self.context`.

        Raises:
            BaseException: what it raised.
        """
        spare, loop = self._spare, self._loop
        if context is not self.context or spare is None or not spare.parked:
            return Rest(coroutine, context)
        current = current_task(loop)
        if current is spare.task:
            return Rest(coroutine, context)
        if spare.ended:
            self._replace(spare, used=True)
            return Rest(coroutine, context)
        if current is not None:
            _leave_task(loop, current)  # type: ignore[arg-type]
        _enter_task(loop, spare.task)  # type: ignore[arg-type]
        ended = True
        try:
            waits_for = spare.context.run(coroutine.send, None)
            ended = False
        except StopIteration as end:
            return end.value
        finally:
            _leave_task(loop, spare.task)  # type: ignore[arg-type]
            if current is not None:
                _enter_task(loop, current)  # type: ignore[arg-type]
            if not (ended and spare.untouched):
                self._replace(spare, used=not ended)
        return Rest(coroutine, context, spare, waits_for)

    def go_on(self, rest: Rest, work: Coroutine[Any, Any, None] | None = None) -> asyncio.Task[None]:
        """Return the task that goes on with what `begin` has begun.

        Args:
            rest: what `begin` returned.
            work: what the task is to do, if it is more than to await `rest`.
        """
        if rest.spare is None and work is None:
            return asyncio.create_task(rest.coroutine, context=rest.context.copy())
        work = _awaited(rest) if work is None else work
        if rest.spare is None or rest.spare.task.done():  # It is done if somebody has ended all tasks of the loop.
            task = asyncio.create_task(work, context=rest.context.copy())
            # If it is cancelled before its first step, nobody has awaited the coroutine.
            task.add_done_callback(lambda _: rest.coroutine.close())
            return task
        rest.spare.take(rest, work)
        return rest.spare.task

    def _replace(self, spare: _Spare, *, used: bool) -> None:
        if not used:
            spare.task.cancel()
            del spare.task
        self._spare = _Spare(self._loop, self.context)  # type: ignore[arg-type]


async def _awaited(rest: Rest) -> None:
    await rest


def _same(one: Context, other: Context) -> bool:
    """Say whether two contexts have the same values: not equal ones, which may be filled by different hands."""
    if len(one) != len(other):
        return False
    for variable, value in one.items():  # noqa: SIM110
        if other.get(variable, _NO_VALUE) is not value:
            return False
    return True
