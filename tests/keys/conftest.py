"""What the tests of key sources share."""

from __future__ import annotations

from tests.keys.fixtures import issuer, server

__all__ = ["issuer", "server"]
