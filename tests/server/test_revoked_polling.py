"""When `revoke` returns, a poll that waited has been answered: nothing more is sent to its client."""

from __future__ import annotations

import asyncio

import pytest

from iogate.transports.polling import PollingTransport
from tests.conformance.wire import enter, polling
from tests.server.left import until
from tests.servers import make_server, make_token, serve


async def test_a_poll_that_waits_is_answered_before_revoke_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    io = make_server()
    answered: list[bool] = []
    closed = PollingTransport.closed

    async def note(self: PollingTransport) -> None:
        await closed(self)
        answered.append(not self.writable)

    monkeypatch.setattr(PollingTransport, "closed", note)
    async with serve(io, "uvicorn-picows") as url, polling(url) as client:
        await enter(client, token=make_token())
        (connection,) = io._core.sessions.table.values()
        transport = connection.transport
        poll = asyncio.create_task(client.get())
        await until(lambda: transport.writable)
        await io.revoke(subject="ann")
        assert answered == [True]
        assert "revoked_token" in (await poll).text
