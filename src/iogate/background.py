"""An event loop in its own thread, for servers whose application code runs in threads.

There is one per process. It is created on first use. A forked child creates a new one, because threads do not survive a
fork.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

logger = logging.getLogger("iogate")

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None


def loop() -> asyncio.AbstractEventLoop:
    """Return the event loop, and start it on first use."""
    global _loop, _thread
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            _thread = threading.Thread(target=_serve, args=(_loop,), name="iogate", daemon=True)
            _thread.start()
        return _loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    while True:
        try:
            return loop.run_forever()
        except BaseException:
            # For example, a function of the application raised SystemExit. Its caller receives the exception; all other
            # callers still need the event loop, so it must not end.
            logger.exception("the event loop in the background goes on")


def run(work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
    """Run a coroutine on the event loop, and return its result or raise its exception.

    Args:
        work: the coroutine.
        timeout: seconds after which the coroutine is cancelled; None for no limit.

    Raises:
        TimeoutError: the coroutine took longer than `timeout`.
        RuntimeError: called in the thread of the event loop, which would wait for itself.
    """
    if threading.current_thread() is _thread:
        work.close()
        raise RuntimeError("this would wait for itself: on the event loop of the gate, await instead")
    running = asyncio.run_coroutine_threadsafe(work, loop())
    try:
        return running.result(timeout)
    except TimeoutError:
        running.cancel()
        raise


def call(function: Callable[..., T], *args: Any) -> T:
    """Call a function on the event loop, and return its result or raise its exception.

    In the thread of the event loop, this calls the function directly.
    """
    if threading.current_thread() is _thread:
        return function(*args)
    result: Future[T] = Future()

    def called() -> None:
        try:
            result.set_result(function(*args))
        except BaseException as error:
            result.set_exception(error)

    loop().call_soon_threadsafe(called)
    return result.result()


def _forget() -> None:
    global _loop, _thread, _lock
    _lock, _loop, _thread = threading.Lock(), None, None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
