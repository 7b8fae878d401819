"""What is asked for in a turn of the event loop is done at its end, once, in order, whatever fails."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from iogate import Server
from iogate.server.session.handshake import Handshake
from iogate.server.session.turn import Turn


@pytest.fixture
async def turn() -> Turn:
    made = Turn()
    made.prepare(asyncio.get_running_loop())
    return made


async def test_work_is_done_at_the_end_of_the_turn_in_the_order_it_was_asked_for(turn: Turn) -> None:
    done: list[int] = []
    for number in range(5):
        turn.add(partial(done.append, number))
    assert done == []
    await asyncio.sleep(0)
    assert done == [0, 1, 2, 3, 4]
    await asyncio.sleep(0)
    assert done == [0, 1, 2, 3, 4]


async def test_every_turn_has_an_end_of_its_own(turn: Turn) -> None:
    done: list[int] = []
    for number in range(3):
        turn.add(partial(done.append, number))
        await asyncio.sleep(0)
        assert done == list(range(number + 1))


async def test_one_callback_of_the_loop_does_it_all(turn: Turn, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    asked: list[object] = []
    call_soon = loop.call_soon

    def counted(callback: object, *args: object) -> object:
        asked.append(callback)
        return call_soon(callback, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(loop, "call_soon", counted)
        for _ in range(100):
            turn.add(lambda: None)
    assert len(asked) == 1


async def test_work_that_fails_is_logged_and_the_rest_is_done(turn: Turn, caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []

    def fail() -> None:
        raise ValueError("the inside")

    for work in (partial(done.append, "before"), fail, partial(done.append, "after")):
        turn.add(work)
    await asyncio.sleep(0)
    assert done == ["before", "after"]
    assert caplog.messages == ["at the end of a turn"]
    assert "the inside" in caplog.text


async def test_work_that_is_asked_for_at_the_end_is_done_at_the_end_of_the_next_turn(turn: Turn) -> None:
    done: list[str] = []

    def again() -> None:
        done.append("first")
        turn.add(partial(done.append, "second"))

    turn.add(again)
    turn.add(partial(done.append, "beside"))
    await asyncio.sleep(0)
    assert done == ["first", "beside"]
    await asyncio.sleep(0)
    assert done == ["first", "beside", "second"]


async def test_a_new_connection_does_not_lose_what_others_wait_for() -> None:
    io = Server(auth=None)
    io._core.open(Handshake(address="192.0.2.1"))
    done: list[str] = []
    io._core.sessions.turn.add(partial(done.append, "done"))
    io._core.open(Handshake(address="192.0.2.1"))
    io._core.sessions.turn.add(partial(done.append, "too"))
    await asyncio.sleep(0)
    assert done == ["done", "too"]
    io._core.sessions.deadlines.stop()


def test_it_serves_a_second_event_loop() -> None:
    """What the first one did not come to is not done: whom it was for has gone with it."""
    turn = Turn()
    done: list[str] = []

    async def serve(name: str, *, to_the_end: bool) -> None:
        turn.prepare(asyncio.get_running_loop())
        turn.add(partial(done.append, name))
        if to_the_end:
            await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    loop.call_soon(loop.stop)  # `add` would make it one turn more.
    first = loop.create_task(serve("lost", to_the_end=False))
    loop.run_forever()
    loop.close()
    assert first.done()
    asyncio.run(serve("done", to_the_end=True))
    assert done == ["done"]
