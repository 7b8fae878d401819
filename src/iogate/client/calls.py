"""Calls of application functions that may hang: `get_token`, and functions that return a URL, headers or `auth`.

A coroutine that hangs is cancelled. A thread that hangs cannot be stopped: it is abandoned, its result is ignored, and
the number of such threads is limited.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable
from typing import Any

from iogate.client.run import NotAnswered

MAX_THREADS = 10
"""Application functions that may run at a time for one client on threads; with that many, no further one is started."""


async def call(function: Callable[..., Any], *args: object, what: str, limit: float | None) -> Any:
    """Call a function, plain or `async def`, and return its result.

    Args:
        function: the function. A plain function cannot be interrupted.
        args: its arguments.
        what: its name, for the error message.
        limit: the seconds that a coroutine may take; None for no limit.

    Raises:
        NotAnswered: the coroutine took longer and was cancelled, or it was cancelled by other code.
    """
    result = function(*args)
    if not inspect.isawaitable(result):
        return result
    task = asyncio.ensure_future(result)
    task.add_done_callback(ignore_result)
    try:
        await asyncio.wait({task}, timeout=limit)
    finally:
        finished = task.done()
        task.cancel()  # The task may ignore this, so nothing waits for its end.
    if not finished:
        raise NotAnswered(f"{what} did not return within {limit:g} s")
    if task.cancelled():
        raise NotAnswered(f"{what} was cancelled")
    return task.result()


def ignore_result(task: asyncio.Future[Any]) -> None:
    """Retrieve the exception of a task, if any, so that asyncio does not log it as never retrieved."""
    if not task.cancelled():
        task.exception()


class Call:
    """One call of a function in its own thread."""

    def __init__(self, what: str, reason: str, limit: float | None) -> None:
        self.what = what
        self.reason = reason
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None
        self._limit = limit
        self._deadline = None if limit is None else time.monotonic() + limit

    @property
    def remaining(self) -> float | None:
        """The seconds left; None for no limit."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def outcome(self) -> Any:
        """Return the result of the function, or raise its exception.

        Raises:
            NotAnswered: the function has not returned.
        """
        if not self.done:
            raise NotAnswered(f"{self.what} did not return within {self._limit or 0:g} s")
        if self.error is not None:
            raise self.error
        return self.result


class Calls:
    """The calls for one client on threads.

    `changed` is the condition on which all threads of a client wait: for a call to return, for a connection to end, for
    an answer, or for `disconnect()`. Code that changes one of these notifies all waiting threads.
    """

    def __init__(self, start: Callable[..., object]) -> None:
        self.changed = threading.Condition()
        self._start = start
        self._running = 0

    def begin(
        self, function: Callable[..., Any], *args: object, what: str, reason: str = "", limit: float | None
    ) -> Call:
        """Start a call.

        Raises:
            NotAnswered: `MAX_THREADS` earlier calls have not returned.
        """
        with self.changed:
            if self._running >= MAX_THREADS:
                raise NotAnswered(f"{what} is not called: {MAX_THREADS} calls before it have not returned")
            self._running += 1
        call = Call(what, reason, limit)
        self._start(self._run, call, function, args)
        return call

    def _run(self, call: Call, function: Callable[..., Any], args: tuple[object, ...]) -> None:
        try:
            call.result = function(*args)
        except BaseException as error:  # Includes SystemExit: the waiting thread raises it.
            call.error = error
        with self.changed:
            call.done = True
            self._running -= 1
            self.changed.notify_all()

    def wait(self, call: Call, stopped: Callable[[], bool]) -> None:
        """Wait until a call has returned, its time is up, or `stopped` returns True."""
        with self.changed:
            self.changed.wait_for(lambda: call.done or stopped(), call.remaining)

    def pause(self, stopped: Callable[[], bool], delay: float | None) -> None:
        """Wait for a number of seconds (None for no limit), or until `stopped` returns True."""
        with self.changed:
            self.changed.wait_for(stopped, delay)

    def tell(self) -> None:
        """Wake all waiting threads, so that they check what has changed."""
        with self.changed:
            self.changed.notify_all()
