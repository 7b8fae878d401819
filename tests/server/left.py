"""What must be true of a server when its clients have gone: nothing is left of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from iogate import Server
from iogate.server.namespaces.adapter import LocalAdapter
from iogate.server.session.deadlines import Appointments

WITHIN = 5.0  # seconds in which whatever is awaited must have happened


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is so, but not for ever."""
    async with asyncio.timeout(WITHIN):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)  # The sockets of the test are in the same event loop.


def leftovers(io: Server) -> dict[str, object]:
    """Return whatever a server still holds of its clients, by the name of the table."""
    namespaces = list(io._core.namespaces._static.values())
    children = {name: child for dynamic in io._core.namespaces._dynamic for name, child in dynamic.children.items()}
    tables: dict[str, object] = {
        "connections": dict(io._core.sessions.table),
        "lingering": dict(io._core.sessions.draining),
        "tasks": set(io._core.sessions._tasks),
        "dynamic namespaces": children,
        "pending": set(io._core.sessions.pending._sessions),
        "pending by address": dict(io._core.sessions.pending._by_address),
        "subjects": dict(io._core.gate.subjects._connections),
    }
    for number, queue in enumerate(io._core.sessions.deadlines._queues):
        if isinstance(queue, Appointments):
            tables[f"appointments ({number})"] = dict(queue._due)
        else:
            tables[f"deadlines of {queue.interval} s ({number})"] = dict(queue._items)
    for namespace in (*namespaces, *children.values()):
        tables[f"sockets of {namespace.name}"] = dict(namespace.adapter.sockets)
        assert isinstance(namespace.adapter, LocalAdapter)
        tables[f"rooms of {namespace.name}"] = [*namespace.adapter._members, *namespace.adapter._rooms]
        tables[f"visitors of {namespace.name}"] = namespace.pending_connects
    return {name: table for name, table in tables.items() if table}


async def assert_nothing_left(io: Server) -> None:
    """Make sure that no table of the server has an entry, as soon as what happens at once has happened."""
    try:
        await until(lambda: not leftovers(io))
    except TimeoutError:
        assert leftovers(io) == {}
