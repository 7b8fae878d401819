"""Whose context code of the application runs in behind the gate, and for whom it runs at all."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import pytest

from tests.conformance.wire import POLLING, ends, enter, polling, session, within
from tests.gate.support import StoppedWallClock, authenticate, connect, make_auth
from tests.integrations.both import Behind
from tests.server.left import until

whose: contextvars.ContextVar[str] = contextvars.ContextVar("whose", default="nobody's")


@pytest.mark.parametrize("async_handlers", [True, False])
async def test_what_one_user_sets_no_other_sees(kind: str, way: str, async_handlers: bool) -> None:
    """Row 45: in no handler, neither of events nor of coming and going, also if the gate or another user ends them."""
    behind, seen = Behind(kind, async_handlers=async_handlers), []

    def mark(name: str) -> None:
        seen.append((name, whose.get()))
        whose.set(name)

    behind.on("connect", lambda: mark("comes"))
    behind.on("disconnect", lambda: mark("goes"))
    behind.on("mark", mark)
    behind.on("end", lambda name: _revoke(behind, name))
    async with behind.serve() as url, session(url, way) as ann, session(url, way) as bob:
        await enter(ann, sub="ann")
        await ann.send('42["mark","ann"]')
        await until(lambda: len(seen) == 2)
        await enter(bob, sub="bob")
        await bob.send('42["mark","bob"]')
        await until(lambda: len(seen) == 4)
        await ann.send('42["mark","ann again"]')
        await until(lambda: len(seen) == 5)
        await ann.send('42["end","bob"]')  # In ann's handler; bob's handler of disconnect runs in bob's context.
        await ends(bob)
        await until(lambda: len(seen) == 6)
    theirs = {"comes": {"nobody's"}, "goes": {"nobody's"}, "bob": {"nobody's", "comes"}, "ann": {"nobody's", "comes"}}
    for name, found in seen:
        assert found in theirs.get(name, {"nobody's", "comes", "ann"}), seen


def _revoke(behind: Behind, subject: str) -> Any:
    return behind.gate.revoke(subject=subject)


async def test_a_timer_that_one_user_started_ends_another_in_a_context_of_his_own(kind: str, way: str) -> None:
    """Row 45: the deadlines of all are under one timer, which remembers the context in which it was started."""
    clock = StoppedWallClock()
    behind, seen = Behind(kind, auth=make_auth(refresh_before=0, clock=clock), async_handlers=False), []
    behind.on("connect", lambda: None)
    behind.on("mark", lambda: whose.set("ann's"))
    behind.on("disconnect", lambda: seen.append(whose.get()))
    async with behind.serve() as url, session(url, way) as ann, session(url, way) as bob:
        loop = asyncio.get_running_loop()
        await enter(ann, sub="ann")
        await ann.send('42["mark"]')
        await enter(bob, sub="bob", exp=clock.now + 1)
        await ann.send('42["mark"]', authenticate(sub="ann"))
        await ends(bob)
        await until(lambda: seen)
        assert loop is asyncio.get_running_loop()
    assert seen[0] == "nobody's"


async def test_a_thread_that_is_used_again_keeps_nothing_of_who_used_it_before() -> None:
    """Row 45: a WSGI server with a pool of threads serves one client after another on each."""
    behind, seen = Behind("Server", async_handlers=False), []

    def mark(name: str) -> None:
        seen.append((name, whose.get(), threading.get_ident()))
        whose.set(name)

    behind.on("mark", mark)
    async with behind.serve() as url, polling(url) as ann, polling(url) as bob:
        await enter(ann, sub="ann")
        await enter(bob, sub="bob")
        one_thread = contextvars.copy_context()
        sessions = behind.glue._sessions
        for client, name in ((ann, "ann"), (bob, "bob")):
            sid = client.handshake["sid"]
            assert sid in sessions
            one_thread.run(behind.glue.engine_message, sid, f'2["mark","{name}"]')
    assert [found for _, found, _ in seen] == ["nobody's", "nobody's"]


# For whom.


@pytest.mark.parametrize("how", ["revoked", "left", "expired"])
async def test_an_event_that_waited_for_its_handler_is_dropped_with_its_client(kind: str, way: str, how: str) -> None:
    """Row 43: python-socketio gives each event a task or a thread; it may begin when the client has gone."""
    behind, ran, held = Behind(kind), [], []
    behind.on("mark", lambda: ran.append(1))
    start = behind.sio.start_background_task

    def hold(target: Any, *args: Any) -> Any:
        """Begin later, as a busy machine does."""
        held.append((target, args))
        return asyncio.get_running_loop().create_future() if not behind.threaded else None

    async with behind.serve() as url, session(url, way) as client:
        await enter(client, exp=int(behind.io._core.auth.clock.wall()) + (2 if how == "expired" else 60))  # type: ignore[union-attr]
        behind.sio.start_background_task = hold
        await client.send('427["mark"]')
        await until(lambda: held)
        behind.sio.start_background_task = start
        (session_,) = behind.glue._sessions.values()
        if how == "revoked":
            await behind.revoke(subject="ann")
        elif how == "left":
            await client.send("41")
        await until(lambda: not session_.sockets)
        ((target, args),) = held
        if behind.threaded:
            await asyncio.to_thread(target, *args)
        else:
            await target(*args)
    assert ran == []


# What is logged.


async def test_names_of_clients_are_logged_escaped_and_short(
    kind: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 47: of namespaces, events and sessions, by the gate and by python-engineio behind it."""
    caplog.set_level("DEBUG")
    behind = Behind(kind)
    evil = "/evil\x1b[31m\nroot: let in " + "x" * 150

    def fails() -> None:
        raise ValueError("the application's own")

    behind.on("disconnect", fails, evil)
    behind.on("evil\nevent", fails)
    async with behind.serve() as url:
        async with session(url, way) as client:
            await client.send(f"40{evil}," + connect()[2:])
            await within(client.receive())
            await client.send(f"41{evil},")
            await until(lambda: any("disconnect" in record.getMessage() for record in caplog.records))
        async with polling(url) as other:
            for query in ({"sid": "evil\nsession" + "x" * 5000}, {"transport": "evil\x1b"}):
                await other.http.get("/socket.io/", params={**POLLING, **query})
                await other.http.post("/socket.io/", params={**POLLING, **query})
    for record in caplog.records:
        if record.name.split(".")[0] in {"iogate", "engineio", "socketio"}:
            message = record.getMessage()
            assert message.isprintable(), message
            assert len(message) < 500, message
