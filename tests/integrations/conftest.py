"""What the tests of the integrations have in common."""

from __future__ import annotations

import pytest


@pytest.fixture(params=[False, True], ids=["AsyncServer", "Server"])
def threaded(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off at once who does not take what is said at the end."""
    monkeypatch.setattr("iogate.server.server.LINGER", 0.05)
