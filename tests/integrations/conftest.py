"""What the tests of the integrations have in common."""

from __future__ import annotations

import pytest


@pytest.fixture(params=[False, True], ids=["AsyncServer", "Server"])
def threaded(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off at once who does not take what is said at the end."""
    monkeypatch.setattr("iogate.server.session.sessions.DRAIN_TIMEOUT", 0.05)


@pytest.fixture(params=["AsyncServer", "Server", "Flask-SocketIO"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["polling", "websocket"])
def way(request: pytest.FixtureRequest) -> str:
    """Either transport, on websockets: picows leads past an application that is not iogate's own."""
    return str(request.param)
