"""What a revocation says, and the interface of whatever remembers it."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from iogate.auth import Principal
from iogate.auth.claims import YEAR_10000
from iogate.errors import ConfigurationError

HANDLES = ("token_id", "session_id", "subject", "key_id")
"""What a revocation is looked up by, the rarest first."""

NAMES = (*HANDLES, "issuer")
"""What a revocation compares by name."""


class Revocation(msgspec.Struct, frozen=True, kw_only=True):
    """A description of tokens that are good no more: all that is said of them holds together.

    Args:
        until: Unix time in seconds after which it is forgotten: no token that it means lives longer. Infinity means
            for ever.
        token_id: their `jti`.
        subject: their `sub`.
        session_id: their `sid`.
        key_id: the `kid` of the key that signed them.
        issuer: their `iss`.
        issued_before: Unix time in seconds; they were issued until then. A token that does not say when it was issued
            counts as issued before.

    Raises:
        ConfigurationError: nothing is said that would tell one token from another, or what is said is of another type
            than the claim, so that it could never be true of a token.
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
        """The one thing to look it up by."""
        for name in HANDLES:
            value = getattr(self, name)
            if value is not None:
                return name, value
        return None

    def matches(self, principal: Principal) -> bool:
        """Say whether the token of this identity is meant. What a token does not say is not what was asked for."""
        return (
            (self.token_id is None or self.token_id == principal.token_id)
            and (self.session_id is None or self.session_id == principal.session_id)
            and (self.subject is None or self.subject == principal.subject)
            and (self.key_id is None or self.key_id == principal.key_id)
            and (self.issuer is None or self.issuer == principal.issuer)
            and (self.issued_before is None or principal.issued_at is None or principal.issued_at <= self.issued_before)
        )

    def covers(self, other: Revocation) -> bool:
        """Say whether this makes another one superfluous: the same names, no fewer tokens of them, for no less time."""
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
    # Up to the year 10000: milliseconds, taken for seconds, are far beyond it. Infinity is "for ever".
    return type(value) in (int, float) and (0 <= value < YEAR_10000 or value == float("inf"))


class Revocations(Protocol):
    """Remembers revocations. `MemoryRevocations` and `SQLiteRevocations` are those that iogate brings.

    `revoked` is asked at every connect, registration and refresh, on the event loop: it answers from memory.
    """

    def open(self) -> None:
        """Be ready to answer. Called when a server starts that is told of it; more than once does no harm.

        A server that is mounted in another application may never be told: `revoked` must not need it.

        Raises:
            ConfigurationError: what was remembered cannot be read.
        """

    def close(self) -> None:
        """Let go of what `open` took. It may be opened again."""

    def revoked(self, principal: Principal, now: float) -> bool:
        """Say whether the token of this identity is revoked.

        Args:
            principal: the identity.
            now: Unix time in seconds.

        Raises:
            Exception: nobody can say; whoever asked refuses.
        """

    def add(self, revocation: Revocation, now: float) -> None:
        """Remember a revocation: `revoked` knows it from now on. It does not fail."""

    async def save(self, revocation: Revocation) -> None:
        """Return when a revocation that was added outlives whatever the store is there to outlive.

        Raises:
            Exception: it does not; `revoked` knows it all the same.
        """
