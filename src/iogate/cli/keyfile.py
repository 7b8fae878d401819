"""Keys for `iogate token`: a secret from the environment, or a private or public key from a file."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc.jwk import ECKey, JWKRegistry, Key, OKPKey, RSAKey

_USUAL_ALGORITHM = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA"}


class KeyFile(NamedTuple):
    """The keys of a file: the private key, or None, and the public key in a form that `JWTAuth` accepts."""

    private: Key | None
    public: str | bytes | Mapping[str, Any]


def secret_from(variable: str) -> str:
    """Return the secret in an environment variable.

    Raises:
        click.ClickException: the variable is empty or not set. The message shows how to set it.
    """
    secret = os.environ.get(variable)
    if not secret:
        raise click.ClickException(
            f"the environment variable {variable} is not set. Set it to the server's secret, or to a new one:\n"
            f"  export {variable}=\"$(python3 -c 'import secrets; print(secrets.token_urlsafe(64))')\""
        )
    return secret


def read(path: Path) -> KeyFile:
    """Read a key from a PEM or JWK file.

    Raises:
        click.ClickException: the key is encrypted, cannot be read, or is of a kind that iogate does not use.
    """
    data = path.read_bytes()
    if data.lstrip().startswith(b"{"):
        return _read_jwk(data, path)
    if b"PRIVATE KEY-----" not in data:
        return KeyFile(None, data)
    try:
        native = load_pem_private_key(data, password=None)
    except TypeError:
        raise click.ClickException(
            f"{path} is encrypted: `openssl pkey -in {path} -out FILE` writes it without"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise click.ClickException(f"{path} cannot be read: is it PEM as `openssl genpkey` writes it?") from None
    return _pair(_wrap(native, path))


def usual_algorithm(key: Key) -> str:
    """Return the algorithm that most issuers use with a key."""
    return _USUAL_ALGORITHM.get(str(key.get("crv")), "RS256")


def _read_jwk(data: bytes, path: Path) -> KeyFile:
    try:
        jwk = json.loads(data)
    except (ValueError, RecursionError):
        raise click.ClickException(f"{path} begins like a JWK, but is not JSON") from None
    if "d" not in jwk:
        return KeyFile(None, jwk)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # They are about key sizes, which iogate checks on the public key.
            return _pair(JWKRegistry.import_key(jwk))
    except Exception:  # joserfc raises many types for an invalid key.
        raise click.ClickException(f"{path} is a JWK that cannot be read") from None


def _pair(key: Key) -> KeyFile:
    public = {name: value for name, value in key.as_dict(private=False).items() if name not in ("key_ops", "use")}
    return KeyFile(key, public)


def _wrap(native: object, path: Path) -> Key:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if isinstance(native, RSAPrivateKey):
            return RSAKey.import_key(native)
        if isinstance(native, EllipticCurvePrivateKey) and native.curve.name.startswith("secp"):
            return ECKey.import_key(native)
        if isinstance(native, Ed25519PrivateKey):
            return OKPKey.import_key(native)
    raise click.ClickException(f"{path} is of a kind that is not used: give an RSA, EC (P-256 ...) or Ed25519 key")
