"""The transports that every test of the gate runs on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from iogate import Socket
from tests.keys.fixtures import issuer, server

__all__ = ["issuer", "server"]


@pytest.fixture
def must_not_run() -> Iterator[Callable[..., None]]:
    """A handler that must not be called: what it raised would only be logged."""
    calls: list[Socket] = []
    yield lambda socket, *args: calls.append(socket)
    assert calls == []
