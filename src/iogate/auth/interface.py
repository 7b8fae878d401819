"""What a server asks of its gatekeeper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from iogate.auth.jws import Compact
from iogate.auth.keyset import Key
from iogate.auth.principal import Principal
from iogate.auth.sources import CredentialRequest, Source
from iogate.clock import Clock

UserLoader = Callable[[Mapping[str, Any]], Any]
"""Turns claims into the application's user object; may be `async def`. None, or any exception, refuses."""


Changed = Callable[[], None]
"""Told when keys no longer count, so that the sockets with tokens of theirs can be looked at again."""


class Revoked(Protocol):
    """What knows which tokens were revoked before their time."""

    def revoked(self, principal: Principal, now: float) -> bool:
        """Say whether the token of an identity was; `now` is Unix time in seconds."""


def is_auth(value: object) -> bool:
    """Say whether what an application gives as its `auth` is one."""
    return hasattr(value, "verify_async") and isinstance(getattr(value, "sources", None), tuple)


class Auth(Protocol):
    """Decide who may connect. `JWTAuth` is the one that iogate brings."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """The ways in which a client may give its token."""

    @property
    def guests(self) -> bool:
        """Whether a connection without any token is let in as a guest."""

    @property
    def user_loader(self) -> UserLoader | None:
        """The application's function that turns claims into a user, if it gave one."""

    @property
    def issuers(self) -> frozenset[str] | None:
        """The accepted issuers; None if `auth` does not tell issuers apart."""

    @property
    def clock(self) -> Clock:
        """The clock that tokens are judged by."""

    @property
    def authenticate_within(self) -> float | None:
        """Seconds in which a client that connected without a token may send `authenticate`; None: it may not."""

    @property
    def refresh_before(self) -> float:
        """Seconds before the end of an identity at which its client is told to refresh it."""

    @property
    def leeway(self) -> float:
        """Seconds by which the clocks of issuer and server may differ."""

    @property
    def max_lifetime(self) -> float:
        """The longest life of an identity, in seconds."""

    @property
    def max_token_bytes(self) -> int:
        """Bytes that a token may have. Before it is admitted, a client may send frames of 4 times as much."""

    @property
    def uses_cookies(self) -> bool:
        """Whether one of the sources is a cookie: the server then insists on a list of allowed origins."""

    def credential(self, request: CredentialRequest) -> str | None:
        """Return the one token that a request carries, or None if it carries none.

        Raises:
            CredentialsBadScheme: a credential of another scheme than Bearer was given.
            CredentialsBadFormat: a credential is not a string, or there are two.
        """

    async def verify_async(self, token: str) -> Principal:
        """Return the identity that `token` proves.

        Raises:
            CredentialsBadFormat: it is not a string, is empty, or is too large.
            TokenExpired: it has expired, and nothing else is wrong with it.
            AuthUnavailable: the key for it cannot be had.
            InvalidToken: anything else. No other exception leaves this method.
        """

    async def user_for(self, principal: Principal) -> object:
        """Return the application's user object for `principal`, or None if the application has no loader.

        Raises:
            InvalidToken: the loader returned None. What it raises itself passes through.
        """

    def end(self, principal: Principal) -> float | None:
        """Return when a socket with this identity is to be ended, Unix time in seconds; None: never."""

    def revocation_end(self, now: float, issued_before: float | None, key_id: str | None) -> float:
        """Return until when a revocation must be remembered: as long as a token that it means can be accepted.

        Args:
            now: Unix time in seconds.
            issued_before: the latest `iat` that the revocation means; None if it has no such limit.
            key_id: the `kid` that it names, if any.

        Returns:
            Unix time in seconds; infinity means for ever.
        """

    def recheck(self, principal: Principal) -> None:
        """Look once more at what changes by itself, for an identity that was verified a while ago.

        Raises:
            TokenExpired: its token has expired meanwhile.
            InvalidToken: the key that signed it no longer counts.
        """

    def start(self, changed: Changed) -> None:
        """Begin to keep the keys fresh, on the event loop that runs; `changed` is called when keys no longer count."""

    async def ready(self) -> None:
        """Return when there are keys to verify with.

        Raises:
            AuthUnavailable: there are none yet, and the configuration says not to wait any longer.
        """

    async def stop(self, changed: Changed) -> None:
        """End what `start` began for this `changed`."""


class Keys(Protocol):
    """Where the keys come from. `iogate.keys` has those that iogate brings."""

    @property
    def issuers(self) -> frozenset[str] | None:
        """Whose keys these are, if that is known; a token must then be of one of them."""

    def find(self, token: Compact, algorithm: str) -> Key | None:
        """Return the key for a token if it is at hand; None: `fetch` says what is to be made of that.

        Args:
            token: NOT proven: nothing in it may do more than select a key.
            algorithm: the one its header names, which is one of the accepted.

        Raises:
            InvalidToken: nobody who is trusted has signed it.
        """

    async def fetch(self, token: Compact, algorithm: str) -> Key:
        """Return the key for a token, and go for it where that may help.

        Args:
            token: NOT proven.
            algorithm: the one its header names.

        Raises:
            InvalidToken: there is no such key.
            AuthUnavailable: it cannot be said whether there is one.
        """

    def holds(self, principal: Principal) -> bool:
        """Say whether the key that signed an identity still counts for the sockets that have it."""

    def start(self, changed: Changed) -> None:
        """Begin to keep the keys fresh."""

    async def ready(self) -> None:
        """Return when there are keys, or raise `AuthUnavailable`."""

    async def stop(self, changed: Changed) -> None:
        """End what `start` began for this `changed`."""
