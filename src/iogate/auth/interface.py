"""The interfaces of the authenticator that a server uses, and of its sources of keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from iogate.auth.jws import Compact
from iogate.auth.keyset import Key
from iogate.auth.principal import Principal
from iogate.auth.sources import CredentialRequest, Source
from iogate.clock import Clock

UserLoader = Callable[[Mapping[str, Any]], Any]
"""Turns claims into the application's user object; may be `async def`. None or an exception rejects the client."""


Changed = Callable[[], None]
"""A callback for the removal of keys. It checks the sockets whose tokens were signed by the removed keys."""


class Revoked(Protocol):
    """A check for tokens that were revoked before they expired."""

    def revoked(self, principal: Principal, now: float) -> bool:
        """Return True if the token of this identity is revoked at `now`, Unix time in seconds."""


def is_auth(value: object) -> bool:
    """Return True if a value has the interface `Auth`."""
    return hasattr(value, "verify_async") and isinstance(getattr(value, "sources", None), tuple)


class Auth(Protocol):
    """The authenticator of a server: it decides which clients may connect. iogate includes `JWTAuth`."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """The places in a request where a client may put its token."""

    @property
    def guests(self) -> bool:
        """True if a client without a token is admitted as a guest."""

    @property
    def user_loader(self) -> UserLoader | None:
        """The application's function that turns claims into a user, or None."""

    @property
    def issuers(self) -> frozenset[str] | None:
        """The accepted issuers; None if issuers are not distinguished."""

    @property
    def clock(self) -> Clock:
        """The clock that tokens are checked against."""

    @property
    def authenticate_within(self) -> float | None:
        """Seconds in which a client that connects without a token may send `authenticate`; None if it may not."""

    @property
    def refresh_before(self) -> float:
        """Seconds before the end of an identity at which the server asks its client to refresh it."""

    @property
    def leeway(self) -> float:
        """Seconds by which the clocks of issuer and server may differ."""

    @property
    def max_lifetime(self) -> float:
        """The maximum lifetime of an identity in seconds."""

    @property
    def max_token_bytes(self) -> int:
        """The maximum size of a token in bytes. A frame of a client that is not admitted may have 4 times as many."""

    @property
    def uses_cookies(self) -> bool:
        """True if one of the sources is a cookie. The server then requires a list of allowed origins."""

    def credential(self, request: CredentialRequest) -> str | None:
        """Return the token of a request, or None if it has none.

        Raises:
            CredentialsBadScheme: a credential has a scheme other than Bearer.
            CredentialsBadFormat: a credential is not a string, or there are two.
        """

    async def verify_async(self, token: str) -> Principal:
        """Verify `token`, and return its identity.

        Raises:
            CredentialsBadFormat: the token is not a string, is empty, or is too large.
            TokenExpired: the token has expired but is otherwise valid.
            AuthUnavailable: the key of the token cannot be fetched.
            InvalidToken: the token is invalid for any other reason. This method raises no other exceptions.
        """

    async def user_for(self, principal: Principal) -> object:
        """Return the application's user object for `principal`, or None if the application has no loader.

        Raises:
            InvalidToken: the loader returned None. Exceptions of the loader are not caught.
        """

    def end(self, principal: Principal) -> float | None:
        """Return the Unix time in seconds at which a socket with this identity must be disconnected, or None."""

    def revocation_end(self, now: float, issued_before: float | None, key_id: str | None) -> float:
        """Return the time until which a revocation must be remembered, because tokens that it matches may be accepted.

        Args:
            now: Unix time in seconds.
            issued_before: the latest `iat` that the revocation matches, Unix time in seconds; None if it has no limit.
            key_id: the `kid` that the revocation names, or None.

        Returns:
            Unix time in seconds; infinity means for ever.
        """

    def recheck(self, principal: Principal) -> None:
        """Check again whether an identity has expired and whether its key is still valid.

        Raises:
            TokenExpired: its token has expired since it was verified.
            InvalidToken: the key that signed it is no longer valid.
        """

    def start(self, changed: Changed) -> None:
        """Start to refresh the keys on the running event loop. Call `changed` when a key was removed."""

    async def ready(self) -> None:
        """Wait until keys are loaded.

        Raises:
            AuthUnavailable: no keys are loaded within the time that the configuration allows.
        """

    async def stop(self, changed: Changed) -> None:
        """Stop what `start` started for this `changed`."""


class Keys(Protocol):
    """A source of keys. The implementations are in `iogate.keys`."""

    @property
    def issuers(self) -> frozenset[str] | None:
        """The issuers of the keys, which are then the accepted issuers; None if they are not known."""

    def find(self, token: Compact, algorithm: str) -> Key | None:
        """Return the key of a token if it is loaded. If this returns None, the caller must use `fetch`.

        Args:
            token: the token, NOT verified. Its contents may only be used to select a key.
            algorithm: the algorithm in its header, which is one of the accepted algorithms.

        Raises:
            InvalidToken: no trusted key can have signed the token.
        """

    async def fetch(self, token: Compact, algorithm: str) -> Key:
        """Return the key of a token, and read the keys again if that may help.

        Args:
            token: the token, NOT verified.
            algorithm: the algorithm in its header.

        Raises:
            InvalidToken: there is no such key.
            AuthUnavailable: it is not known whether there is such a key.
        """

    def holds(self, principal: Principal) -> bool:
        """Return True if the key that signed an identity is still valid for the sockets with that identity."""

    def start(self, changed: Changed) -> None:
        """Start to refresh the keys."""

    async def ready(self) -> None:
        """Wait until keys are loaded, or raise `AuthUnavailable`."""

    async def stop(self, changed: Changed) -> None:
        """Stop what `start` started for this `changed`."""
