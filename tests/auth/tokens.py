"""Tokens made by hand, so that the tests do not trust the code under test or its libraries, and keys to sign with."""

from __future__ import annotations

import hashlib
import hmac
import json
import warnings
from base64 import urlsafe_b64encode
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import serialize_compact

from iogate.clock import Clock

NOW = 1_700_000_000
SECRET = "Zk9yR3qLw8vT2xNcB7mHs5dJp1uAe4Gf0iKoXyQzWbVkQ81rTzLmP6sDfGhJ2nC4"
GOOD: dict[str, Any] = {"sub": "alice", "exp": NOW + 60}

PrivateKey = RSAKey | ECKey | OKPKey


class FixedClock(Clock):
    """Stand still at a given moment."""

    __slots__ = ("now",)

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def wall(self) -> float:
        return self.now


CLOCK = FixedClock()


def b64(data: bytes | str) -> str:
    raw = data.encode() if isinstance(data, str) else data
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def forge(
    claims: dict[str, Any] | bytes | str = GOOD,
    header: dict[str, Any] | bytes | str = '{"alg":"HS256","typ":"JWT"}',
    secret: str | bytes = SECRET,
    digest: str = "sha256",
) -> str:
    """Sign anything with HMAC; a mapping is written as JSON, a text or bytes as it is."""
    head, body = (json.dumps(part) if isinstance(part, dict) else part for part in (header, claims))
    signing_input = f"{b64(head)}.{b64(body)}"
    key = secret.encode() if isinstance(secret, str) else secret
    return f"{signing_input}.{b64(hmac.new(key, signing_input.encode(), getattr(hashlib, digest)).digest())}"


def with_claims(**claims: Any) -> str:
    """Make a good token with more or other claims."""
    return forge(GOOD | claims)


def with_header(**header: Any) -> str:
    """Make a good token with more or other header parameters."""
    return forge(header={"alg": "HS256", "typ": "JWT"} | header)


@cache
def rsa_key(bits: int = 2048, exponent: int = 65537) -> RSAKey:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return RSAKey.import_key(rsa.generate_private_key(exponent, bits))


@cache
def _ec_key(curve: str) -> ECKey:
    return ECKey.generate_key(curve)


def ec_key(curve: str = "P-256") -> ECKey:
    return _ec_key(curve)


@cache
def ed_key() -> OKPKey:
    return OKPKey.import_key(ed25519.Ed25519PrivateKey.generate())


def key_for(algorithm: str) -> PrivateKey:
    if algorithm in ("EdDSA", "Ed25519"):
        return ed_key()
    curves = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
    return ec_key(curves[algorithm]) if algorithm in curves else rsa_key()


def public_pem(key: PrivateKey) -> bytes:
    return key.as_pem(private=False)


def public_jwk(key: PrivateKey, **members: Any) -> dict[str, Any]:
    return {**key.as_dict(private=False), **members}


def sign(algorithm: str, key: PrivateKey, claims: dict[str, Any] = GOOD, **header: Any) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return serialize_compact({"alg": algorithm, **header}, json.dumps(claims), key, algorithms=[algorithm])


def other_pem(private: Any) -> bytes:
    """Write the public part of any key of the cryptography library as PEM."""
    pem: bytes = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def private_pem(key: PrivateKey) -> bytes:
    native: Any = key.private_key
    pem: bytes = native.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem


def brainpool_pem() -> bytes:
    return other_pem(ec.generate_private_key(ec.BrainpoolP256R1()))
