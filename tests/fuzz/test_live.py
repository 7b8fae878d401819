"""A live server among strangers: short rounds on each scene, and that a round notices what is wrong with a server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest

from fuzz.live import left, rounds
from fuzz.live.rounds import SCENES, Finding, Scene, fuzzing
from iogate.server.core import Core
from iogate.server.gate.connection import Connection
from iogate.server.gate.limits import FailureLimiter, SubjectLimiter
from iogate.server.namespaces.rooms import Rooms
from iogate.server.session.pending import PendingLimiter
from iogate.transports.polling import PollingTransport

STEPS = 200


@pytest.mark.parametrize("scene", SCENES, ids=str)
async def test_strangers_leave_nothing_behind_and_disturb_nobody(scene: Scene) -> None:
    async with fuzzing(scene) as fuzz:
        for seed in ("a", "b"):
            await fuzz.round(seed, STEPS)


# That a round would notice

kept: list[object] = []


def nothing(*_: object, **__: object) -> None:
    """Do nothing."""


def broken(*_: object, **__: object) -> None:
    """Fail in a way that nobody foresees."""
    raise LookupError("unforeseen")


def hoarding(open_: Callable[..., Connection]) -> Callable[..., Connection]:
    """Never let go of a connection."""

    def opened(*args: Any) -> Connection:
        kept.append(connection := open_(*args))
        return connection

    return opened


def growing(open_: Callable[..., Connection]) -> Callable[..., Connection]:
    """Keep something of every connection."""

    def opened(*args: Any) -> Connection:
        kept.extend([number] for number in range(100))
        return open_(*args)

    return opened


def unforgotten(open_: Callable[..., Connection]) -> Callable[..., Connection]:
    """Begin something for every connection, and never end it."""

    def opened(*args: Any) -> Connection:
        kept.append(asyncio.ensure_future(asyncio.Event().wait()))
        return open_(*args)

    return opened


def collective(fail: Callable[..., None]) -> Callable[..., None]:
    """Let all pay for what one has sent."""

    def failed(connection: Connection, error: Exception) -> None:
        for other in list(connection.sessions.table.values()):
            fail(other, error)

    return failed


def remembering(add: Callable[..., None]) -> Callable[..., None]:
    """Take a bad credential for that of many addresses."""

    def added(failures: FailureLimiter, address: str) -> None:
        for number in range(left.MOST_ADDRESSES):
            add(failures, f"{address}:{number}")

    return added


DEFECTS: dict[str, tuple[Any, str, Any, str]] = {
    "a transport that is counted for ever": (PendingLimiter, "discard", nothing, "left: pending"),
    "a subject that is counted for ever": (SubjectLimiter, "discard", nothing, "left: subjects"),
    "a room that nobody leaves": (Rooms, "remove", nothing, "left: rooms of /"),
    "a task that never ends": (Core, "open", unforgotten(Core.open), "left: tasks of the event loop"),
    "a connection that is never freed": (Core, "open", hoarding(Core.open), "not freed: \\d+ Connection"),
    "memory": (Core, "open", growing(Core.open), "more blocks of memory"),
    "addresses": (FailureLimiter, "add", remembering(FailureLimiter.add), "bad credentials of \\d+ addresses"),
    "an error in a frame": (Connection, "_control", broken, "LookupError: unforeseen"),
    "an error in a request": (PollingTransport, "_take", broken, "LookupError: unforeseen"),
    "one who disturbs the others": (Connection, "fail", collective(Connection.fail), "good client is not served"),
}


@pytest.mark.parametrize("defect", DEFECTS)
async def test_a_defect_is_noticed(defect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, attribute, instead, finding = DEFECTS[defect]
    # What is awaited does not come.
    monkeypatch.setattr(left, "SETTLED_WITHIN", 0.5)
    monkeypatch.setattr(rounds, "PATIENCE", 0.5)
    monkeypatch.setattr(owner, attribute, instead)
    found = ""
    try:
        async with fuzzing(SCENES[0]) as fuzz:
            for seed in ("a", "b") if defect == "memory" else ("a",):
                try:
                    await fuzz.round(seed, STEPS)
                except Finding as error:
                    found += str(error)
            monkeypatch.undo()
    finally:
        for task in kept:
            if isinstance(task, asyncio.Future):
                task.cancel()
        kept.clear()
    assert re.search(finding, found), found
