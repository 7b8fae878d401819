"""Identities, and what revokes them, for the tests of this folder."""

from __future__ import annotations

from typing import Any

from iogate import Principal, Revocation

NOW = 1_700_000_000.0


def principal(**changes: Any) -> Principal:
    """Return an identity: ann's, unless something else is said."""
    fields: dict[str, Any] = {
        "subject": "ann",
        "issuer": "https://id.example.com",
        "audience": (),
        "scopes": frozenset(),
        "token_id": "t1",
        "session_id": "s1",
        "issued_at": NOW - 60,
        "expires_at": NOW + 240,
        "claims": {},
        "key_id": "k1",
    }
    return Principal(**(fields | changes))


def revocation(**fields: Any) -> Revocation:
    """Return a revocation that holds for an hour, unless something else is said."""
    return Revocation(**{"until": NOW + 3600} | fields)
