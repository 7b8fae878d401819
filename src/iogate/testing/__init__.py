"""Test an application built on iogate without a network and without waiting.

    clock = FakeClock()
    tokens = TokenFactory(clock=clock)
    io = Server(auth=tokens.auth(), clock=clock)

    async with InMemoryClient(io, token=tokens.good(name="Ann")) as client:
        await client.connect()
        assert await client.call("whoami") == "Ann"
        await advance(io, 300)                              # the token's life: no second of yours
        assert client.refusals[-1].data["retry"] == "refresh"

Everything here runs the real server: the client speaks the real protocol to the real ASGI application, and the
tokens are verified like any other. Only time is made up, and there is no socket in between.
"""

from __future__ import annotations

from iogate.testing.client import ConnectRefused, InMemoryClient, Received
from iogate.testing.time import FakeClock, advance, settle
from iogate.testing.tokens import TokenFactory

__all__ = ["ConnectRefused", "FakeClock", "InMemoryClient", "Received", "TokenFactory", "advance", "settle"]
