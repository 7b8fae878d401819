"""Short words for what clients say and hear in these tests."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from iogate import Server
from tests.conformance.wire import Session, enter, session, within
from tests.servers import serve


class Client:
    """A client that is in a namespace."""

    def __init__(self, wire: Session, namespace: str = "") -> None:
        self.wire = wire
        self.namespace = namespace
        self.id = ""

    @property
    def prefix(self) -> str:
        """What stands before the payload of a packet for the namespace."""
        return f"{self.namespace}," if self.namespace else ""

    async def enter(self, **claims: Any) -> None:
        """Enter the namespace."""
        self.id = await enter(self.wire, self.namespace, **claims)

    async def emit(self, *data: Any) -> None:
        """Send an event."""
        await self.wire.send(f"42{self.prefix}{json.dumps(data)}")

    async def ask(self, *data: Any, ack: int = 7) -> Any:
        """Send an event and return the arguments of its acknowledgement."""
        await self.wire.send(f"42{self.prefix}{ack}{json.dumps(data)}")
        return _payload(await self.receive(), f"43{self.prefix}{ack}")

    async def receive(self) -> str:
        """Return the next packet."""
        while (packet := await within(self.wire.receive())) == "6":
            pass
        return str(packet)

    async def hear(self) -> Any:
        """Return the data of the next packet, which must be an event."""
        return _payload(await self.receive(), f"42{self.prefix}")

    async def hears_nothing_before(self, io: Server) -> None:
        """Make sure that nothing is on its way to this client: what is sent to it now comes next."""
        io.of(self.namespace).in_(self.id).emit("nothing before")
        assert await self.hear() == ["nothing before"]


@asynccontextmanager
async def clients(io: Server, transport: str, *subjects: str, namespace: str = "") -> AsyncIterator[list[Client]]:
    """Serve, with a client for each of these subjects."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serve(io))
        found = []
        for subject in subjects:
            client = Client(await stack.enter_async_context(session(url, transport)), namespace)
            await client.enter(sub=subject)
            found.append(client)
        yield found


@asynccontextmanager
async def client(io: Server, transport: str, namespace: str = "") -> AsyncIterator[Client]:
    """Serve, with one client."""
    async with clients(io, transport, "ann", namespace=namespace) as (only,):
        yield only


def _payload(packet: str, prefix: str) -> Any:
    assert packet.startswith(prefix), packet
    return json.loads(packet.removeprefix(prefix))
