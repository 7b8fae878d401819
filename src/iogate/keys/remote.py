"""Key sets of an issuer elsewhere: by the address of the set, or by the issuer's own description of itself."""

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
    """What a key set elsewhere can be told, whichever way it is found.

    Args:
        address: where it is.
        network: where names may lead: "public", to the internet; "private", to private networks too; "loopback", to
            this machine alone, by plain http too, for tests.
        every: seconds after which it is read again, from 1 to a day. It begins ahead of that, and earlier still where
            the answer says that it is fresh for a shorter time.
        keep_for: seconds since the last good reading for which its keys serve if no later one is good; then everybody
            is told `unavailable`.
        cooldown: seconds from 1 to an hour, between two readings that were made because a token named a key that is
            not known. Clients with another unknown key are told `unavailable` meanwhile: their key may be new.
        start_within: seconds that the start of the server waits for the first keys, and then fails; None: it does not
            wait, and who comes before there are any is told `unavailable`.
        revoke_removed: whether sockets whose token was signed by a key that is gone are ended.
        ssl_context: the certificates that are trusted, where the issuer's is not one that everybody trusts.
        clock: what time is taken from.

    Raises:
        ConfigurationError: an argument is not sound, or the address is not one that may be asked.
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
        # Here, as only who needs it is to wait for httpx: importing it takes longer than all of iogate.
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
        """Where addresses may lead."""
        return self._fetcher.network

    @property
    def ssl_context(self) -> ssl.SSLContext | None:
        """The certificates that are trusted; None: those that everybody trusts."""
        return self._fetcher.context

    def _first(self) -> httpx.URL:
        """Return what is read first, checked."""
        return self._fetcher.check(self._address)

    def __repr__(self) -> str:
        # What follows a question mark may be a secret.
        return f"{type(self).__name__}({self._address.partition('?')[0]!r})"


class KeySetURL(Remote):
    """The public keys at an https address, a JWK set (RFC 7517, section 5)."""

    async def _read(self) -> tuple[KeySet, float | None]:
        document, fresh_for = await self._fetcher.get(self._first())
        return KeySet.read(document), fresh_for


class Discovery(Remote):
    """The public keys of an OpenID provider, found through its issuer (OpenID Connect Discovery 1.0, section 4).

    The address is the issuer, exactly as its tokens have it in `iss`: the document found there must say the same of
    itself (section 4.3), and the tokens must be of it.
    """

    @property
    def issuers(self) -> frozenset[str] | None:
        """The one issuer."""
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
