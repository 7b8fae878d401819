"""Key sets (JWKS): whatever an issuer publishes, a key that is used is a good one, and the one that was meant."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

from fuzz.targets.key import check_jwk
from iogate.auth.keys import ALGORITHMS, from_public_key
from iogate.auth.keyset import MAX_KEYS, Key, KeySet
from iogate.errors import ConfigurationError

MAX_MESSAGE = 400
"""Characters of what is told about one key: it goes into a log, and an issuer may write what it likes."""


def keyset(data: bytes) -> bool:
    """Take any bytes for a key set."""
    try:
        keys = KeySet.read(data)
    except ConfigurationError as error:
        assert error.__cause__ is None  # noqa: PT017 - whose text may quote the key
        assert len(str(error)) < 6 * MAX_MESSAGE  # noqa: PT017
        return False
    document = json.loads(data)
    assert 0 < len(keys.keys) <= MAX_KEYS
    assert len(keys.keys) <= len(document["keys"])
    assert all(len(problem) < MAX_MESSAGE for problem in keys.problems)
    for key in keys.keys:
        _check(key, document["keys"])
    _check_found(keys)
    # The text and what was read from it are one set.
    again = KeySet.read(document)
    assert [(key.key_id, key.thumbprint) for key in again.keys] == [(key.key_id, key.thumbprint) for key in keys.keys]
    return True


def _check(key: Key, jwks: list[Any]) -> None:
    """Make sure that a key is one of the document, and would be accepted alone too."""
    named = [jwk for jwk in jwks if isinstance(jwk, dict) and jwk.get("kid") == key.key_id]
    own = [jwk for jwk in named if _accepted(jwk, list(key.verifiers))]
    assert own
    assert key.verifiers
    for name, verify in key.verifiers.items():
        assert any(jwk.get("alg", name) in (name, None, "EdDSA", "Ed25519") for jwk in own)
        assert any(check_jwk(name, jwk) for jwk in own)
        assert verify(b"a.b", bytes(64)) is False


def _accepted(jwk: dict[str, Any], names: list[str]) -> bool:
    try:
        from_public_key(jwk, names)
    except ConfigurationError:
        return False
    return True


def _check_found(keys: KeySet) -> None:
    """Make sure that a token is given the one key that it can mean, and no other."""
    for key_id, name in product({key.key_id for key in keys.keys} | {None, "nobody"}, ALGORITHMS):
        meant = [key for key in keys.keys if name in key.verifiers and (key_id is None or key.key_id == key_id)]
        found = keys.find(key_id, name)
        if len({key.thumbprint for key in meant}) == 1:
            assert found is not None
            assert found.thumbprint == meant[0].thumbprint
        else:
            assert found is None
