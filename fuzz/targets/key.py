"""What a server is given to check signatures with: a public key (PEM or JWK), or a shared secret."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from iogate.auth.keys import ALGORITHMS, Verifier, from_public_key, from_secret
from iogate.errors import ConfigurationError

PUBLIC_KEY = [name for name, algorithm in ALGORITHMS.items() if algorithm.family != "secret"]
CURVES = {"ES256": ("P-256", "secp256r1"), "ES384": ("P-384", "secp384r1"), "ES512": ("P-521", "secp521r1")}
RSA_BITS = range(2048, 8193)


def key(data: bytes) -> bool:
    """Take any bytes for a key, of each algorithm there is."""
    jwk = _object(data)
    accepted = []
    for name in PUBLIC_KEY:
        verify = _loaded(from_public_key, data, name)
        if jwk is not None:
            # The text of a JWK and the mapping are one key.
            assert (_loaded(from_public_key, jwk, name) is None) is (verify is None)
        if verify is not None:
            accepted.append(name)
            _check(name, data, jwk)
            for size in (0, 1, 64, 132, 256):
                assert verify(b"a.b", bytes(size)) is False
    secret = _secret(data)
    # What is a public key is no secret: everybody has it.
    assert not (accepted and secret)
    return bool(accepted) or secret


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data) if data.lstrip().startswith(b"{") else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _check(name: str, data: bytes, jwk: dict[str, Any] | None) -> None:
    """Hold an accepted key against what it says of itself."""
    if jwk is not None:
        assert check_jwk(name, jwk)
        return
    native = load_pem_public_key(data)
    if isinstance(native, RSAPublicKey):
        assert native.key_size in RSA_BITS
    if isinstance(native, EllipticCurvePublicKey):
        assert native.curve.name == CURVES[name][1]


def check_jwk(name: str, jwk: dict[str, Any]) -> bool:
    """Say whether a JWK says of itself that it is a public key that goes with an algorithm, and strong enough."""
    # `k` is a secret of `oct` alone, which is none of the kinds below; elsewhere it says nothing (RFC 7517, section 4).
    if jwk.keys() & {"d", "p", "q", "dp", "dq", "qi", "oth", "keys"}:
        return False
    if name in CURVES:
        return bool(jwk["kty"] == "EC" and jwk["crv"] == CURVES[name][0])
    if name in ("EdDSA", "Ed25519"):
        return bool(jwk["kty"] == "OKP" and jwk["crv"] == "Ed25519")
    modulus = jwk["n"] + "=" * (-len(jwk["n"]) % 4)
    return jwk["kty"] == "RSA" and int.from_bytes(urlsafe_b64decode(modulus)).bit_length() in RSA_BITS


def _secret(data: bytes) -> bool:
    verify = _loaded(from_secret, data, "HS256")
    if verify is None:
        return False
    assert len(data) >= 32
    good = hmac.digest(data, b"a.b", "sha256")
    assert verify(b"a.b", good) is True
    assert verify(b"a.c", good) is False
    return True


def _loaded(load: Callable[[Any, list[str]], dict[str, Verifier]], key: Any, name: str) -> Verifier | None:
    try:
        return load(key, [name])[name]
    except ConfigurationError as error:
        assert error.__cause__ is None  # noqa: PT017 - whose text may quote the key
        return None
