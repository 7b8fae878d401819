"""Each client, and each transport."""

from __future__ import annotations

import pytest

from tests.client.peers import Kind


@pytest.fixture(params=["asyncio", "threads"])
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each of the two clients."""
    chosen: Kind = request.param
    return chosen


@pytest.fixture(params=["polling", "websocket"])
def how(request: pytest.FixtureRequest) -> list[str]:
    """Each transport by itself."""
    return [request.param]
