"""Whom a connection belongs to."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from iogate.auth import Principal, jws
from iogate.errors import InvalidToken
from iogate.printable import printable


class Identity(msgspec.Struct, frozen=True, eq=False):
    """The verified identity of a connection. All sockets of it share it, and a refresh puts another in its place.

    Args:
        principal: from the token that was verified.
        user: what the application's `load_user` made of it.
        digest: the SHA-256 of that token, by which the same one is known again.
    """

    principal: Principal
    user: Any
    digest: bytes

    def is_of(self, other: Principal) -> bool:
        """Say whether this is the same person. Who has no subject is nobody else's equal."""
        mine = self.principal
        return bool(mine.subject) and (mine.issuer, mine.subject) == (other.issuer, other.subject)

    def is_named_in(self, token: str) -> bool:
        """Say whether a token is this one's, or names the same person; that it is good is NOT checked."""
        return self.digest == digest_of(token) or named_in(token) == (self.principal.issuer, self.principal.subject)

    def is_older_than(self, other: Principal) -> bool:
        """Say whether another token is at least as new as this one's."""
        mine = self.principal
        if mine.issued_at is not None and other.issued_at is not None:
            return mine.issued_at <= other.issued_at
        if mine.expires_at is not None and other.expires_at is not None:
            return mine.expires_at <= other.expires_at
        return True

    def __repr__(self) -> str:
        return f"<Identity of {printable(repr(self.principal.subject))}>"


def named_in(token: str) -> tuple[object, object] | None:
    """Return the issuer and the subject that a token names, NOT proven; None: it is no token that names anybody."""
    try:
        claims = jws.members(jws.split(token).payload, "claims")
    except InvalidToken:
        return None
    return claims.get("iss"), claims.get("sub")


def digest_of(token: str) -> bytes:
    """Return what a token is known again by."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
