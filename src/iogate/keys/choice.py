"""Create the source of keys from the arguments of a configuration."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

from iogate.auth.interface import Keys
from iogate.auth.keys import ALGORITHMS, algorithm_names, from_public_key, from_secret
from iogate.auth.keyset import Key, KeySet
from iogate.errors import ConfigurationError
from iogate.keys.fixed import FixedKey, FixedKeySet
from iogate.keys.function import FunctionKeys, KeyFunction
from iogate.keys.issuers import Issuers
from iogate.keys.refreshed import Refreshed
from iogate.keys.remote import Discovery, KeySetURL

logger = logging.getLogger("iogate")

KeysArgument = Refreshed | Mapping[str, Refreshed | str | bytes | Mapping[str, Any]] | KeyFunction
"""The type of the argument `keys` of `JWTAuth`."""


def choose(given: Mapping[str, Any], algorithms: Collection[str], issuers: frozenset[str] | None) -> Keys:
    """Return the source of keys for a configuration.

    Args:
        given: the values of all arguments that give keys, by name. Exactly one of them is not None.
        algorithms: the accepted algorithms.
        issuers: the accepted issuers, or None if they are not configured.

    Raises:
        ConfigurationError: not exactly one argument gives keys, or it is not valid, or it does not fit `algorithms` or
            `issuers`.
    """
    named = [(name, value) for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise ConfigurationError(
            "give exactly one key: secret= for HS256, HS384, HS512, or for the others public_key=, jwks=, jwks_url=,"
            " discover= or keys= (is the environment variable it comes from set?)"
        )
    name, value = named[0]
    names = algorithm_names(algorithms)
    if name == "secret":
        return FixedKey(Key(from_secret(value, names)))
    if name == "public_key":
        return FixedKey(Key(from_public_key(value, names)))
    if name == "keys" and _is_function(value):
        return FunctionKeys(value)
    secrets = [known for known in names if ALGORITHMS[known].family == "secret"]
    if secrets:
        raise ConfigurationError(
            f"algorithms has {secrets[0]!r}, which has a shared secret, and {name}= gives public keys: write the"
            ' algorithms of these, such as algorithms=["RS256"]'
        )
    keys = _public_keys(name, value, names)
    _check_issuers(name, keys, issuers)
    return keys


def _public_keys(name: str, value: Any, names: Collection[str]) -> Keys:
    if name == "jwks":
        return _fixed(name, value, names)
    if name == "jwks_url":
        return KeySetURL(value)
    if name == "discover":
        return Discovery(value)
    if isinstance(value, Mapping):
        return _by_issuer(value, names)
    if isinstance(value, Refreshed):
        return value
    raise ConfigurationError(
        "keys is KeySetFile(...), KeySetURL(...), Discovery(...), a mapping from issuers to these or to key sets,"
        " or a function; a key itself is given as secret=, public_key= or jwks="
    )


def _by_issuer(value: Mapping[str, Any], names: Collection[str]) -> Issuers:
    sources: dict[str, Keys] = {}
    for issuer, source in value.items():
        if not issuer:
            raise ConfigurationError("keys is a mapping from issuers, as tokens have them in iss: one of them is empty")
        keys = source if isinstance(source, Refreshed) else _fixed(f"keys[{issuer!r}]", source, names)
        if keys.issuers is not None and keys.issuers != {issuer}:
            raise ConfigurationError(f"keys has for {issuer!r} the discovery of another issuer, {keys!r}")
        sources[issuer] = keys
    if not sources:
        raise ConfigurationError("keys is an empty mapping: every token would be refused")
    return Issuers(sources)


def _fixed(name: str, value: Any, names: Collection[str]) -> FixedKeySet:
    if not isinstance(value, (str, bytes, Mapping)):
        raise ConfigurationError(f"{name} is a key set as a mapping or JSON text, and not {type(value).__name__}")
    try:
        keys = KeySet.read(value.encode("utf-8", "replace") if isinstance(value, str) else value)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from None
    if not any(known in key.verifiers for key in keys.keys for known in names):
        raise ConfigurationError(f"{name} has no key that goes with {' or '.join(names)}: {keys!r}")
    for problem in keys.problems:
        logger.warning("%s: %s", name, problem)
    return FixedKeySet(keys)


def _check_issuers(name: str, keys: Keys, issuers: frozenset[str] | None) -> None:
    if keys.issuers is not None:
        if issuers is not None and issuers != keys.issuers:
            raise ConfigurationError(
                f"issuer is {sorted(issuers)}, and {name}= has the keys of {sorted(keys.issuers)}: leave issuer out"
            )
    elif issuers is None and isinstance(keys, KeySetURL):
        raise ConfigurationError(
            f"{name}= needs issuer=: without it a token of anybody whose keys are there would be accepted"
        )


def _is_function(value: object) -> bool:
    return callable(value) and not isinstance(value, (Refreshed, Mapping, type))
