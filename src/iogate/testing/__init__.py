"""Test an application built on iogate without a network and without waiting.

    clock = FakeClock()
    tokens = TokenFactory(clock=clock)
    io = Server(auth=tokens.auth(), clock=clock)

    async with InMemoryClient(io, token=tokens.good(name="Ann")) as client:
        await client.connect()
        assert await client.call("whoami") == "Ann"
        await advance(io, 300)                              # the lifetime of the token, without waiting
        assert client.refusals[-1].data["retry"] == "refresh"

This runs the real server: the client uses the real protocol and calls the real ASGI application, and tokens are
verified as usual. Only the time is simulated, and there is no network socket.
"""

from __future__ import annotations

from iogate.testing.client import ConnectRefused, InMemoryClient, Received
from iogate.testing.time import FakeClock, advance, settle
from iogate.testing.tokens import TokenFactory

__all__ = ["ConnectRefused", "FakeClock", "InMemoryClient", "Received", "TokenFactory", "advance", "settle"]
