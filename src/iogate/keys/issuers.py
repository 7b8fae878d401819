"""The keys of several issuers. The `iss` of a token can only select one of the configured issuers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from iogate.auth import jws
from iogate.auth.interface import Changed, Keys
from iogate.auth.jws import Compact
from iogate.auth.keyset import Key
from iogate.auth.principal import Principal
from iogate.errors import InvalidToken


class Issuers:
    """Separate keys for each issuer, so that no issuer can sign for another one, not even with the same `kid`.

    Args:
        sources: the keys of each issuer.
    """

    def __init__(self, sources: Mapping[str, Keys]) -> None:
        self.sources = dict(sources)
        self.issuers: frozenset[str] | None = frozenset(self.sources)

    def find(self, token: Compact, algorithm: str) -> Key | None:
        """Return the key of the token from the keys of its issuer if it is loaded, or None."""
        return self._of(token).find(token, algorithm)

    async def fetch(self, token: Compact, algorithm: str) -> Key:
        """Return the key of the token from the keys of its issuer, and read them again if that may help."""
        return await self._of(token).fetch(token, algorithm)

    def holds(self, principal: Principal) -> bool:
        """Return True if the key that signed an identity is still valid at its issuer."""
        source = self.sources.get(principal.issuer or "")
        return source is not None and source.holds(principal)

    def start(self, changed: Changed) -> None:
        """Start to refresh the keys of all issuers."""
        for source in self.sources.values():
            source.start(changed)

    async def ready(self) -> None:
        """Wait until the keys of all issuers are loaded, or raise `AuthUnavailable`."""
        await asyncio.gather(*(source.ready() for source in self.sources.values()))

    async def stop(self, changed: Changed) -> None:
        """Stop what `start` started for this `changed`."""
        await asyncio.gather(*(source.stop(changed) for source in self.sources.values()))

    def _of(self, token: Compact) -> Keys:
        # The claims are NOT verified here. They may only select which of the configured keys is used.
        issuer = jws.members(token.payload, "claims").get("iss")
        source = self.sources.get(issuer) if isinstance(issuer, str) else None
        if source is None:
            raise InvalidToken("iss is not an accepted issuer")
        return source

    def __repr__(self) -> str:
        return f"<keys of {', '.join(self.sources)}>"
