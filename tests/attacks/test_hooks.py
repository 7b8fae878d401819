"""Rows 34 and 35: hooks that fail, and clients that do not wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from iogate.server.session.handshake import Handshake
from iogate.testing import advance, settle
from tests import refusals
from tests.attacks.places import HELD, HOUR, Hook, Place, answer, asks, enters, in_band
from tests.attacks.showing import assert_undisturbed, victim
from tests.conformance.wire import Polling, Session, WebSocket, echoes, session, within
from tests.gate.stage import Wire
from tests.gate.support import connect, hear
from tests.server.left import leftovers, until

# Row 34: hooks that fail.


class Odd(BaseException):
    """What no `except Exception` catches."""


class Unspeakable(Exception):
    """What cannot even be written down."""

    def __str__(self) -> str:
        raise ValueError("it has no text")


ERRORS: tuple[type[BaseException], ...] = (
    *(ValueError, AssertionError, RecursionError, MemoryError, TimeoutError, ConnectionError, Unspeakable),
    *(StopIteration, StopAsyncIteration, asyncio.CancelledError, GeneratorExit, Odd),
)

Raising = Callable[[type[BaseException]], Hook]


def plainly(error: type[BaseException]) -> Hook:
    """Return a function that raises this."""

    def hook(claims: Any) -> Any:
        raise error

    return hook


def at_once(error: type[BaseException]) -> Hook:
    """Return a coroutine function that raises it before it has waited."""

    async def hook(claims: Any) -> Any:
        raise error

    return hook


def later(error: type[BaseException]) -> Hook:
    """Return one that raises it when others have had their turn."""

    async def hook(claims: Any) -> Any:
        await asyncio.sleep(0)
        raise error

    return hook


WAYS = [
    *(("CONNECT", stage) for stage in ("verify", "load_user", "middleware")),
    *(("authenticate", stage) for stage in ("verify", "load_user", "middleware")),
    *(("refresh", stage) for stage in ("verify", "load_user")),
]


async def verdict(place: Place, url: str, transport: str, way: str) -> Any:
    """Come to the gate with a good token, and return the refusal; make sure that a refresh leaves what there was."""
    async with session(url, transport) as mallory:
        token = place.token(jti=HELD, iat=place.ago(5))
        if way == "refresh":
            await enters(mallory, place.token(jti="first"))
        await asks(mallory, way, token)
        if way != "refresh":
            return await answer(mallory, way)
        name, told = await hear(mallory)
        assert name == "unauthorized"
        await echoes(mallory)
        assert (await place.socket()).principal.token_id == "first"
        await mallory.send("1")
        await until(lambda: len(place.io._core.sessions.table) == 1)
        return {"message": told["message"], "data": told["data"]}


@pytest.mark.parametrize(("way", "stage"), WAYS, ids=str)
@pytest.mark.parametrize("raising", [plainly, at_once, later], ids=lambda raising: raising.__name__)
async def test_a_hook_that_raises(transport: str, way: str, stage: str, raising: Raising) -> None:
    """Row 34: whatever it is, it is a refusal that does not say why, and harms nobody else."""
    place = Place(**in_band(way))
    async with victim(place.io, transport) as (url, alice):
        for error in ERRORS:
            place.hooks[stage] = raising(error)
            assert await verdict(place, url, transport, way) == refusals.UNAVAILABLE, error
            await assert_undisturbed(place.io, alice)
        assert place.refreshed == []
        assert set(place.entered) == ({"alice", "mallory"} if way == "refresh" else {"alice"})


async def cancels_itself(claims: Any) -> Any:
    """Cancel the task that it runs in, as a timeout does."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.Event().wait()


async def waits_for_what_is_cancelled(claims: Any) -> Any:
    """Wait for what somebody else has given up."""
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.cancel)
    await future


@pytest.mark.parametrize(("way", "stage"), WAYS, ids=str)
@pytest.mark.parametrize("hook", [cancels_itself, waits_for_what_is_cancelled], ids=lambda hook: hook.__name__)
async def test_a_hook_that_is_cancelled(transport: str, way: str, stage: str, hook: Hook) -> None:
    """Row 34."""
    place = Place(**in_band(way))
    async with victim(place.io, transport) as (url, alice):
        place.hooks[stage] = hook
        assert await verdict(place, url, transport, way) == refusals.UNAVAILABLE
        await assert_undisturbed(place.io, alice)


@pytest.mark.parametrize(("way", "stage"), WAYS, ids=str)
async def test_a_hook_that_never_returns(transport: str, way: str, stage: str) -> None:
    """Row 34: it is given up at the deadline, and so is who waits for it."""
    place = Place(**in_band(way))
    async with victim(place.io, transport) as (url, alice):
        door = place.hold(stage)
        coming = asyncio.create_task(verdict(place, url, transport, way))
        await within(door.reached.wait())
        await advance(place.io, 9.875)
        assert not door.left.is_set()
        await echoes(alice)
        await advance(place.io, 0.125)
        assert await within(coming) == refusals.UNAVAILABLE
        await within(door.left.wait())
        await assert_undisturbed(place.io, alice)


async def nobody(claims: Any) -> None:
    """Find no user."""


@pytest.mark.parametrize("way", ["CONNECT", "authenticate", "refresh"])
@pytest.mark.parametrize("hook", [nobody, lambda claims: None], ids=["async def", "def"])
async def test_a_user_who_is_none(transport: str, way: str, hook: Hook) -> None:
    """Row 34: a token of somebody whom the application does not know is as good as none."""
    place = Place(**in_band(way))
    async with victim(place.io, transport) as (url, alice):
        place.hooks["load_user"] = hook
        assert await verdict(place, url, transport, way) == refusals.INVALID
        await assert_undisturbed(place.io, alice)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("stage", ["verify", "load_user", "middleware"])
async def test_a_hook_that_ends_the_process(stage: str, error: type[BaseException]) -> None:
    """Row 34: it does, but nobody is let in before. In memory: a real server would end with it."""
    place = Place()
    place.hooks[stage] = plainly(error)
    connection = place.io._core.open(Handshake(address="192.0.2.1"))
    wire = Wire(connection, polls=False)
    connection.begin(wire)
    await asyncio.sleep(0)  # Until coroutines can be begun on the spot.
    with pytest.raises(error):
        connection.receive(connect(place.token(jti=HELD)).encode())
    assert wire.received == [("refused", "/", "unavailable", refusals.UNAVAILABLE["message"])]
    await until(lambda: leftovers(place.io) == {})
    assert place.entered == []


# Row 35: a client that goes while its verdict is pending.


async def says_goodbye(mallory: Session) -> None:
    """Send the packet that ends a session."""
    await mallory.send("1")


async def hangs_up(mallory: Session) -> None:
    """Cut the line, while the server waits to send something."""
    if isinstance(mallory, WebSocket):
        mallory.connection.transport.abort()
        return
    assert isinstance(mallory, Polling)
    poll = asyncio.create_task(mallory.get())
    await settle()
    poll.cancel()
    await asyncio.wait([poll])


async def leaves_the_namespace(mallory: Session) -> None:
    """Take the question back, and stay."""
    await mallory.send("41")


async def breaks_the_rules(mallory: Session) -> None:
    """Send what is no packet."""
    await mallory.send("4x")


Leaving = Callable[[Session], Awaitable[None]]


GOING = [
    (way, stage, leaves)
    for way, stage in WAYS
    for leaves in (says_goodbye, hangs_up, breaks_the_rules, leaves_the_namespace)
    # A refresh is the whole connection's, and goes on when one namespace is left.
    if (way, leaves) != ("refresh", leaves_the_namespace)
]


@pytest.mark.parametrize(("way", "stage", "leaves"), GOING, ids=lambda part: getattr(part, "__name__", part))
async def test_a_client_that_goes_before_its_verdict(transport: str, way: str, stage: str, leaves: Leaving) -> None:
    """Row 35: what was begun for it is given up at once, and no table remembers it."""
    place = Place(connect_timeout=HOUR, **({"authenticate_within": HOUR} if way == "authenticate" else {}))
    async with victim(place.io, transport) as (url, alice):
        before = leftovers(place.io)
        async with session(url, transport) as mallory:
            if way == "refresh":
                await enters(mallory, place.token())
            door = place.hold(stage)
            await asks(mallory, way, place.token(jti=HELD, iat=place.ago(5)))
            await within(door.reached.wait())
            assert leftovers(place.io) != before
            await leaves(mallory)
            await within(door.left.wait())
            door.opened.set()
            if leaves is leaves_the_namespace:
                await mallory.send("1")
            await settle()
            await advance(place.io, 10.0)  # Over polling, the last words are kept for a moment.
            await until(lambda: leftovers(place.io) == before)
        assert place.refreshed == []
        await assert_undisturbed(place.io, alice)


@pytest.mark.parametrize(("way", "stage"), WAYS, ids=str)
async def test_a_hook_that_does_not_notice_that_its_client_has_gone(transport: str, way: str, stage: str) -> None:
    """Row 35: what it says in the end counts for nobody."""
    place = Place(**in_band(way))
    stopped, woken = asyncio.Event(), asyncio.Event()

    async def stubborn(claims: Any) -> Any:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.set()
            await woken.wait()
        return claims

    async with victim(place.io, transport) as (url, alice):
        before = leftovers(place.io)
        place.hooks[stage] = stubborn
        async with session(url, transport) as mallory:
            if way == "refresh":
                await enters(mallory, place.token())
            await asks(mallory, way, place.token(jti=HELD, iat=place.ago(5)))
            await mallory.send("1")
            await within(stopped.wait())
            entered = list(place.entered)
            await advance(place.io, 10.0)
            assert {name for name, table in leftovers(place.io).items() if table != before.get(name)} <= {
                "tasks",
                "visitors of /",
            }
            woken.set()
            await until(lambda: leftovers(place.io) == before)
        assert place.entered == entered
        assert place.refreshed == []
        await assert_undisturbed(place.io, alice)
