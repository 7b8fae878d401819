"""Sets of public keys (JWKS; RFC 7517, section 5): load the usable keys, and find the key of a token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from iogate.auth import jws
from iogate.auth.keys import Verifier, load_public_key, verifiers
from iogate.errors import ConfigurationError, InvalidToken

MAX_BYTES = 512 * 1024
"""Maximum size of a key set in bytes. A dozen keys with certificates take about 50 000."""
MAX_KEYS = 100
"""Maximum number of keys in a set. Issuers publish two to ten."""


class Key(msgspec.Struct, frozen=True, eq=False):
    """A key that verifies the signatures of tokens."""

    verifiers: Mapping[str, Verifier]
    """The function that verifies a signature, by the name of each algorithm that the key supports."""
    key_id: str | None = None
    """The `kid` by which tokens refer to the key."""
    thumbprint: str | None = None
    """The thumbprint of the key (RFC 7638), which is unique, if the key is in a set."""

    def __repr__(self) -> str:
        return f"<Key {self.key_id!r} for {', '.join(self.verifiers)}>"


class KeySet:
    """The keys of a set that can verify signatures.

    A key that cannot be used does not affect the others: it is left out, and `problems` says why.

    Args:
        keys: the keys.
        problems: for each key that was left out, what is wrong with it.
    """

    __slots__ = ("_by_algorithm", "_by_id", "keys", "problems", "thumbprints")

    def __init__(self, keys: Iterable[Key], problems: Iterable[str] = ()) -> None:
        self._by_id: dict[tuple[str, str], Key | None] = {}
        self._by_algorithm: dict[str, dict[str | None, Key]] = {}
        self.keys = tuple(keys)
        found = list(problems)
        for key in self.keys:
            for algorithm in key.verifiers:
                self._by_algorithm.setdefault(algorithm, {})[key.thumbprint] = key
                if key.key_id is not None and not self._add(key.key_id, algorithm, key):
                    found.append(f"the kid {key.key_id!r:.100} names two keys for {algorithm}: neither is used")
        self.thumbprints = frozenset(key.thumbprint for key in self.keys)
        self.problems = tuple(dict.fromkeys(found))

    @classmethod
    def read(cls, document: bytes | Mapping[str, Any]) -> KeySet:
        """Parse a set of keys.

        Args:
            document: the JSON text, or the mapping parsed from it.

        Raises:
            ConfigurationError: the document is not a key set, is too large, or has no usable key.
        """
        keys: list[Key] = []
        problems: list[str] = []
        for number, jwk in enumerate(_members(document), 1):
            kid = jwk.get("kid") if isinstance(jwk, Mapping) else None
            name = f"the key {kid!r:.100}" if kid is not None else f"key {number}"
            try:
                keys.append(_key(jwk))
            except ConfigurationError as error:
                problems.append(f"{name} {str(error).removeprefix('public_key ')}")
        if not keys:
            why = f": {'; '.join(problems[:5])}" if problems else ""
            raise ConfigurationError(f"the key set has no key for checking signatures{why}")
        return cls(keys, problems)

    def find(self, key_id: str | None, algorithm: str) -> Key | None:
        """Return the key of a token, or None if there is no such key.

        Args:
            key_id: the `kid` in the header of the token, compared exactly. If it is None, the set must have exactly one
                key for the algorithm.
            algorithm: the algorithm in the header of the token.
        """
        if key_id is not None:
            return self._by_id.get((key_id, algorithm))
        fitting = list(self._by_algorithm.get(algorithm, {}).values())
        return fitting[0] if len(fitting) == 1 else None

    def _add(self, key_id: str, algorithm: str, key: Key) -> bool:
        """Register a key under its `kid`. Return False if another key has the same `kid`: then neither is used."""
        place = (key_id, algorithm)
        known = self._by_id.get(place, key)
        if known is None or known.thumbprint != key.thumbprint:
            self._by_id[place] = None
            return False
        self._by_id[place] = key
        return True

    def __repr__(self) -> str:
        return f"<KeySet of {[key.key_id for key in self.keys]}>"


def _members(document: bytes | Mapping[str, Any]) -> list[Any]:
    """Return the list in the member `keys`. Its items are not checked."""
    if not isinstance(document, Mapping):
        if len(document) > MAX_BYTES:
            raise ConfigurationError(f"the key set is larger than {MAX_BYTES} bytes")
        try:
            document = jws.members(document, "key set")
        except InvalidToken as error:
            raise ConfigurationError(error.reason) from None
    keys = document.get("keys")
    if not isinstance(keys, list):
        raise ConfigurationError('this is no key set: that is a JSON object with a list in "keys"')
    if len(keys) > MAX_KEYS:
        raise ConfigurationError(f"the key set has more than {MAX_KEYS} keys")
    return keys


def _key(jwk: object) -> Key:
    if not isinstance(jwk, Mapping):
        raise ConfigurationError("is no JSON object")
    key_id = jwk.get("kid")
    if key_id is not None and not isinstance(key_id, str):
        raise ConfigurationError("has a kid that is not a string")
    found = load_public_key(jwk)
    if not found.algorithms:
        raise ConfigurationError(f"is {found.what.partition(';')[0]}, which does not go with it or is not used here")
    return Key(verifiers(found.key, found.algorithms), key_id, found.key.thumbprint())
