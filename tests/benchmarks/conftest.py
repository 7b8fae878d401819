"""The programs in C, built once."""

from __future__ import annotations

import pytest
from benchmarks.compare.programs import Programs, build


@pytest.fixture(scope="session")
def programs() -> Programs:
    return build()
