"""The event loop on a thread of its own."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from iogate import background


async def _where() -> threading.Thread:
    return threading.current_thread()


def test_all_of_it_runs_on_one_thread_that_ends_with_the_process() -> None:
    thread = background.run(_where())
    assert thread is not threading.current_thread()
    assert thread.daemon
    assert background.run(_where()) is background.call(threading.current_thread) is thread


def test_what_is_raised_comes_back() -> None:
    async def fails() -> None:
        raise KeyError("x")

    def fails_plainly() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        background.run(fails())
    with pytest.raises(KeyError):
        background.call(fails_plainly)


def test_what_takes_too_long_is_cancelled() -> None:
    cancelled = threading.Event()

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(TimeoutError):
        background.run(waits(), timeout=0.01)
    assert cancelled.wait(5)


def test_it_does_not_wait_for_itself() -> None:
    async def nested() -> None:
        assert background.call(lambda: 1) == 1
        with pytest.raises(RuntimeError, match="await instead"):
            background.run(_where())

    background.run(nested(), timeout=5)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_that_was_forked_off_has_a_loop_of_its_own() -> None:
    background.loop()
    child = os.fork()
    if child == 0:
        try:
            background.run(asyncio.sleep(0), timeout=10)
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
