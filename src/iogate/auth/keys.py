"""Turn a configured key into functions that verify signatures, or say what is wrong with it.

A key is checked completely when the server is configured. The algorithm of a token then only selects a function from
the table that `from_secret` or `from_public_key` returns. joserfc implements the cryptography.
"""

from __future__ import annotations

import json
import warnings
from base64 import b64decode
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from joserfc.jwk import ECKey, JWKRegistry, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from iogate.auth.roca import has_fingerprint
from iogate.errors import ConfigurationError

Verifier = Callable[[bytes, bytes], bool]
"""Takes the signing input and the signature, and returns True if the signature is valid."""


class Algorithm(NamedTuple):
    """The key that an algorithm requires: its family, the minimum size of a secret in bytes, and its curve."""

    family: str
    secret_bytes: int = 0
    curve: str = ""


ALGORITHMS: Mapping[str, Algorithm] = {
    # RFC 7518, section 3.2: a secret is at least as long as the hash.
    "HS256": Algorithm("secret", secret_bytes=32),
    "HS384": Algorithm("secret", secret_bytes=48),
    "HS512": Algorithm("secret", secret_bytes=64),
    **{name: Algorithm("RSA") for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")},
    "ES256": Algorithm("EC", curve="P-256"),
    "ES384": Algorithm("EC", curve="P-384"),
    "ES512": Algorithm("EC", curve="P-521"),
    # RFC 9864 adds the name of the curve as an algorithm; most issuers still use the older name EdDSA.
    "Ed25519": Algorithm("Ed25519", curve="Ed25519"),
    "EdDSA": Algorithm("Ed25519", curve="Ed25519"),
}

_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}

_KEY_MARKS = (b"-----BEGIN ", b"---- BEGIN ", b"ssh-rsa ", b"ssh-dss ", b"ssh-ed25519 ", b"ecdsa-sha2-", b"sk-ssh-")

_PRIVATE_MEMBERS = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth"))

_PUBLISHED_SECRETS = (
    "a-string-secret-at-least-256-bits-long",
    "a-valid-string-secret-that-is-at-least-384-bits-long",
    "a-valid-string-secret-that-is-at-least-512-bits-long",
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    "your-256-bit-secret",
    "your-384-bit-secret",
    "your-512-bit-secret",
    "your-secret-key",
    "your_secret_key",
    "changeme",
    "change-me",
    "change_me",
    "change-this",
    "change_this",
    "replace-me",
    "replace_me",
    "qwertyuiop",
    "abcdefghijklmnopqrstuvwxyz",
    "passwordpassword",
)
"""Secrets that are published in tutorials and tools, and common placeholders."""

_MAKE_ONE = 'python -c "import secrets; print(secrets.token_urlsafe(64))"'


def algorithm_names(algorithms: object) -> tuple[str, ...]:
    """Return the names in `algorithms`.

    Raises:
        ConfigurationError: `algorithms` is empty or a plain string, or a name is unknown or `none`.
    """
    if isinstance(algorithms, str):
        raise ConfigurationError(f"algorithms is a list of names: write algorithms=[{algorithms!r}]")
    names: tuple[Any, ...] = tuple(algorithms) if isinstance(algorithms, Collection) else ()
    if not names:
        raise ConfigurationError(
            'algorithms is needed, and never taken from the token: write algorithms=["HS256"] for a secret, '
            '["RS256"] or ["ES256"] for a public key'
        )
    for name in names:
        if isinstance(name, str) and name.lower() == "none":
            raise ConfigurationError("algorithms has 'none': a token without a signature proves nothing; leave it out")
        if not isinstance(name, str) or name not in ALGORITHMS:
            known = ", ".join(ALGORITHMS)
            raise ConfigurationError(f"algorithms has {name!r}, which is not one of {known}")
    return names


def from_secret(secret: str | bytes, algorithms: Collection[str]) -> dict[str, Verifier]:
    """Return one verifier per algorithm, all with the same shared secret.

    Args:
        secret: a random string or random bytes, at least as many bytes as the longest hash in `algorithms`.
        algorithms: names of HS algorithms.

    Raises:
        ConfigurationError: the secret is too short, weak or a public key, or an algorithm is not an HS algorithm.
    """
    names = algorithm_names(algorithms)
    for name in names:
        if ALGORITHMS[name].family != "secret":
            raise ConfigurationError(
                f"algorithms has {name!r}, which does not go with a secret; write "
                'algorithms=["HS256"], or public_key= with the issuer\'s public key'
            )
    if not isinstance(secret, (str, bytes)):
        raise ConfigurationError("secret is a str or bytes; a JWK with a public key is given as public_key=")
    try:
        raw = secret.encode("utf-8") if isinstance(secret, str) else secret
    except UnicodeEncodeError:
        raw = b""
    if not raw:
        raise ConfigurationError(f"secret is empty or no text; make one with: {_MAKE_ONE}")
    if _is_public_key(raw):
        # A public key is not secret: any client could sign tokens with it (RFC 8725, section 2.1).
        raise ConfigurationError("secret is a key that others may know: give it as public_key=, with its algorithms")
    needed = max(ALGORITHMS[name].secret_bytes for name in names)
    if len(raw) < needed:
        raise ConfigurationError(
            f"secret has {len(raw)} bytes, {' and '.join(names)} needs {needed} or more; make one with: {_MAKE_ONE}"
        )
    if _is_weak(raw):
        raise ConfigurationError(
            f"secret can be guessed: it repeats itself or is published; make one with: {_MAKE_ONE}"
        )
    return verifiers(OctKey.import_key(raw), names)


def from_public_key(public_key: str | bytes | Mapping[str, Any], algorithms: Collection[str]) -> dict[str, Verifier]:
    """Return one verifier per algorithm, all with the same public key.

    Args:
        public_key: a PEM block, or a JWK as a mapping or as JSON text.
        algorithms: names of algorithms that fit the type of the key, and for EC its curve.

    Raises:
        ConfigurationError: the key cannot be read, is private or weak, or does not fit an algorithm.
    """
    names = algorithm_names(algorithms)
    found = load_public_key(public_key)
    for name in names:
        if name not in found.algorithms:
            raise ConfigurationError(f"algorithms has {name!r}, which does not go with {found.what}")
    return verifiers(found.key, names)


class PublicKey(NamedTuple):
    """A public key that has passed every check."""

    key: RSAKey | ECKey | OKPKey
    algorithms: tuple[str, ...]
    """The algorithms that fit the family and the curve of the key, and the `alg` of a JWK."""
    what: str
    """A description of the key, and the `algorithms` to use with it, for error messages."""


def load_public_key(public_key: str | bytes | Mapping[str, Any]) -> PublicKey:
    """Parse a public key and check its strength.

    Args:
        public_key: a PEM block, or a JWK as a mapping or as JSON text.

    Raises:
        ConfigurationError: the key cannot be read, is private, weak, or not for signatures.
    """
    if isinstance(public_key, Mapping):
        return _read_jwk(dict(public_key))
    if not isinstance(public_key, (str, bytes)):
        raise ConfigurationError("public_key is a PEM text, or a JWK as a mapping or JSON text")
    data = public_key.encode("utf-8", "replace") if isinstance(public_key, str) else public_key
    return _read_jwk(_read_json(data)) if data.lstrip().startswith(b"{") else _check_key(_read_pem(data))


def verifiers(key: OctKey | RSAKey | ECKey | OKPKey, names: Collection[str]) -> dict[str, Verifier]:
    """Return one verifier per algorithm, all with the same key, which must fit the algorithms."""
    # This function of joserfc checks the key against each algorithm again, and does not emit the warning about EdDSA.
    models = JWSRegistry.filter_algorithms(key, list(names))
    return {model.name: partial(model.verify, key=key) for model in models}


def secret_of(verifier: Verifier) -> bytes | None:
    """Return the shared secret of a verifier, so that its strength can be checked, or None if it has none."""
    key = verifier.keywords.get("key") if isinstance(verifier, partial) else None
    return key.raw_value if isinstance(key, OctKey) else None


def _is_public_key(raw: bytes) -> bool:
    """Return True if a secret is a public or private key of a key pair, or a certificate, in any common format."""
    if any(mark in raw for mark in _KEY_MARKS):
        return True
    if raw.lstrip().startswith(b"{") and b'"kty"' in raw:
        return True
    # Check plain DER, and its base64 without the PEM lines, which Keycloak's admin pages show.
    try:
        bare = b64decode(b"".join(raw.split()), validate=True)
    except ValueError:
        bare = raw
    return _joserfc_refuses(raw) or _joserfc_refuses(bare)


def _joserfc_refuses(raw: bytes) -> bool:
    """Return True if joserfc rejects a secret because it can load it as a public key or a certificate."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about short secrets, which are rejected later
        try:
            OctKey.import_key(raw)
        except ValueError:
            return True
    return False


def _is_weak(raw: bytes) -> bool:
    repeats = any(raw[size:] == raw[:-size] for size in range(1, min(len(raw) // 2, 64) + 1))
    text = raw.decode("utf-8", "replace").lower()
    return repeats or any(known in text for known in _PUBLISHED_SECRETS)


def _read_json(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ConfigurationError("public_key begins like a JWK, but is not a JSON object")
    return value


def _read_jwk(jwk: dict[str, Any]) -> PublicKey:
    if "keys" in jwk:
        raise ConfigurationError("public_key is a set of keys (JWKS): give it as jwks=")
    if jwk.get("kty") == "oct":
        raise ConfigurationError("public_key is a JWK with a shared secret: give its decoded `k` as secret=")
    if not _PRIVATE_MEMBERS.isdisjoint(jwk):
        raise ConfigurationError("public_key is a private JWK: keep that with the issuer, give the JWK without `d`")
    if jwk.get("use", "sig") != "sig":
        raise ConfigurationError("public_key is a JWK whose `use` is not 'sig': give the key that signs the tokens")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise ConfigurationError("public_key is a JWK whose `key_ops` lacks 'verify': give the key for signatures")
    value = {name: part for name, part in jwk.items() if name not in ("alg", "use", "key_ops")}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes, which are checked below
            native = JWKRegistry.import_key(value).public_key
    except Exception:  # bad keys raise exceptions of many types, not only ValueError
        raise ConfigurationError("public_key is a JWK that cannot be read: kty, its members or the curve") from None
    found = _check_key(native)
    own = jwk.get("alg")
    if own is None:
        return found
    fitting = tuple(name for name in found.algorithms if _same_algorithm(name) == _same_algorithm(own))
    name = f"{own!r:.100}"  # It may come from the network, with any length.
    return PublicKey(found.key, fitting, f"a JWK for {name} alone; write algorithms=[{name}]")


def _same_algorithm(name: object) -> object:
    return "EdDSA" if name == "Ed25519" else name


def _read_pem(data: bytes) -> object:
    if b"PRIVATE KEY-----" in data:
        raise ConfigurationError(
            "public_key is a private key: keep that with the issuer, give what `openssl pkey -pubout` prints of it"
        )
    if b"CERTIFICATE-----" in data:
        raise ConfigurationError("public_key is a certificate: give what `openssl x509 -pubkey -noout` prints of it")
    if b"-----BEGIN " not in data:
        raise ConfigurationError(
            "public_key is neither PEM nor a JWK: a PEM begins with -----BEGIN PUBLIC KEY-----; "
            "from an OpenSSH key `ssh-keygen -e -m PKCS8` makes one"
        )
    if b"\\n" in data:
        raise ConfigurationError(
            'public_key has its line breaks as the two characters \\n: write public_key=text.replace("\\\\n", "\\n")'
        )
    if data.count(b"-----BEGIN ") > 1:
        raise ConfigurationError("public_key has several PEM blocks: give one")
    try:
        return load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError("public_key is a PEM that cannot be read; copy it again, all lines of it") from None


def _check_key(native: object) -> PublicKey:
    if isinstance(native, RSAPublicKey):
        numbers = native.public_numbers()
        exponent = numbers.e
        if not 2048 <= native.key_size <= 8192:
            raise ConfigurationError(f"public_key is RSA with {native.key_size} bits: use 2048 to 8192")
        # FIPS 186-5, section 5.4, requires more than 2**16. A huge exponent only makes each verification slow.
        if not 65537 <= exponent < 2**32 or exponent % 2 == 0:
            raise ConfigurationError("public_key is RSA with an unusual exponent: use 65537")
        if has_fingerprint(numbers.n):
            raise ConfigurationError(
                "public_key is RSA of a faulty chip (ROCA, CVE-2017-15361): an attacker can factor it and sign tokens;"
                " have the issuer make another key pair, on other hardware or in software"
            )
        what = 'an RSA key; write algorithms=["RS256"] or ["PS256"]'
        return PublicKey(RSAKey.import_key(native), _fitting("RSA"), what)
    if isinstance(native, EllipticCurvePublicKey):
        curve = _CURVES.get(native.curve.name, native.curve.name)
        fitting = _fitting("EC", curve)
        if not fitting:
            raise ConfigurationError(
                f"public_key is on {curve}, which no algorithm uses: give a key on P-256, P-384 or P-521"
            )
        return PublicKey(ECKey.import_key(native), fitting, f"{curve}; write algorithms={list(fitting)}")
    if isinstance(native, Ed25519PublicKey):
        return PublicKey(
            OKPKey.import_key(native), _fitting("Ed25519", "Ed25519"), 'an Ed25519 key; write algorithms=["EdDSA"]'
        )
    raise ConfigurationError("public_key is of a kind that is not used: give an RSA, EC or Ed25519 key")


def _fitting(family: str, curve: str = "") -> tuple[str, ...]:
    return tuple(name for name, wanted in ALGORITHMS.items() if (wanted.family, wanted.curve) == (family, curve))
