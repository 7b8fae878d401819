"""A key server that runs, and the issuer whose keys it has."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.keys.keyserver import KeyServer, key_server
from tests.keys.support import Issuer, jwk


@pytest.fixture
async def server() -> AsyncIterator[KeyServer]:
    """A key server that publishes the key of ES256."""
    async with key_server() as running:
        running.publish(jwk("ES256"))
        yield running


@pytest.fixture
def issuer(server: KeyServer) -> Issuer:
    """The issuer whose keys the server has."""
    return Issuer(server.url)
