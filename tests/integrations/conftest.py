"""What the tests of the integrations have in common."""

from __future__ import annotations

import pytest


@pytest.fixture(params=[False, True], ids=["AsyncServer", "Server"])
def threaded(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)
