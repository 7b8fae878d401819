"""Where the attacks are tried."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import servers
from tests.attacks.bounds import Cryptography, Listener, listening
from tests.attacks.showing import VERIFIER
from tests.keys.fixtures import issuer, server

__all__ = ["issuer", "server"]


@pytest.fixture(params=[VERIFIER, "polling", "websocket", "picows"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where a token is shown: to the verifier itself, or to a server on polling, websockets or picows."""
    if request.param != "picows":
        return str(request.param)
    monkeypatch.setattr(servers, "WS", "uvicorn-picows")
    return "websocket"


@pytest.fixture
def cryptography(monkeypatch: pytest.MonkeyPatch) -> Cryptography:
    """A count of the signatures that are computed."""
    return Cryptography(monkeypatch)


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Somebody on loopback, whose URL may stand in a token."""
    with listening() as there:
        yield there
