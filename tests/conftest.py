"""What all tests share."""

from __future__ import annotations

import pytest

from tests import servers

TRANSPORTS = (["polling"], ["websocket"], ["polling", "websocket"])


@pytest.fixture(params=TRANSPORTS, ids="+".join)
def transports(request: pytest.FixtureRequest) -> list[str]:
    """Each way in which a client can reach the server: polling, WebSocket, and the upgrade from one to the other."""
    chosen: list[str] = request.param
    return chosen


@pytest.fixture(params=["polling", "websocket", "fast lane"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each transport by itself: `polling`, or `websocket` on either lane of the server."""
    if request.param != "fast lane":
        return str(request.param)
    monkeypatch.setattr(servers, "LANE", "uvicorn-fast")
    return "websocket"


@pytest.fixture(params=["uvicorn", "uvicorn-fast"], ids=["ordinary lane", "fast lane"])
def lane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each lane of the server, for tests that are about WebSockets and polling at once."""
    monkeypatch.setattr(servers, "LANE", request.param)
    return str(request.param)
