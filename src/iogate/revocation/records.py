"""The record of a revocation, and the interface of stores."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from iogate.auth import Principal
from iogate.auth.claims import YEAR_10000
from iogate.errors import ConfigurationError

HANDLES = ("token_id", "session_id", "subject", "key_id")
"""The fields that a revocation can be looked up by, the most selective first."""

NAMES = (*HANDLES, "issuer")
"""The fields of a revocation that must be equal to the claim or header of a token."""


class Revocation(msgspec.Struct, frozen=True, kw_only=True):
    """A record that revokes all tokens that match every given field.

    Args:
        until: Unix time in seconds after which the revocation is forgotten, because all tokens that it matches have
            expired. Infinity means for ever.
        token_id: the `jti` of the tokens.
        subject: their `sub`.
        session_id: their `sid`.
        key_id: the `kid` of the key that signed them.
        issuer: their `iss`.
        issued_before: Unix time in seconds at or before which they were issued. A token without `iat` counts as issued
            before it.

    Raises:
        ConfigurationError: no field selects tokens (`issuer` alone does not), or a value has another type than the
            claim, so that no token could match it.
    """

    until: float
    token_id: str | None = None
    subject: str | None = None
    session_id: str | None = None
    key_id: str | None = None
    issuer: str | None = None
    issued_before: float | None = None

    def __post_init__(self) -> None:
        if self.handle is None and self.issued_before is None:
            raise ConfigurationError("say what to revoke: token_id=, subject=, session_id=, key_id= or issued_before=")
        for name in NAMES:
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value or not _is_unicode(value)):
                raise ConfigurationError(f"{name} is a text with something in it, as the claim is; or leave it out")
        if not _is_time(self.until) or not (self.issued_before is None or _is_time(self.issued_before)):
            raise ConfigurationError("until and issued_before are Unix times, in seconds")

    @property
    def handle(self) -> tuple[str, str] | None:
        """The name and value of the field to look the revocation up by; None if it has only `issued_before`."""
        for name in HANDLES:
            value = getattr(self, name)
            if value is not None:
                return name, value
        return None

    def matches(self, principal: Principal) -> bool:
        """Return True if the token of this identity is revoked. A missing claim, other than `iat`, does not match."""
        return (
            (self.token_id is None or self.token_id == principal.token_id)
            and (self.session_id is None or self.session_id == principal.session_id)
            and (self.subject is None or self.subject == principal.subject)
            and (self.key_id is None or self.key_id == principal.key_id)
            and (self.issuer is None or self.issuer == principal.issuer)
            and (self.issued_before is None or principal.issued_at is None or principal.issued_at <= self.issued_before)
        )

    def covers(self, other: Revocation) -> bool:
        """Return True if this makes another revocation redundant: it matches at least the same tokens, for as long."""
        return (
            all(getattr(self, name) == getattr(other, name) for name in NAMES)
            and (
                self.issued_before is None
                or (other.issued_before is not None and other.issued_before <= self.issued_before)
            )
            and other.until <= self.until
        )


def _is_unicode(value: str) -> bool:
    # No claim contains a lone surrogate, and SQLite cannot store one.
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _is_time(value: Any) -> bool:
    # Allow times before the year 10000, which rejects a time in milliseconds by mistake. Infinity means for ever.
    return type(value) in (int, float) and (0 <= value < YEAR_10000 or value == float("inf"))


class Revocations(Protocol):
    """A store of revocations. iogate includes `MemoryRevocations` and `SQLiteRevocations`.

    `revoked` is called on the event loop at every connect, registration and refresh, so it must answer from memory.
    """

    def open(self) -> None:
        """Load the revocations. A server calls this when it starts. It may be called several times.

        A server that is mounted in another application may receive no start event, so `revoked` must work without it.

        Raises:
            ConfigurationError: the stored revocations cannot be read.
        """

    def close(self) -> None:
        """Release the resources of `open`. The store may be opened again."""

    def revoked(self, principal: Principal, now: float) -> bool:
        """Return True if the token of this identity is revoked.

        Args:
            principal: the identity.
            now: Unix time in seconds.

        Raises:
            Exception: it is not known whether the token is revoked. The caller rejects it.
        """

    def add(self, revocation: Revocation, now: float) -> None:
        """Add a revocation, which `revoked` uses from now on. This must not fail.

        Args:
            revocation: the revocation.
            now: Unix time in seconds.
        """

    async def save(self, revocation: Revocation) -> None:
        """Wait until a revocation that was added is stored as durably as the store can.

        Raises:
            Exception: it could not be stored. `revoked` uses it anyway.
        """
