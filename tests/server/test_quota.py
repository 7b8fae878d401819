"""What is done in one turn of the event loop, and what waits for the next."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from iogate.server.heads import Quota


async def test_a_few_pieces_a_turn() -> None:
    quota = Quota(2)
    for _ in range(3):
        assert [quota.take() for _ in range(4)] == [True, True, False, False]
        await asyncio.sleep(0)


async def test_what_waits_is_done_in_order_and_before_what_comes_later() -> None:
    quota = Quota(2)
    done: list[int] = []
    assert [quota.take() for _ in range(3)] == [True, True, False]
    for number in range(5):
        quota.later(partial(done.append, number))
    seen = []
    for _ in range(3):
        await asyncio.sleep(0)
        seen.append((len(quota), list(done), quota.take()))
    assert seen == [(3, [0, 1], False), (1, [0, 1, 2, 3], False), (0, [0, 1, 2, 3, 4], True)]


async def test_a_piece_that_fails_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    quota = Quota(1)
    done: list[int] = []
    assert [quota.take() for _ in range(2)] == [True, False]

    def fail() -> None:
        raise ValueError("broken")

    quota.later(fail)
    quota.later(partial(done.append, 1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert done == [1]
    assert "broken" in caplog.text


def test_the_next_event_loop_has_all_of_it() -> None:
    quota = Quota(1)

    async def use() -> bool:
        taken = quota.take()
        if taken and not quota.take():
            for _ in range(9):
                quota.later(lambda: None)
        assert len(quota) == 9
        return taken

    assert asyncio.run(use())
    assert asyncio.run(use())
