"""Keys that are part of the configuration and never change."""

from __future__ import annotations

from iogate.auth.interface import Changed
from iogate.auth.jws import Compact
from iogate.auth.keyset import Key, KeySet
from iogate.auth.principal import Principal
from iogate.errors import InvalidToken

NO_KEY = "there is no key for its kid and algorithm"
"""The reason for a rejection, for the log."""


class Fixed:
    """Base class of sources whose keys are loaded from the start and never change."""

    __slots__ = ()

    issuers: frozenset[str] | None = None

    async def fetch(self, token: Compact, algorithm: str) -> Key:
        """Raise `InvalidToken`: a key that is not loaded does not exist."""
        raise InvalidToken(NO_KEY)

    def holds(self, principal: Principal) -> bool:
        """Return True: these keys are always valid."""
        return True

    def start(self, changed: Changed) -> None:
        """Do nothing."""

    async def ready(self) -> None:
        """Return immediately: the keys are loaded."""

    async def stop(self, changed: Changed) -> None:
        """Do nothing."""


class FixedKey(Fixed):
    """A single key for all tokens, whatever their `kid` is.

    Args:
        key: the key.
    """

    __slots__ = ("key",)

    def __init__(self, key: Key) -> None:
        self.key = key

    def find(self, token: Compact, algorithm: str) -> Key:
        """Return the key."""
        return self.key

    def __repr__(self) -> str:
        return "<one key>"


class FixedKeySet(Fixed):
    """A key set that does not change.

    Args:
        keys: the key set.
    """

    __slots__ = ("keys",)

    def __init__(self, keys: KeySet) -> None:
        self.keys = keys

    def find(self, token: Compact, algorithm: str) -> Key:
        """Return the key of the token, or raise `InvalidToken`."""
        key = self.keys.find(token.header.get("kid"), algorithm)
        if key is None:
            raise InvalidToken(NO_KEY)
        return key

    def __repr__(self) -> str:
        return repr(self.keys)
