"""Keys that are given once and stay."""

from __future__ import annotations

from iogate.auth.interface import Changed
from iogate.auth.jws import Compact
from iogate.auth.keyset import Key, KeySet
from iogate.auth.principal import Principal
from iogate.errors import InvalidToken

NO_KEY = "there is no key for its kid and algorithm"
"""Why a token is refused, for the log."""


class Fixed:
    """What all keys have in common that are there from the beginning and never change."""

    __slots__ = ()

    issuers: frozenset[str] | None = None

    async def fetch(self, token: Compact, algorithm: str) -> Key:
        """Refuse the token: what is not at hand does not exist."""
        raise InvalidToken(NO_KEY)

    def holds(self, principal: Principal) -> bool:
        """Say that the key still counts."""
        return True

    def start(self, changed: Changed) -> None:
        """Do nothing."""

    async def ready(self) -> None:
        """Return at once."""

    async def stop(self, changed: Changed) -> None:
        """Do nothing."""


class FixedKey(Fixed):
    """The one key that everything is signed with, whatever `kid` a token names.

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
    """A key set that stays as it is.

    Args:
        keys: the key set.
    """

    __slots__ = ("keys",)

    def __init__(self, keys: KeySet) -> None:
        self.keys = keys

    def find(self, token: Compact, algorithm: str) -> Key:
        """Return the key that the token asks for, or refuse the token."""
        key = self.keys.find(token.header.get("kid"), algorithm)
        if key is None:
            raise InvalidToken(NO_KEY)
        return key

    def __repr__(self) -> str:
        return repr(self.keys)
