"""The identity that a verified token proves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from iogate.printable import printable


class Principal(msgspec.Struct, frozen=True, eq=False):
    """The identity of a verified token.

    `JWTAuth` creates a principal only after it has verified the token, so the token was valid at that moment.
    """

    subject: str
    """The `sub` claim. Empty only if the server does not require it."""
    issuer: str | None
    """The `iss` claim."""
    audience: tuple[str, ...]
    """The values of the `aud` claim: none, one or several."""
    scopes: frozenset[str]
    """The scopes of the token: the union of the claims `scope`, `scp` and `permissions`."""
    token_id: str | None
    """The `jti` claim."""
    session_id: str | None
    """The `sid` claim."""
    issued_at: float | None
    """The `iat` claim, Unix time in seconds."""
    expires_at: float | None
    """The `exp` claim, Unix time in seconds. None only if the server does not require it."""
    claims: Mapping[str, Any]
    """All claims of the token, read-only."""
    key_id: str | None = None
    """The `kid` in the header: the name of the key that signed the token."""
    key_thumbprint: str | None = None
    """The thumbprint (RFC 7638) of the key that signed the token, if the key is in a key set."""

    def __repr__(self) -> str:
        # A principal may be logged, but its other claims may be personal data, which must not be logged.
        subject, issuer = printable(repr(self.subject)), printable(repr(self.issuer))
        return f"Principal(subject={subject}, issuer={issuer}, expires_at={self.expires_at!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return the same fields for the objects and tracebacks that the rich library prints."""
        issuer = None if self.issuer is None else printable(self.issuer)
        return [("subject", printable(self.subject)), ("issuer", issuer), ("expires_at", self.expires_at)]
