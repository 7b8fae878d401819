"""The keys of several issuers: a token's `iss` selects among those that were configured, never anything else."""

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
    """Each issuer has keys of its own, so that none can sign for another, not even with the same `kid`.

    Args:
        sources: the keys of each issuer.
    """

    def __init__(self, sources: Mapping[str, Keys]) -> None:
        self.sources = dict(sources)
        self.issuers: frozenset[str] | None = frozenset(self.sources)

    def find(self, token: Compact, algorithm: str) -> Key | None:
        """Return the key of the issuer that the token names, if it is at hand."""
        return self._of(token).find(token, algorithm)

    async def fetch(self, token: Compact, algorithm: str) -> Key:
        """Return the key of the issuer that the token names."""
        return await self._of(token).fetch(token, algorithm)

    def holds(self, principal: Principal) -> bool:
        """Say whether the key still counts at its issuer."""
        source = self.sources.get(principal.issuer or "")
        return source is not None and source.holds(principal)

    def start(self, changed: Changed) -> None:
        """Begin to keep the keys of each fresh."""
        for source in self.sources.values():
            source.start(changed)

    async def ready(self) -> None:
        """Return when each has keys, or raise `AuthUnavailable`."""
        await asyncio.gather(*(source.ready() for source in self.sources.values()))

    async def stop(self, changed: Changed) -> None:
        """End what `start` began."""
        await asyncio.gather(*(source.stop(changed) for source in self.sources.values()))

    def _of(self, token: Compact) -> Keys:
        # The claims are not proven: all that can come of them is which of the known keys is tried.
        issuer = jws.members(token.payload, "claims").get("iss")
        source = self.sources.get(issuer) if isinstance(issuer, str) else None
        if source is None:
            raise InvalidToken("iss is not an accepted issuer")
        return source

    def __repr__(self) -> str:
        return f"<keys of {', '.join(self.sources)}>"
