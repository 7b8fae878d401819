"""Who a verified token speaks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from iogate.printable import printable


class Principal(msgspec.Struct, frozen=True, eq=False):
    """Hold the identity that a verified token gives a connection.

    Only `JWTAuth.verify` makes one, so to hold one is to know that the token was good at that moment.
    """

    subject: str
    """The `sub` claim. Empty only if the server was told not to require one."""
    issuer: str | None
    """The `iss` claim."""
    audience: tuple[str, ...]
    """The `aud` claim: none, one or several."""
    scopes: frozenset[str]
    """What the token allows: the union of the claims `scope`, `scp` and `permissions`."""
    token_id: str | None
    """The `jti` claim."""
    session_id: str | None
    """The `sid` claim."""
    issued_at: float | None
    """The `iat` claim, Unix time in seconds."""
    expires_at: float | None
    """The `exp` claim, Unix time in seconds. None only if the server was told not to require one."""
    claims: Mapping[str, Any]
    """All claims of the token, read-only."""
    key_id: str | None = None
    """The `kid` of the header: which key signed the token."""
    key_thumbprint: str | None = None
    """Which key that was, by its own value (RFC 7638), where it was one of a key set."""

    def __repr__(self) -> str:
        # The other claims are personal data: an identity may be logged, a person's details may not.
        subject, issuer = printable(repr(self.subject)), printable(repr(self.issuer))
        return f"Principal(subject={subject}, issuer={issuer}, expires_at={self.expires_at!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show the same harmless fields where rich prints tracebacks and objects."""
        issuer = None if self.issuer is None else printable(self.issuer)
        return [("subject", printable(self.subject)), ("issuer", issuer), ("expires_at", self.expires_at)]
