"""Key sets that are read over the network: from their URL, or from the issuer's OpenID configuration."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from iogate.auth import jws
from iogate.auth.arguments import seconds
from iogate.auth.keyset import KeySet
from iogate.clock import SYSTEM, Clock
from iogate.errors import ConfigurationError, InvalidToken
from iogate.keys.refreshed import NotRead, Refreshed

if TYPE_CHECKING:
    import httpx

    from iogate.keys.fetch import Network

WELL_KNOWN = "/.well-known/openid-configuration"


class Remote(Refreshed):
    """Base class of key sets that are read over the network.

    Args:
        address: the URL of the key set, or of the issuer.
        network: the IP addresses that are allowed: "public" for the internet; "private" for the internet and private
            networks; "loopback" for this machine only, also with plain http, for tests.
        every: seconds after which the keys are stale, from 1 to 86400. They are read again somewhat earlier, and even
            earlier if the response says that it is fresh for a shorter time.
        keep_for: seconds since the last successful read for which its keys may be used, at least `every`. After that,
            all tokens are rejected as `unavailable`.
        cooldown: seconds between two reads that are caused by tokens with an unknown key, from 1 to 3600. During that
            time, a token with an unknown key is rejected as `unavailable`, because its key may be new.
        start_within: seconds that the start of the server waits for the first keys before it fails. None: it does not
            wait, and clients are rejected as `unavailable` until there are keys.
        revoke_removed: if True, sockets whose token was signed by a key that was removed are disconnected.
        ssl_context: the trusted certificates, if the certificate of the issuer is not publicly trusted.
        clock: the clock that schedules the reads.

    Raises:
        ConfigurationError: an argument is not valid, or the address is not allowed.
    """

    def __init__(
        self,
        address: str,
        *,
        network: Network = "public",
        every: float = 300.0,
        keep_for: float = 6 * 3600.0,
        cooldown: float = 30.0,
        start_within: float | None = 10.0,
        revoke_removed: bool = False,
        ssl_context: ssl.SSLContext | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        # Import httpx only if it is needed: importing it takes longer than importing all of iogate.
        from iogate.keys.fetch import Fetcher

        every = seconds("every", every, 1, 86400)
        super().__init__(
            every=every,
            keep_for=seconds("keep_for", keep_for, every),
            cooldown=cooldown,
            start_within=start_within,
            revoke_removed=revoke_removed,
            clock=clock,
        )
        self._fetcher = Fetcher(network, ssl_context)
        self._address = address
        self._first()

    @property
    def network(self) -> Network:
        """The IP addresses that are allowed: "public", "private" or "loopback"."""
        return self._fetcher.network

    @property
    def ssl_context(self) -> ssl.SSLContext | None:
        """The trusted certificates; None for the publicly trusted ones."""
        return self._fetcher.context

    def _first(self) -> httpx.URL:
        """Return the URL that is read first, after checking it."""
        return self._fetcher.check(self._address)

    def __repr__(self) -> str:
        # The query string may contain a secret.
        return f"{type(self).__name__}({self._address.partition('?')[0]!r})"


class KeySetURL(Remote):
    """The public keys in a JWK set at an https URL (RFC 7517, section 5)."""

    async def _read(self) -> tuple[KeySet, float | None]:
        document, fresh_for = await self._fetcher.get(self._first())
        return KeySet.read(document), fresh_for


class Discovery(Remote):
    """The public keys of an OpenID provider, found through its issuer (OpenID Connect Discovery 1.0, section 4).

    The address is the issuer, exactly as in the `iss` of its tokens. The document that is found there must contain the
    same `issuer` (section 4.3), and only tokens of this issuer are accepted.
    """

    @property
    def issuers(self) -> frozenset[str] | None:
        """The issuer, which is the only accepted one."""
        return frozenset((self._address,))

    def _first(self) -> httpx.URL:
        if self._fetcher.check(self._address).query:
            raise ConfigurationError(f"the issuer {self} has a query: give it as its tokens have it in iss")
        return self._fetcher.check(self._address.rstrip("/") + WELL_KNOWN)

    async def _read(self) -> tuple[KeySet, float | None]:
        document, _ = await self._fetcher.get(self._first())
        try:
            description = jws.members(document, "description of the issuer")
        except InvalidToken as error:
            raise NotRead(error.reason) from None
        named = description.get("issuer")
        if named != self._address:
            raise NotRead(f"it says that it is the issuer {named!r:.200}, which is not the same text")
        keys, fresh_for = await self._fetcher.get(self._fetcher.check(description.get("jwks_uri")))
        return KeySet.read(keys), fresh_for
