"""What the conformance tests share: one small server, on the transports one by one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from iogate import Server, Socket
from tests.servers import make_server, serve


@pytest.fixture
def io() -> Server:
    """A server that answers `echo` with an event and with an acknowledgement."""
    return echo_server()


@pytest.fixture
async def url(io: Server) -> AsyncIterator[str]:
    """The URL of that server."""
    async with serve(io) as url:
        yield url


def echo_server(**settings: Any) -> Server:
    """Return a server that says back what it hears."""
    io = make_server(**settings)
    io.of("/other")

    @io.on("echo")
    async def echo(socket: Socket, *args: Any) -> tuple[Any, ...]:
        socket.emit("echo", *args)
        return args

    return io
