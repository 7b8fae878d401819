"""The verified identity of a connection."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from iogate.auth import Principal, jws
from iogate.errors import InvalidToken
from iogate.printable import printable


class Identity(msgspec.Struct, frozen=True, eq=False):
    """The verified identity of a connection. All its sockets share it, and a refresh replaces it.

    Args:
        principal: the content of the verified token.
        user: the user object that the application's `load_user` returned.
        digest: the SHA-256 of the token, which identifies a repeated token.
    """

    principal: Principal
    user: Any
    digest: bytes

    def is_of(self, other: Principal) -> bool:
        """Return True if a principal has the same issuer and subject. Without a subject, no two are the same."""
        mine = self.principal
        return bool(mine.subject) and (mine.issuer, mine.subject) == (other.issuer, other.subject)

    def may_own(self, token: str) -> bool:
        """Return True if a token is the one of this identity, or names its subject. The token is NOT verified."""
        return self.digest == digest_of(token) or unverified_subject(token) == (
            self.principal.issuer,
            self.principal.subject,
        )

    def is_older_than(self, other: Principal) -> bool:
        """Return True if the token of `other` is at least as new as the token of this identity."""
        mine = self.principal
        if mine.issued_at is not None and other.issued_at is not None:
            return mine.issued_at <= other.issued_at
        if mine.expires_at is not None and other.expires_at is not None:
            return mine.expires_at <= other.expires_at
        return True

    def __repr__(self) -> str:
        return f"<Identity of {printable(repr(self.principal.subject))}>"


def unverified_subject(token: str) -> tuple[object, object] | None:
    """Return the issuer and the subject in a token, NOT verified; None if the token cannot be parsed."""
    try:
        claims = jws.members(jws.split(token).payload, "claims")
    except InvalidToken:
        return None
    return claims.get("iss"), claims.get("sub")


def digest_of(token: str) -> bytes:
    """Return the SHA-256 of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
